"""Build engines through Polygraphy, and read back what was built."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from tempfile import TemporaryFile
from typing import IO, Any

import onnx
from polygraphy.exception import PolygraphyException
from polygraphy.logger import G_LOGGER

from tdc_deploy.backends.tensorrt.api import PROGRESS_MONITOR, STRONGLY_TYPED, tensorrt, version_of
from tdc_deploy.backends.tensorrt.inspector import EngineLayer, read_layers
from tdc_deploy.backends.tensorrt.monitor import Cancellation, make_monitor
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.backends.tensorrt.precision import (
    BuiltPrecision,
    check_precision,
    check_weight_reformats,
)
from tdc_deploy.backends.tensorrt.prepare import Prepared
from tdc_deploy.backends.tensorrt.profiles import Ranges
from tdc_deploy.errors import TdcError
from tdc_deploy.files import write_whole
from tdc_deploy.graph.large import serialised
from tdc_deploy.graph.shapes import Shape
from tdc_deploy.progress import Progress

Tensors = dict[str, tuple[str, tuple[int, ...]]]

MIB = 1 << 20
# TensorRT keeps these; of integers it may make others.
FLOATS = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.FLOAT16: "float16"}


@dataclass(frozen=True, eq=False)
class Engine:
    """A built engine, its plan's bytes and what was read back from it.

    `tensorrt` is the version that built it. `inputs` and `outputs` are name → (NumPy type name, shape with
    -1 for open dimensions).
    """

    plan: bytes
    tensorrt: str
    precision: BuiltPrecision
    layers: tuple[EngineLayer, ...]
    inputs: Tensors
    outputs: Tensors


def build_engine(
    prepared: Prepared, ranges: Ranges, options: EngineOptions, progress: Progress
) -> Engine:
    """Build an engine and check that it is what was asked for.

    The plugin library has been loaded, if the model needs it.

    Raises:
        TdcError: TensorRT refuses the model, or its precision, or that of its inputs and outputs, is
            another.
        KeyboardInterrupt: Ctrl-C; from TensorRT 10 on the build ends at its next step.
    """
    trt = tensorrt()
    plan = build_plan(trt, prepared, ranges, options, progress)
    if prepared.exact and prepared.precision == "fp32":
        options = _as_float32(options)
    engine = read_engine(trt, plan, ranges, options)
    _check_io(prepared.model, engine)
    return engine


def build_plan(
    trt: Any,
    prepared: Prepared,
    ranges: Ranges,
    options: EngineOptions,
    progress: Progress,
    edit: Callable[[Any], None] | None = None,
) -> bytes:
    """Build an engine's plan; `edit` may change TensorRT's network once it is parsed."""
    cancellation = Cancellation()
    with cancellation.on_ctrl_c(), _polygraphy_errors():
        return _plan(trt, prepared, ranges, options, progress, cancellation, edit)


def read_engine(trt: Any, plan: bytes, ranges: Ranges, options: EngineOptions) -> Engine:
    """Deserialise a plan and hold it against the options."""
    engine = load_engine(plan)
    shapes = {name: found.opt for name, found in ranges.items()}
    layers = read_layers(read_text(trt, engine, shapes))
    precision = check_precision(layers, "int8" if options.int8 else options.precision)
    check_weight_reformats(layers)
    return Engine(plan, str(trt.__version__), precision, layers, *tensors_of(trt, engine))


def load_engine(plan: bytes) -> Any:
    """TensorRT's engine of a plan; its plugins have been loaded.

    Raises:
        TdcError: TensorRT refuses it.
    """
    from polygraphy.backend.trt import EngineFromBytes

    with _polygraphy_errors():
        return EngineFromBytes(plan)()


def read_text(trt: Any, engine: Any, shapes: Mapping[str, Shape] | None = None) -> str:
    """What the engine's inspector says, as JSON; of an engine of open shapes, at these ones.

    Without them it may have nothing to say of a format but "N/A due to dynamic shapes".
    """
    inspector = engine.create_engine_inspector()
    if shapes is not None:
        context = engine.create_execution_context()
        for name, shape in shapes.items():
            context.set_input_shape(name, shape)
        inspector.execution_context = context
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def create_config(
    trt: Any,
    ranges: Ranges,
    options: EngineOptions,
    cache: IO[bytes] | None,
    monitor: Any,
    obeyed: bool = False,
) -> Any:
    """Polygraphy's CreateConfig for these options; `cache` is a file of known timings, and `obeyed` says
    that layers are held to a precision.
    """
    from polygraphy.backend.trt import CreateConfig, Profile

    profile = Profile()
    for name, found in ranges.items():
        profile.add(name, found.min, found.opt, found.max)
    settings: dict[str, Any] = {
        "profiles": [profile],
        "tf32": options.precision == "tf32",
        # Later versions take the types from the file, and 11 no longer has the flag.
        "fp16": options.precision == "fp16" and version_of(trt) < STRONGLY_TYPED,
        "profiling_verbosity": trt.ProfilingVerbosity.DETAILED,
        "refittable": options.refit,
        "sparse_weights": options.sparsity == "enable",
        "version_compatible": options.version_compatible,
        "load_timing_cache": cache,
        "progress_monitor": monitor,
        "builder_optimization_level": options.optimization_level,
    }
    if obeyed and version_of(trt) < STRONGLY_TYPED:
        settings["precision_constraints"] = "obey"
    if options.int8 and version_of(trt) < STRONGLY_TYPED:
        settings["int8"] = True  # a permission to use what the Q/DQ nodes say
    if options.workspace_mib is not None:
        size = int(options.workspace_mib * MIB)
        settings["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: size}
    if options.hardware_compatibility != "none":
        level = options.hardware_compatibility.upper()
        settings["hardware_compatibility_level"] = _compatibility(trt, level)
    if not options.library_tactics:
        settings["tactic_sources"] = _own_sources(trt)
    return CreateConfig(**settings)


def _plan(
    trt: Any,
    prepared: Prepared,
    ranges: Ranges,
    options: EngineOptions,
    progress: Progress,
    cancellation: Cancellation,
    edit: Callable[[Any], None] | None,
) -> bytes:
    from polygraphy.backend.trt import EngineBytesFromNetwork, NetworkFromOnnxBytes

    version = version_of(trt)
    options.check_version(version)
    monitor = None
    if version >= PROGRESS_MONITOR:
        monitor = make_monitor(trt, progress, cancellation)
    else:
        progress("building an engine", 0, 1)
    network = NetworkFromOnnxBytes(
        serialised(prepared.model), strongly_typed=version >= STRONGLY_TYPED
    )
    edits = [] if edit is None else [edit]
    if prepared.exact and version < STRONGLY_TYPED:
        edits.append(lambda made: hold_to_float32(trt, made, prepared.exact))
    if edits:
        network = _edited(network, edits)
    wanted, known = options.timing_cache, _read_cache(options)
    # Open files and not the cache itself: Polygraphy would leave a .lock beside it, and write it in
    # place. It asks for a mode and a file descriptor, which files in memory have not.
    with TemporaryFile() as old, TemporaryFile() as new:
        old.write(known)
        old.flush()
        obeyed = bool(prepared.exact)
        config = create_config(trt, ranges, options, old if known else None, monitor, obeyed)
        if known:
            config = _with_cache(config)
        save = None if wanted is None else new
        plan = bytes(EngineBytesFromNetwork(network, config, save_timing_cache=save)())
        new.seek(0)
        timings = new.read()
    if wanted is not None and timings:
        write_whole({wanted: timings})
    return plan


def hold_to_float32(trt: Any, network: Any, names: Collection[str]) -> None:
    """Make the layers of that name compute in float32, in a TensorRT network whose types are not the
    file's: there fp16 is a permission for every layer.
    """
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if layer.name in names:
            layer.precision = trt.float32
            for j in range(layer.num_outputs):
                if str(layer.get_output_type(j)) in (str(trt.float32), str(trt.float16)):
                    layer.set_output_type(j, trt.float32)


def _as_float32(options: EngineOptions) -> EngineOptions:
    """The options for a network of which fp16 holds nothing: read back, it is fp32."""
    return replace(options, precision="fp32", io_precision="fp32")


def _edited(
    parse: Callable[[], tuple[Any, ...]], edits: Sequence[Callable[[Any], None]]
) -> tuple[Any, ...]:
    """The builder, the network and the parser, which must live as long."""
    parsed = parse()
    for edit in edits:
        edit(parsed[1])
    return parsed


def _with_cache(create: Callable[..., Any]) -> Callable[..., Any]:
    """The configuration with an empty cache in place of one that TensorRT refuses, such as another
    GPU's: with none it would keep no timings, and the file would be refused at every build.
    """

    def configure(builder: Any, network: Any) -> Any:
        config = create(builder, network)
        if config.get_timing_cache() is None:
            warnings.warn("TensorRT refuses the timing cache: it is made anew", stacklevel=2)
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
        return config

    return configure


def _own_sources(trt: Any) -> list[Any]:
    """TensorRT's own tactic sources, which need neither cuBLAS nor cuDNN."""
    names = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
    return [getattr(trt.TacticSource, name) for name in names if hasattr(trt.TacticSource, name)]


