"""The forms of one model as engines: make, verify and time them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.backends.tensorrt.engine import Engine, build_engine
from tdc_deploy.backends.tensorrt.machine import Machine
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.backends.tensorrt.prepare import Prepared, prepare
from tdc_deploy.backends.tensorrt.profiles import Ranges
from tdc_deploy.backends.tensorrt.runner import FLUSH_BYTES, EngineRunner
from tdc_deploy.errors import TdcError
from tdc_deploy.graph.network import Network
from tdc_deploy.profiling.measure import FINAL, Effort, compare_fresh
from tdc_deploy.progress import Progress
from tdc_deploy.quantising import Quantiser
from tdc_deploy.repair import Repair
from tdc_deploy.revert import PLANNED, Reverted
from tdc_deploy.runtime.cuda import check_context
from tdc_deploy.samples import Samples
from tdc_deploy.source import Source
from tdc_deploy.types import Ratio
from tdc_deploy.verify import Comparison, Outputs, compare_outputs, run_all

SOURCE, NATIVE, FUSED, REVERTED = "source", "native", "fused", "reverted"
INT8, MIXED = "int8", "mixed"


ExactNodes = Callable[[Network], Collection[str]]
"""The nodes of a network without fused chains that fp16 does not hold, by name: they stay float32."""


@dataclass(frozen=True, eq=False)
class Built:
    """One form of the network as an engine, its error, and its time against the first form's.

    `reverted` is what the form REVERTED takes back of the plan, `int8` are the layers in INT8.
    """

    form: str
    prepared: Prepared
    engine: Engine
    comparison: Comparison
    ratio: Ratio
    reverted: Reverted = PLANNED
    int8: tuple[str, ...] = ()


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
        quantise: Quantiser | None = None,
        exact: ExactNodes | None = None,
        threads: int = 0,
    ) -> None:
        self.source = source
        self.ranges = ranges
        self.options = replace(options, int8=False)
        self.quantise = quantise
        self.machine = machine
        self.progress = progress
        self._repaired, self._verified = samples.split()
        self._exact = exact
        self._accuracy = OnnxRuntimeBackend(threads)

    @cached_property
    def repair(self) -> Repair | None:
        """Corrects compressed networks; None without real inputs."""
        if not self._repaired.real or not self.source.plannable:
            return None
        tensors = [self.source.convs[name].node.outputs[0].name for name in self.source.plannable]
        return Repair(self.source.network, tensors, self._repaired, self._accuracy)

    @cached_property
    def source_prepared(self) -> Prepared:
        """The source's own form for the parser."""
        return self.prepare(self.source.network, self.source_exact)

    @cached_property
    def source_exact(self) -> frozenset[str]:
        """The nodes of the source's network that stay float32."""
        return self.exact_in(self.source.network)

    def exact_in(self, network: Network) -> frozenset[str]:
        """The nodes of a network without fused chains that stay float32."""
        return frozenset() if self._exact is None else frozenset(self._exact(network))

    @cached_property
    def source_engine(self) -> Engine:
        """The source's own form, which all others are compared with."""
        return self.build(self.source_prepared)

    def prepare(self, network: Network, exact: Collection[str] = ()) -> Prepared:
        """The network as TensorRT's parser takes it, with the nodes `exact` in float32."""
        shapes = {name: found.opt for name, found in self.ranges.items()}
        machine = self.machine
        return prepare(
            *(network, shapes, machine.device, self.options.precision, machine.tensorrt_major),
            hardware=self.options.hardware_compatibility,
            io_precision=self.options.io_precision,
            embedding=machine.embedding,
            exact=exact,
        )

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
        self,
        form: str,
        prepared: Prepared,
        engine: Engine,
        reverted: Reverted = PLANNED,
        int8: tuple[str, ...] = (),
    ) -> Built:
        """Verify an engine, and time it against the source's own."""
        comparison = self.verify(engine, form)
        ratio = self.ratio(self.source_engine, engine, FINAL)
        return Built(form, prepared, engine, comparison, ratio, reverted, int8)

    @cached_property
    def _reference(self) -> Outputs:
        with self._accuracy.runner(self.source.path) as runner:
            return run_all(runner, self._verified)


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
