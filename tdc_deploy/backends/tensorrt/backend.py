"""TensorRT as a backend to plan on: what is timed is engines, by replays of their CUDA graphs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
from polygraphy.backend.base import BaseRunner

from tdc_deploy.backends.tensorrt.engine import Engine, build_engine
from tdc_deploy.backends.tensorrt.layer_engine import LAYOUTS, build_layer
from tdc_deploy.backends.tensorrt.machine import Machine
from tdc_deploy.backends.tensorrt.options import EngineOptions, IoPrecision
from tdc_deploy.backends.tensorrt.prepare import Prepared, prepare
from tdc_deploy.backends.tensorrt.profiles import Ranges, ShapeRange
from tdc_deploy.backends.tensorrt.runner import FLUSH_BYTES, EngineRunner, Runnable
from tdc_deploy.errors import TdcError
from tdc_deploy.graph.network import Network, network_of
from tdc_deploy.graph.read import read_network
from tdc_deploy.graph.shapes import Shape, Shapes
from tdc_deploy.profiling.layers import BATCH
from tdc_deploy.profiling.measure import Effort, Feeds, measure
from tdc_deploy.progress import Progress, silent
from tdc_deploy.runtime.cuda import check_context
from tdc_deploy.types import Timing
from tdc_deploy.versions import installed_version

# Raised whenever the same layer or network comes out as another engine, or is timed in another way.
REVISION = "2"


@dataclass(frozen=True)
class TensorRtBackend:
    """TensorRT with the given options; whole networks run at the shapes `inputs`, and no others.

    An engine that was built of a file is kept: it is what all others are compared with. `exact` are the
    nodes of whole networks that stay float32 in fp16; single layers are timed in fp16 all the same.
    """

    machine: Machine
    options: EngineOptions
    inputs: Shapes
    progress: Progress = field(default=silent, compare=False)
    exact: frozenset[str] = frozenset()
    _of_files: dict[Path, Engine] = field(default_factory=dict, compare=False, repr=False)

    def describe(self) -> dict[str, str]:
        """GPU, versions, the plugin's hash, and every option that changes what TensorRT chooses."""
        options = self.options
        # Named only where there are any: what was measured before layers stayed float32 is still true.
        exact = {"float32_nodes": " ".join(sorted(self.exact))} if self.exact else {}
        return {
            **exact,
            "backend": "tensorrt",
            "revision": REVISION,
            "version": self.machine.tensorrt,
            "cuda-python": str(installed_version("cuda-python")),
            "device": self.machine.device.name,
            "compute_capability": self.machine.capability,
            "multiprocessors": str(self.machine.device.multiprocessors),
            "driver": self.machine.driver,
            "plugin": self.machine.plugin_sha256,
            "precision": options.precision,
            "io_precision": options.io_precision,
            "layout": LAYOUTS[options.precision],
            "builder_optimization_level": str(options.optimization_level),
            "workspace_mib": str(options.workspace_mib),
            "library_tactics": str(options.library_tactics),
            "version_compatible": str(options.version_compatible),
            "hardware_compatibility_level": options.hardware_compatibility,
            "refit": str(options.refit),
            "sparsity": options.sparsity,
        }

    def runner(self, model: onnx.ModelProto | Path) -> BaseRunner:
        """Build the engine of a network, and return its runner, which times it with a cold L2 cache."""
        return EngineRunner(self._engine(model), flush_bytes=FLUSH_BYTES)

    def measure(self, model: onnx.ModelProto | Path, feeds: Feeds, effort: Effort) -> Timing:
        """The latency of a network."""
        with self.runner(model) as runner:
            return measure(runner, feeds, effort)

    def measure_layers(
        self, models: Iterable[tuple[onnx.ModelProto, Feeds]], effort: Effort
    ) -> Iterator[Timing | TdcError]:
        """The latencies of single layers; every engine is built before the first is run."""
        built: list[tuple[Runnable | TdcError, Feeds]] = []
        for model, feeds in models:
            self.progress("building engines of layers", len(built), max(BATCH, len(built)))
            built.append((self._layer(model, feeds), feeds))
        for engine, feeds in built:
            yield engine if isinstance(engine, TdcError) else _measured(engine, feeds, effort)

    def _engine(self, model: onnx.ModelProto | Path) -> Engine:
        if not isinstance(model, Path):
            return self._build(network_of(model))
        if model not in self._of_files:
            self._of_files[model] = self._build(read_network(model))
        return self._of_files[model]

    def _build(self, network: Network) -> Engine:
        ready = self._prepared(network, self.inputs, self.options.io_precision, self.exact)
        options = replace(self.options, int8=ready.int8)
        return build_engine(ready, _fixed(self.inputs), options, self.progress)

    def _layer(self, model: onnx.ModelProto, feeds: Feeds) -> Runnable | TdcError:
        shapes = {name: value.shape for name, value in feeds.items()}
        try:
            # Inside a network a layer's neighbours compute as it does.
            ends: IoPrecision = "fp16" if self.options.precision == "fp16" else "fp32"
            ready = self._prepared(network_of(model), shapes, ends)
            return build_layer(ready, _fixed(shapes), replace(self.options, int8=ready.int8))
        except TdcError as error:
            check_context("building its engine", error)
            return error

    def _prepared(
        self,
        network: Network,
        shapes: Mapping[str, Shape],
        io_precision: IoPrecision,
        exact: Collection[str] = (),
    ) -> Prepared:
        machine, options = self.machine, self.options
        return prepare(
            *(network, shapes, machine.device, options.precision, machine.tensorrt_major),
            hardware=options.hardware_compatibility,
            io_precision=io_precision,
            embedding=machine.embedding,
            exact=exact,
        )


def _measured(engine: Runnable, feeds: Feeds, effort: Effort) -> Timing | TdcError:
    try:
        with EngineRunner(engine, flush_bytes=FLUSH_BYTES) as runner:
            return measure(runner, feeds, effort)
    except RuntimeError as error:  # one kernel that cannot run here need not end the plan
        check_context("running its engine", error)
        return TdcError(f"an engine of one layer does not run: {error}")


def _fixed(shapes: Mapping[str, Shape]) -> Ranges:
    return {name: ShapeRange(shape, shape, shape) for name, shape in shapes.items()}