def _read_cache(options: EngineOptions) -> bytes:
    path = options.timing_cache
    return path.read_bytes() if path is not None and path.is_file() else b""


def _compatibility(trt: Any, level: str) -> Any:
    found = getattr(trt.HardwareCompatibilityLevel, level, None)
    if found is None:
        raise TdcError(
            f"--hardware-compatibility-level {level.lower()} with TensorRT {trt.__version__}",
            expected="a level that this version has",
        )
    return found


def tensors_of(trt: Any, engine: Any) -> tuple[Tensors, Tensors]:
    """The engine's inputs and its outputs."""
    inputs: Tensors = {}
    outputs: Tensors = {}
    for i in range(engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        described = (
            dtype_name(engine.get_tensor_dtype(name)),
            tuple(engine.get_tensor_shape(name)),
        )
        (inputs if is_input else outputs)[name] = described
    return inputs, outputs


def _check_io(model: onnx.ModelProto, engine: Engine) -> None:
    """Raise TdcError if a float input or output has another type than in the file that was parsed."""
    built = {**engine.inputs, **engine.outputs}
    for value in (*model.graph.input, *model.graph.output):
        asked = FLOATS.get(value.type.tensor_type.elem_type)
        if asked is not None and value.name in built and built[value.name][0] != asked:
            raise TdcError(
                f"{value.name!r} of the engine is {built[value.name][0]}", expected=f"{asked}"
            )


def dtype_name(dtype: Any) -> str:
    """NumPy's name of a TensorRT type, such as DataType.HALF."""
    name = str(dtype).rsplit(".", 1)[-1].lower()
    return {"float": "float32", "half": "float16", "bf16": "bfloat16"}.get(name, name)


@contextmanager
def _polygraphy_errors() -> Iterator[None]:
    """Polygraphy's and TensorRT's errors: their text to standard error, and a TdcError."""
    try:
        # Polygraphy prints errors to standard output, which belongs to the command's own.
        with redirect_stdout(sys.stderr), G_LOGGER.verbosity(G_LOGGER.ERROR):
            yield
    except PolygraphyException as error:
        raise TdcError(
            f"TensorRT could not build or read the engine: {error}",
            expected="a model that TensorRT's parser and the plugin take",
            fix="TensorRT's own messages are above; or build for ONNX Runtime: -o model.onnx",
        ) from None
