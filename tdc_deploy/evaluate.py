"""Build a selection's network and measure it, whole, against the source."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
from polygraphy.backend.base import BaseRunner

from tdc_deploy.backends.base import Backend
from tdc_deploy.compress import Selection, compress
from tdc_deploy.graph.network import model_of
from tdc_deploy.kept_errors import KeptErrors
from tdc_deploy.probes import Probes
from tdc_deploy.profiling.measure import NETWORK, Effort, compare, compare_fresh
from tdc_deploy.profiling.store import Store
from tdc_deploy.progress import Progress
from tdc_deploy.ranks.table import CostTable
from tdc_deploy.repair import Repair
from tdc_deploy.samples import Samples
from tdc_deploy.source import Source
from tdc_deploy.tucker import Factors
from tdc_deploy.types import Ratio, Timing
from tdc_deploy.verify import Comparison, Outputs, compare_outputs, run_all

# A plan is tried on this many of the inputs; the result is verified on all of them.
TRIAL_SAMPLES = 128

NATIVE_CHAIN = ("tucker2", "native")

REVISION = 2
"""Raised whenever the same selection makes another network: what the store has is then measured anew."""

InSequence = Callable[[Source, Selection], Mapping[str, Factors]]
"""Factors of a selection's layers, decomposed one behind the other; none where that measures no better."""


@dataclass(frozen=True)
class Trial:
    """A selection's time ratio to the evaluator's `rival`, and its relative error to the source."""

    ratio: float
    error: float


