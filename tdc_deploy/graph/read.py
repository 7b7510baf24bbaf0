"""Read a model file: check it, un-fuse what is fused, fold what can be folded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir
import onnxscript.optimizer
from google.protobuf.message import DecodeError

from tdc_deploy.errors import TdcError
from tdc_deploy.graph.convs import canonicalise, drop_absent_biases
from tdc_deploy.graph.fuse import unfuse
from tdc_deploy.graph.large import MAX_INLINE_BYTES
from tdc_deploy.graph.network import Network, model_of, network_of
from tdc_deploy.graph.understand import understanding

MIN_OPSET = 11

# Quantised weights are small on purpose, and subgraphs are left alone.
_NEVER_FOLDED = {"DequantizeLinear", "If", "Loop", "Scan"}


def read_network(path: Path) -> Network:
    """Read and check a model file, and fold what can be folded (BatchNorm into convolutions).

    Fused chains come back as plain ones, still known as chains by the network's records.

    Raises:
        TdcError: the file is not a complete, valid ONNX model.
    """
    model = load_checked(path)
    with understanding(path):
        network = network_of(model)
        del model  # the graph has its weights
        unfuse(network)
        return fold(network)


def load_checked(path: Path) -> onnx.ModelProto:
    """The model in `path` with its external data, once onnx's checker accepts it."""
    if not path.is_file():
        raise TdcError(f"no model file at {path}", fix="check the path")
    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
        _check_external(path, model)
        onnx.load_external_data_for_model(model, str(path.parent))
    except DecodeError as error:
        raise TdcError(
            f"{path} is not an ONNX file, or is cut short ({error})", fix="export the model again"
        ) from None
    except (onnx.checker.ValidationError, OSError, ValueError) as error:
        raise TdcError(
            f"the weights of {path} are missing or cut short: {_first_line(error)}",
            expected="the external data files that were exported, in the same folder",
            fix="copy them beside the model",
        ) from None
    if not model.graph.node:
        raise TdcError(f"{path} holds no graph", expected="an ONNX model", fix="export it again")
    try:
        # By path: the checker would copy a model in memory twice.
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:
        raise TdcError(
            f"{path} is not a valid ONNX model: {_first_line(error)}", fix="export it again"
        ) from None
    _check_ends(path, model)
    _short_domains(model)
    _check_opset(path, model)
    return model


def _check_external(path: Path, model: onnx.ModelProto) -> None:
    """Raise ValueError if a tensor's external data is said to be of another length than it needs.

    Raises:
        TdcError: one tensor is larger than a protobuf message, of which many may be.
    """
    for tensor in _tensors(model.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        itemsize = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        needed = math.prod(tensor.dims) * itemsize
        if needed > MAX_INLINE_BYTES:
            raise TdcError(
                f"the weight {tensor.name!r} of {path} is {list(tensor.dims)}",
                expected="less than 2 GiB in one weight; all together may be more",
                fix="split the layer in two",
            )
        lengths = [entry.value for entry in tensor.external_data if entry.key == "length"]
        # Types of less than a byte are packed.
        if lengths and int(lengths[0]) != needed and itemsize > 1:
            raise ValueError(
                f"{tensor.name!r} has {lengths[0]} bytes of external data and needs {needed}"
            )


def _check_ends(path: Path, model: onnx.ModelProto) -> None:
    if not model.graph.output:
        raise TdcError(f"{path} has no outputs", expected="an ONNX model", fix="export it again")
    for value in [*model.graph.input, *model.graph.output]:
        if not value.type.HasField("tensor_type"):
            raise TdcError(
                f"{value.name!r} of {path} is no tensor but a {value.type.WhichOneof('value')}",
                expected="tensors in and out",
                fix="export the network without what takes or makes it",
            )


def _check_opset(path: Path, model: onnx.ModelProto) -> None:
    opset = {entry.domain: entry.version for entry in model.opset_import}.get("", 0)
    if opset < MIN_OPSET:
        raise TdcError(
            f"{path} uses opset {opset}",
            expected=f"opset {MIN_OPSET} or newer",
            fix="export it again with a newer opset, or run onnx.version_converter",
        )
    if opset > (newest := onnx.defs.onnx_opset_version()):
        raise TdcError(
            f"{path} uses opset {opset}",
            expected=f"at most {newest}, the newest that onnx {onnx.__version__} knows",
            fix="export it again with an older opset, or pip install --upgrade onnx onnxruntime",
        )


def _short_domains(model: onnx.ModelProto) -> None:
    """Spell the default domain as the empty string: "ai.onnx" is another name of it."""
    for entry in [*model.opset_import, *model.graph.node]:
        if entry.domain == "ai.onnx":
            entry.domain = ""


def fold(network: Network) -> Network:
    """Fold constants, and BatchNorm into the convolution before it; inline other local functions.

    onnxscript's optimiser is the one that finds the BatchNorm of both of torch's exporters.
    """
    drop_absent_biases(network.graph)
    folded = _optimised(network) or network
    folded.graph.cleanup().toposort()
    canonicalise(folded.graph)
    return folded


def _optimised(network: Network) -> Network | None:
    """The network after onnxscript's optimiser; None where that breaks: no reason to refuse a model."""
    try:
        model = onnx_ir.from_proto(model_of(network))
        onnxscript.optimizer.optimize(model)
        if pending := _weight_arithmetic(model):
            # Behind them may be a BatchNorm again.
            onnxscript.optimizer.fold_constants(
                model, should_fold=lambda node: True if id(node) in pending else None
            )
            onnxscript.optimizer.optimize(model)
        made = onnx_ir.to_proto(model)
        # onnxscript's rules remember the last model that they matched, and would keep its weights alive,
        # which `made` has copies of.
        for value in model.graph.initializers.values():
            value.const_value = None
        return network_of(made)
    except Exception:
        return None


def _weight_arithmetic(model: onnx_ir.Model) -> set[int]:
    """Ids of the nodes that compute a convolution's weight or bias from stored tensors alone.

    The optimiser leaves those that are large. A quantised weight stays quantised.
    """
    found: set[int] = set()
    for conv in model.graph:
        if conv.op_type == "Conv" and not conv.domain:
            for value in conv.inputs[1:]:
                found |= _stored_origin(value) or set()
    return found


def _stored_origin(value: onnx_ir.Value | None) -> set[int] | None:
    """The nodes that `value` is computed by, if all that they read is stored; else None."""
    nodes: set[int] = set()
    waiting = [value]
    while waiting:
        value = waiting.pop()
        producer = None if value is None else value.producer()
        if value is None or (producer is None and value.is_initializer()):
            continue
        if producer is None or producer.op_type in _NEVER_FOLDED:
            return None
        nodes.add(id(producer))
        waiting += producer.inputs
    return nodes


def model_files(path: Path) -> list[Path]:
    """The ONNX file itself, and the files beside it that hold its weights, if any do.

    Of a file that cannot be read as ONNX, only itself: `load_checked` says what is wrong with it.
    """
    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
    except (OSError, DecodeError):
        return [path]
    locations = {
        entry.value
        for tensor in _tensors(model.graph)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [path, *(path.parent / location for location in sorted(locations))]


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every stored tensor: initializers, and what Constant nodes hold, in subgraphs too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from [attribute.t, *attribute.tensors]
            for inner in [attribute.g, *attribute.graphs]:
                yield from _tensors(inner)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
