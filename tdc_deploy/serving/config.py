"""config.pbtxt, made and read as tritonclient's protobuf message."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from tdc_deploy.errors import TdcError
from tdc_deploy.serving.batching import max_batch_size, served_dims
from tdc_deploy.serving.model import ServedModel, ServedTensor
from tdc_deploy.serving.options import ServingOptions
from tdc_deploy.serving.warmup import add_graph_specs, add_warmup, check_names

CONFIG_NAME = "config.pbtxt"

DATA_TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
}

# What a client or an older version would notice.
IDENTITY = (
    *("name", "platform", "backend", "input", "output"),
    *("default_model_filename", "cc_model_filenames"),
)


def model_config(
    name: str,
    models: Sequence[ServedModel],
    options: ServingOptions,
    files: dict[str, str],
    library: str | None,
) -> Any:
    """A ModelConfig for artifacts of one model.

    Args:
        name: the model's.
        models: one artifact, or engines that differ only in the GPU they are for.
        options: how to serve it.
        files: the file in a version folder for each compute capability, "" for all others.
        library: the plugin library's file name, None if none is needed.

    Raises:
        TdcError: the artifacts cannot be served so, or tritonclient is not installed.
    """
    model = models[0]
    config = messages().ModelConfig(
        name=name, max_batch_size=max_batch_size(models, options.max_batch)
    )
    _add_backend(config, model, options, files, library)
    for tensor in model.inputs:
        _add_tensor(config.input.add(), tensor, config.max_batch_size > 0)
    for tensor in model.outputs:
        _add_tensor(config.output.add(), tensor, config.max_batch_size > 0)
    _add_batching(config, options)
    _add_instances(config, options)
    check_names(model, options)
    if options.warmup:
        add_warmup(config, model, options)
    if options.cuda_graphs:
        if not model.is_engine:
            raise TdcError(f"CUDA graphs for {model.path}", expected="a TensorRT engine")
        config.optimization.cuda.graphs = True
        add_graph_specs(config, model, options)
    return config


def config_text(config: Any) -> str:
    """The message as config.pbtxt holds it."""
    return str(text_format.MessageToString(config))


def read_config(path: Path) -> Any:
    """The message in a config.pbtxt.

    Raises:
        TdcError: Triton would not take it either.
    """
    config = messages().ModelConfig()
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), config)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise TdcError(
            f"{path} is no Triton configuration: {error}", fix="mend it, or remove it"
        ) from None
    return config


def differing(left: Any, right: Any, fields: Sequence[str] | None = None) -> list[str]:
    """The names of the fields in which two configurations differ, of all fields or of some."""
    names = [field.name for field in left.DESCRIPTOR.fields] if fields is None else fields
    return [name for name in names if getattr(left, name) != getattr(right, name)]


def messages() -> Any:
    """The module of Triton's protobuf messages.

    Raises:
        TdcError: it is not installed.
    """
    try:
        return import_module("tritonclient.grpc.model_config_pb2")
    except ImportError as error:
        raise TdcError(
            f"tritonclient cannot be imported: {error}",
            expected="tritonclient with gRPC, which config.pbtxt is written with",
            fix='install it: pip install "tdc-deploy[serve]"',
        ) from None


def _add_backend(
    config: Any,
    model: ServedModel,
    options: ServingOptions,
    files: dict[str, str],
    library: str | None,
) -> None:
    if options.variant == "python":
        config.backend = "python"
        _add_parameter(config, "artifact", files[""])
        if options.threads:
            _add_parameter(config, "threads", options.threads)
        if library is not None:
            _add_parameter(config, "plugin", library)
        return
    config.platform = "tensorrt_plan" if model.is_engine else "onnxruntime_onnx"
    if options.threads:
        if model.is_engine:
            raise TdcError(f"threads is {options.threads}", expected="0 for a TensorRT engine")
        _add_parameter(config, "intra_op_thread_count", options.threads)
    for capability, file in files.items():
        if capability:
            config.cc_model_filenames[capability] = file


def _add_parameter(config: Any, name: str, value: object) -> None:
    config.parameters[name].string_value = str(value)


def _add_tensor(entry: Any, tensor: ServedTensor, batched: bool) -> None:
    if tensor.dtype not in DATA_TYPES:
        raise TdcError(
            f"{tensor.name!r} is {tensor.dtype}", expected=f"one of {', '.join(DATA_TYPES)}"
        )
    entry.name = tensor.name
    entry.data_type = messages().DataType.Value(DATA_TYPES[tensor.dtype])
    dims = served_dims(tensor, batched)
    if dims:
        entry.dims.extend(dims)
    elif batched:
        # Triton wants a dimension beside the batch: the client's [N, 1] is the model's [N].
        entry.dims.append(1)
        entry.reshape.SetInParent()
    else:
        raise TdcError(
            f"{tensor.name!r} is a single number without dimensions",
            expected="at least one dimension, as Triton does",
            fix="export the model with a tensor of shape [1] there",
        )


def _add_batching(config: Any, options: ServingOptions) -> None:
    if options.preferred and max(options.preferred) > config.max_batch_size:
        raise TdcError(
            f"preferred batch sizes {options.preferred}",
            expected=f"at most {config.max_batch_size}, the largest batch",
        )
    if options.queue_delay_us and not config.max_batch_size:
        raise TdcError("a queue delay for a model of one fixed batch", expected="no --queue-delay")
    if config.max_batch_size > 1 and options.dynamic_batching:
        config.dynamic_batching.SetInParent()
        config.dynamic_batching.preferred_batch_size.extend(options.preferred)
        config.dynamic_batching.max_queue_delay_microseconds = options.queue_delay_us


def _add_instances(config: Any, options: ServingOptions) -> None:
    group = config.instance_group.add(count=options.instances)
    # A Python model chooses its device itself: with "auto", Triton would make one for every GPU.
    python_auto = options.variant == "python" and options.device == "auto"
    if python_auto or options.device == "cpu":
        group.kind = group.KIND_CPU
    elif options.device == "gpu":
        group.kind = group.KIND_GPU
        group.gpus.extend(options.gpus)
