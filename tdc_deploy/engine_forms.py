"""The forms of one model as engines: make, verify and time them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.backends.tensorrt.engine import Engine, build_engine
from tdc_deploy.backends.tensorrt.machine import Machine
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.backends.tensorrt.prepare import Prepared, prepare, prepare_quantised
from tdc_deploy.backends.tensorrt.profiles import Ranges
from tdc_deploy.backends.tensorrt.runner import FLUSH_BYTES, EngineRunner
from tdc_deploy.compress import decompose_layers, fuse_chains, last_node
from tdc_deploy.errors import TdcError
from tdc_deploy.graph.network import Network
from tdc_deploy.plan_file import Plan
from tdc_deploy.profiling.measure import FINAL, Effort, compare_fresh
from tdc_deploy.progress import Progress
from tdc_deploy.repair import Repair
from tdc_deploy.revert import PLANNED, Reverted
from tdc_deploy.runtime.cuda import check_context
from tdc_deploy.samples import Samples
from tdc_deploy.source import Source
from tdc_deploy.types import Ratio
from tdc_deploy.verify import Comparison, Outputs, compare_outputs, run_all

SOURCE, NATIVE, FUSED, REVERTED = "source", "native", "fused", "reverted"
INT8 = "int8"

Quantise = Callable[[Network], tuple[Network, list[str]]]
"""A network without fused chains in Q/DQ form, and notes about it."""


@dataclass(frozen=True, eq=False)
class Built:
    """One form of the network as an engine, its error, and its time against the first form's.

    `reverted` is what the form REVERTED takes back of the plan.
    """

    form: str
    prepared: Prepared
    engine: Engine
    comparison: Comparison
    ratio: Ratio
    reverted: Reverted = PLANNED


class Workshop:
    """Makes engines of one source's networks with one set of options, and verifies and times them."""

    def __init__(
        self,
        source: Source,
        samples: Samples,
        ranges: Ranges,
        options: EngineOptions,
        machine: Machine,
        progress: Progress,
        quantise: Quantise | None = None,
    ) -> None:
        self.source = source
        self.ranges = ranges
        self.options = replace(options, int8=False)
        self.quantise = quantise
        self.machine = machine
        self.progress = progress
        self._repaired, self._verified = samples.split()

    @cached_property
    def repair(self) -> Repair | None:
        """Corrects compressed networks; None without real inputs."""
        if not self._repaired.real or not self.source.plannable:
            return None
        tensors = [self.source.convs[name].node.outputs[0].name for name in self.source.plannable]
        return Repair(self.source.network, tensors, self._repaired, OnnxRuntimeBackend())

    @cached_property
    def source_prepared(self) -> Prepared:
        """The source's own form for the parser."""
        return self.prepare(self.source.network)

    @cached_property
    def source_engine(self) -> Engine:
        """The source's own form, which all others are compared with."""
        return self.build(self.source_prepared)

    def prepare(self, network: Network) -> Prepared:
        """The network as TensorRT's parser takes it."""
        shapes = {name: found.opt for name, found in self.ranges.items()}
        machine = self.machine
        return prepare(
            *(network, shapes, machine.device, self.options.precision, machine.tensorrt_major),
            hardware=self.options.hardware_compatibility,
            io_precision=self.options.io_precision,
            embedding=machine.embedding,
        )

    def prepare_int8(self, network: Network) -> Prepared:
        """The network in Q/DQ form, as TensorRT's parser takes it."""
        assert self.quantise is not None
        quantised, notes = self.quantise(network)
        major, io_precision = self.machine.tensorrt_major, self.options.io_precision
        return prepare_quantised(quantised, notes, major, io_precision)

    def build(self, prepared: Prepared) -> Engine:
        """Its engine."""
        options = replace(self.options, int8=prepared.int8)
        return build_engine(prepared, self.ranges, options, self.progress)

    def verify(self, engine: Engine, form: str) -> Comparison:
        """Its outputs against those of the source on ONNX Runtime."""
        with EngineRunner(engine, form) as runner:
            return compare_outputs(self._reference, run_all(runner, self._verified), self._verified)

    def ratio(self, before: Engine, after: Engine, effort: Effort) -> Ratio:
        """The time of one engine against another's."""
        return compare_fresh(
            lambda: EngineRunner(before, "before", FLUSH_BYTES),
            lambda: EngineRunner(after, "after", FLUSH_BYTES),
            self._verified.first_batch(),
            effort,
        )

    def measured(
        self, form: str, prepared: Prepared, engine: Engine, reverted: Reverted = PLANNED
    ) -> Built:
        """Verify an engine, and time it against the source's own."""
        comparison = self.verify(engine, form)
        ratio = self.ratio(self.source_engine, engine, FINAL)
        return Built(form, prepared, engine, comparison, ratio, reverted)

    @cached_property
    def _reference(self) -> Outputs:
        with OnnxRuntimeBackend().runner(self.source.path) as runner:
            return run_all(runner, self._verified)


class PlannedNetworks:
    """The networks that a plan can come to: fused, native, or some of it taken back."""

    def __init__(self, source: Source, plan: Plan | None, repair: Repair | None) -> None:
        self.source = source
        self.selection = {} if plan is None else plan.selection
        self._repair = repair

    def native(self) -> Network:
        """Every chain of the plan as convolutions."""
        native = {name: replace(c, implementation="native") for name, c in self.selection.items()}
        return fuse_chains(self._whole.copy(), self.source, native)

    def planned(self, reverted: Reverted = PLANNED) -> Network:
        """As planned, but for what is taken back."""
        if not reverted.dense:
            whole, selection = self._whole.copy(), self.selection
        else:
            selection = {n: c for n, c in self.selection.items() if n not in reverted.dense}
            whole = decompose_layers(self.source, selection, self._repair, refine=True)
        return fuse_chains(whole, self.source, selection, reverted.native)

    @cached_property
    def _whole(self) -> Network:
        return decompose_layers(self.source, self.selection, self._repair, refine=True)


@contextmanager
def or_left_out(form: str, warnings: list[str]) -> Iterator[None]:
    """A form that cannot be built or run is left out, with a warning.

    Raises:
        ContextLostError: nor can any other, from now on.
    """
    try:
        yield
    except (TdcError, RuntimeError) as error:
        check_context(f"the {form} form", error)
        reason = error.received if isinstance(error, TdcError) else error
        warnings.append(f"{form} form left out: {reason}")


def chain_forms(plan: Plan | None, chosen: Built, built: Mapping[str, Built]) -> dict[str, str]:
    """Layer of the plan, or operator that came of another chain → fused, native or dense, as shipped."""
    selection = {} if plan is None else plan.selection
    fused = set(chosen.prepared.fused)
    forms = {}
    for name in selection:
        left = chosen.form == SOURCE or name in chosen.reverted.dense
        forms[name] = "dense" if left else "fused" if last_node(name) in fused else "native"
    planned = {last_node(name) for name in selection}
    others = built[FUSED].prepared.fused if FUSED in built else ()
    forms |= {
        name: "fused" if name in fused else "native" for name in others if name not in planned
    }
    return forms