class Evaluator:
    """Measures selections of one source with one set of inputs; trials are kept in the store.

    With real inputs, one part of them repairs the networks and the other verifies them. `backend`
    gives times, and errors too unless `accuracy` does: what a compressed network loses does not depend on
    where it runs, but building it may take longer than all else there. `in_sequence` may find better
    factors for a refined network.
    """

    def __init__(
        self,
        source: Source,
        samples: Samples,
        backend: Backend,
        store: Store,
        accuracy: Backend | None = None,
        in_sequence: InSequence | None = None,
    ) -> None:
        self.source = source
        self.backend = backend
        self._accuracy = accuracy or backend
        self._store = store
        self.given = samples
        self._repair_samples, self.samples = samples.split()
        self._few = self.samples.spread(TRIAL_SAMPLES)
        self._dense: dict[int, Outputs] = {}
        self._in_sequence = in_sequence
        self._sequences: dict[str, Mapping[str, Factors]] = {}

    @property
    def repair_samples(self) -> Samples:
        """Those of the given samples that may be learned from; the others verify."""
        return self._repair_samples

    @property
    def rival(self) -> onnx.ModelProto | Path:
        """What trials are timed against: the source."""
        return self.source.path

    @cached_property
    def kept_errors(self) -> KeptErrors:
        """What the layers lose in other forms, as far as the store knows."""
        return KeptErrors(self.source, self._store)

    @cached_property
    def dense_ms(self) -> float:
        """The latency in milliseconds of what trials are timed against."""

        def measured() -> dict[str, Any]:
            return asdict(self.backend.measure(self.rival, self.samples.first_batch(), NETWORK))

        return Timing(**self._store.kept("source", self._describe({}), measured)).median

    def trial(self, selection: Selection) -> Trial:
        """Measure a selection, unless the store has it."""
        description = self._describe(selection)
        return Trial(**self._store.kept("trial", description, lambda: asdict(self._try(selection))))

    def error(self, selection: Selection) -> float:
        """The relative output error of a selection, unless the store has it; nothing is timed."""
        return self._error(selection, None)

    def _error(self, selection: Selection, model: onnx.ModelProto | None) -> float:
        def measured() -> float:
            with self._accuracy.runner(model or self.model(selection)) as after:
                return self._comparison(after, self._few).error

        description = self._describe_network(self._accuracy, selection)
        return float(self._store.kept("error", description, measured))

    def error_alone(self) -> Callable[[Selection], float]:
        """What gives the error of selections of one layer, from a few samples; in graph order at best.

        It holds the network's values at one layer, and a session of what lies behind, as long as it lives.
        """
        probes = Probes(self.source, self._repair_samples, self.samples, self._accuracy)

        def error(selection: Selection) -> float:
            ((name, candidate),) = selection.items()
            description = self._describe_network(self._accuracy, selection)
            found = self._store.kept("alone", description, lambda: probes.error(name, candidate))
            return self.error(selection) if found is None else float(found)

        return error

    def with_roundings(self, table: CostTable, progress: Progress) -> CostTable:
        """The table with what each layer's rounding costs, where some candidates round; here none does."""
        del progress
        return table

    def model(self, selection: Selection, refine: bool = False) -> onnx.ModelProto:
        """The compressed, repaired and fused network of a selection."""
        repair = self.repair if selection else None
        given = self.in_sequence(selection) if refine else {}
        model = model_of(compress(self.source, selection, repair, refine, given))
        # Graphs under surgery are cyclic: each would keep its weights until Python happens to look.
        gc.collect()
        return model

    def in_sequence(self, selection: Selection) -> Mapping[str, Factors]:
        """Factors of the layers decomposed in sequence, found once; none where that is no better."""
        if self._in_sequence is None or not selection:
            return {}
        key = str({name: str(candidate) for name, candidate in sorted(selection.items())})
        if key not in self._sequences:
            self._sequences = {key: self._in_sequence(self.source, selection)}
        return self._sequences[key]

    def compare(self, model: onnx.ModelProto, effort: Effort) -> tuple[Comparison, Ratio]:
        """Verify a compressed network on all inputs, and time it against the source."""
        comparison = self.verify(model)
        ratio = compare_fresh(
            lambda: self.backend.runner(self.source.path),
            lambda: self.backend.runner(model),
            self.samples.first_batch(),
            effort,
        )
        return comparison, ratio

    def verify(self, model: onnx.ModelProto) -> Comparison:
        """Compare a network's outputs with the source's on all inputs."""
        with self._accuracy.runner(model) as after:
            return self._comparison(after, self.samples)

    def _try(self, selection: Selection) -> Trial:
        """The same on a few inputs and with one session each: enough to correct a plan by."""
        if self._accuracy is not self.backend:
            model = self.model(selection)
            error = self._error(selection, model)
            before, after = self.backend.runner(self.rival), self.backend.runner(model)
            with before, after:
                ratio = compare(before, after, self._few.first_batch(), NETWORK)
            return Trial(ratio.value, error)
        # Not named: the model would be kept beside its session.
        with self.backend.runner(self.model(selection)) as after:
            comparison = self._comparison(after, self._few)
            with self.backend.runner(self.rival) as dense:
                ratio = compare(dense, after, self._few.first_batch(), NETWORK)
        return Trial(ratio.value, comparison.error)

    def _comparison(self, after: BaseRunner, samples: Samples) -> Comparison:
        return compare_outputs(self._dense_outputs(samples), run_all(after, samples), samples)

    def _dense_outputs(self, samples: Samples) -> Outputs:
        if len(samples) not in self._dense:
            with self._accuracy.runner(self.source.path) as runner:
                self._dense[len(samples)] = run_all(runner, samples)
        return self._dense[len(samples)]

    @cached_property
    def repair(self) -> Repair | None:
        """Corrects compressed networks; None without real inputs."""
        if not self._repair_samples.real:
            return None
        tensors = [self.source.convs[name].node.outputs[0].name for name in self.source.plannable]
        return Repair(self.source.network, tensors, self._repair_samples, self._accuracy)

    def _describe(self, selection: Selection) -> Mapping[str, Any]:
        """What a trial's time and error depend on."""
        description = self._describe_network(self.backend, selection)
        if self._accuracy is not self.backend:
            description["accuracy"] = self._accuracy.describe()
        native = sorted(
            n for n, c in selection.items() if (c.form, c.implementation) == NATIVE_CHAIN
        )
        return {**description, "native": native} if native else description

    def _describe_network(self, backend: Backend, selection: Selection) -> dict[str, Any]:
        """What its error depends on: fusing changes nothing but the order of rounding."""
        forms = {name: str(c) for name, c in sorted(selection.items()) if c.form != "dense"}
        return {
            "revision": REVISION,
            "backend": backend.describe(),
            "model": self.source.sha256,
            "shapes": {name: list(shape) for name, shape in self.source.inputs.items()},
            "inputs": self._inputs_sha256,
            "selection": forms,
            **self._describe_statistics(forms),
        }

    def _describe_statistics(self, forms: Mapping[str, str]) -> dict[str, str]:
        """On what inputs the layers were decomposed, where any was."""
        statistics = self.source.statistics
        return {"statistics": statistics.sha256} if forms and statistics is not None else {}

    @cached_property
    def _inputs_sha256(self) -> list[str]:
        return [self._repair_samples.sha256, self._few.sha256]
