"""Times for a search: the dense network as ONNX, and the backend that will run it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.errors import TdcError
from tdc_deploy.evaluate import Evaluator, Trial
from tdc_deploy.planner import MilpSolver
from tdc_deploy.profiling.bounds import Roofline
from tdc_deploy.profiling.layers import LayerProfiler
from tdc_deploy.profiling.store import Store
from tdc_deploy.progress import Progress
from tdc_deploy.ranks.choices import Choices, OnnxRuntimeChoices
from tdc_deploy.ranks.milp import Selected
from tdc_deploy.ranks.table import CostTable, Row, build_table, latency
from tdc_deploy.samples import Samples, input_types, random_samples, read_samples
from tdc_deploy.search import Search, first_scale
from tdc_deploy.source import Source, read_source
from tdc_deploy.types import Candidate, ConvLayer, Precision
from tdc_train.conversion import decomposable
from tdc_train.layer_names import module_paths
from tdc_train.search.space import Space
from tdc_train.search.spec import SearchSpec


@dataclass(frozen=True)
class EqualRanks:
    """A backend's choices of one rank: Tucker-2 with r_in = r_out, and SVD; HALOC's half of the space."""

    every: Choices

    @property
    def revisions(self) -> Mapping[Precision, int]:
        """Those of all choices."""
        return self.every.revisions

    def offered(self, layer: ConvLayer) -> list[Candidate]:
        """The candidates of a layer but dense."""
        found = self.every.offered(layer)
        return [c for c in found if c.ranks is not None and c.ranks.r_in == c.ranks.r_out]

    def worth_measuring(
        self,
        layer: ConvLayer,
        candidates: Sequence[Candidate],
        errors: NDArray[np.float64],
        dense_ms: float,
        roofline: Roofline,
    ) -> list[int]:
        """Indices of the candidates to measure."""
        return self.every.worth_measuring(layer, candidates, errors, dense_ms, roofline)

    def model(self, layer: ConvLayer, candidate: Candidate) -> onnx.ModelProto:
        """A model of just this layer in this form."""
        return self.every.model(layer, candidate)


@dataclass(frozen=True)
class Bench:
    """A source on the backend that counts: layers and whole networks are measured on it.

    `names` are the source's, by module path.
    """

    evaluator: Evaluator
    store: Store
    choices: Choices
    names: dict[str, str]

    def trial(self, selection: Selected) -> Trial:
        """Time and error of a whole network, its layers named by module path."""
        return self.evaluator.trial({self.names[path]: c for path, c in selection.items()})

    def space(self, budget: float, progress: Progress) -> Space:
        """Measure the layers, and one whole network near the budget.

        Raises:
            TdcError: no layer has a candidate that is faster than dense.
        """
        source = self.evaluator.source
        choices = self.choices
        backend = self.evaluator.backend
        profiler = LayerProfiler(backend, self.store, choices.model, choices.revisions)
        table = build_table(source, profiler, progress, self.choices)
        rows = {path: _fastest_of_ranks(table.rows[name]) for path, name in self.names.items()}
        rows = {path: row for path, row in rows.items() if len(row.candidates) > 1}
        if not rows:
            raise TdcError(
                "no layer has a candidate that is faster than the layer as it is",
                expected="a network with convolutions of 32 channels or more",
                fix="equal_ranks = false offers more, if it was not set",
            )
        # Of the layers that the search changes; the others' times stand on both sides.
        chosen = CostTable(rows)
        dense_ms = self.evaluator.dense_ms
        scale = first_scale(chosen, dense_ms)
        search = Search(chosen, dense_ms, MilpSolver(), self.trial, progress, scale=scale)
        search.try_selection(search.predicted_within(budget))
        return Space(chosen, dense_ms, search.scale, backend.describe(), profiler.measured)


@contextmanager
def bench(
    spec: SearchSpec, model: nn.Module, dense: Path, inputs: Path | None, progress: Progress
) -> Iterator[Bench]:
    """Open the dense network's file for measuring.

    Args:
        model: the network that was exported, for its modules' paths.
        inputs: images to verify on (.npz); random ones if None.

    Raises:
        TdcError: the backend is not there, or the network has no layer to decompose.
    """
    source = read_source(dense, None)
    names = _names(source, model, dense)
    if not names:
        raise TdcError(
            "a rank search of a network without a convolution to decompose",
            expected="at least one ungrouped 2-D convolution",
        )
    graph = source.network.graph
    if inputs is None:
        samples = random_samples(graph, source.inputs)
    else:
        samples = read_samples(inputs, input_types(graph), source.inputs)
    with Store(None if spec.store is None else Path(spec.store)) as store:
        evaluator, choices = _opened(spec, source, samples, store, progress)
        if spec.equal_ranks:
            choices = EqualRanks(choices)
        yield Bench(evaluator, store, choices, names)


def _opened(
    spec: SearchSpec, source: Source, samples: Samples, store: Store, progress: Progress
) -> tuple[Evaluator, Choices]:
    if spec.backend == "onnxruntime":
        backend = OnnxRuntimeBackend(spec.threads)
        return Evaluator(source, samples, backend, store), OnnxRuntimeChoices()
    from tdc_deploy.backends.tensorrt.machine import open_machine
    from tdc_deploy.backends.tensorrt.options import EngineOptions
    from tdc_deploy.backends.tensorrt.requirements import check_engine_plans
    from tdc_deploy.engine_plan import EnginePlanner, planning_cache

    options = EngineOptions(precision=spec.precision)
    check_engine_plans(source.path, options.plugin_mode)
    machine = open_machine(options, progress)
    options = replace(options, timing_cache=planning_cache(options, machine))
    planner = EnginePlanner(source, samples, machine, options, store, spec.threads, progress)
    return planner.evaluator, planner.choices()


def _fastest_of_ranks(row: Row) -> Row:
    """The row with one candidate of each form and ranks: of a fused and a native chain, the faster."""
    by_kernel: dict[str, Candidate] = {}
    for candidate in sorted(row.candidates, key=latency):
        by_kernel.setdefault(str(candidate), candidate)
    kept = tuple(c for c in row.candidates if by_kernel[str(c)] is c)
    return replace(row, candidates=kept)


def _names(source: Source, model: nn.Module, dense: Path) -> dict[str, str]:
    """Module path → name of the layers that both can decompose, each once."""
    known = decomposable(model)
    paths = module_paths(source.plannable, model, dense)
    uses = list(paths.values())
    return {path: name for name, path in paths.items() if path in known and uses.count(path) == 1}
