"""Write a torch model as ONNX, named and marked so that `tdc-deploy build` fuses its chains."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import onnx
import onnx_graphsurgeon as gs
import torch
from onnx import version_converter
from torch import Tensor, nn

from tdc_deploy import __version__
from tdc_deploy.errors import TdcError
from tdc_deploy.files import check_writable, write_whole
from tdc_deploy.graph.chains import find_chains
from tdc_deploy.graph.fuse import mark_compressed
from tdc_deploy.graph.network import Network, model_of, network_of
from tdc_deploy.graph.read import fold
from tdc_deploy.graph.shapes import infer_shapes, input_shapes
from tdc_deploy.plan_file import plan_to_json
from tdc_deploy.strict_json import dumps
from tdc_train.conversion import factorised, plan_of
from tdc_train.layer_names import LAYER_OPS, path_of_scopes, path_of_weight
from tdc_train.modes import evaluating

Exporter = Literal["torchscript", "dynamo"]

MIN_OPSET = 13
MAX_OPSET = 20

# torch's dynamo exporter knows no older one.
DYNAMO_MIN_OPSET = 18

CONSTRAINTS = "tdc_train.constraints"

# A batch of 1 could be taken for a constant.
OPEN_BATCH_EXAMPLE = 2


def export_onnx(
    model: nn.Module,
    path: Path,
    input_shape: Sequence[int],
    opset: int = 17,
    exporter: Exporter = "torchscript",
    *,
    open_batch: bool = False,
    input_name: str = "image",
    output_name: str = "logits",
    accuracy: float | None = None,
    constraints: Mapping[str, Any] | None = None,
    beside: Mapping[Path, bytes] | None = None,
) -> None:
    """Write `model` in eval mode as one ONNX file, whole or not at all; the model is left as it was.

    BatchNorm is folded into the convolutions. Each convolution is named by its module path, which is
    what a plan for the file names, so that plans fit the file and the model alike; the parts of a chain
    are `<path>.first`, `.core`, `.last`. The metadata mark the chains as decompositions, and hold the
    tool, the plan and the accuracy: keys `tdc_train.version`, `.plan` (JSON), `.accuracy`. What constraint
    sets hold is written as the dense weights that it is, with its compressed size under `.constraints`
    (JSON).

    Args:
        input_shape: [N, C, H, W] of the one input.
        opset: 13 to 20. The dynamo exporter writes 18 and newer; onnx's converter lowers that where it can,
            to 17 for the operators of CNNs.
        open_batch: N may then be any size in the file.
        accuracy: what the model was measured to have, for the record.
        constraints: what `constraints.sizes` gives, for the record.
        beside: other files that are written with it, all or none.

    Raises:
        TdcError: a path cannot be written, or the model or the shape cannot be exported.
    """
    check_writable(path)
    _check(model, opset, exporter)
    example = _example(model, input_shape, open_batch)
    with evaluating(model), _explicit_padding(model), _quiet():
        _try(model, example)
        names = ([input_name], [output_name])
        export = _by_dynamo if exporter == "dynamo" else _by_torchscript
        try:
            proto = export(model, example, opset, names, open_batch)
        except (torch.onnx.OnnxExporterError, RuntimeError) as error:
            raise TdcError(
                f"torch's {exporter} exporter does not take the model: {_first_line(error)}",
                fix="try the other exporter",
            ) from error
    network = fold(network_of(proto))
    _name_layers(network.graph, model)
    _mark_chains(network, model)
    network.metadata |= _metadata(model, accuracy, constraints)
    content = _lowered(model_of(network), opset)
    try:
        onnx.checker.check_model(content, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise TdcError(
            f"what torch's {exporter} exporter wrote is not valid: {_first_line(error)}",
            fix="try the other exporter",
        ) from error
    write_whole({**(beside or {}), path: content.SerializeToString()})


def _check(model: nn.Module, opset: int, exporter: str) -> None:
    if exporter not in get_args(Exporter):
        raise TdcError(f"exporter {exporter!r}", expected="torchscript or dynamo")
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise TdcError(f"opset {opset}", expected=f"{MIN_OPSET} to {MAX_OPSET}")
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            raise TdcError(
                f"parameter {name!r} is {parameter.dtype}",
                expected="float32, which tdc-deploy reads",
                fix="export model.float()",
            )


def _example(model: nn.Module, shape: Sequence[int], open_batch: bool) -> Tensor:
    if not shape or min(shape) < 1:
        raise TdcError(
            f"input shape {tuple(shape)}", expected="positive sizes, such as 1, 3, 32, 32"
        )
    batch = max(shape[0], OPEN_BATCH_EXAMPLE) if open_batch else shape[0]
    device = next((parameter.device for parameter in model.parameters()), None)
    return torch.zeros(batch, *shape[1:], device=device)


@torch.no_grad()
def _try(model: nn.Module, example: Tensor) -> None:
    try:
        output = model(example)
    except (RuntimeError, ValueError) as error:
        raise TdcError(
            f"the model does not take an input of shape {tuple(example.shape)}: {_first_line(error)}",
            expected="the shape that it was trained at",
        ) from error
    if not isinstance(output, Tensor):
        raise TdcError(f"the model puts out {type(output).__name__}", expected="one tensor")


Names = tuple[list[str], list[str]]


def _by_torchscript(
    model: nn.Module, example: Tensor, opset: int, names: Names, open_batch: bool
) -> onnx.ModelProto:
    axes = {name: {0: "batch"} for name in (*names[0], *names[1])} if open_batch else None
    buffer = io.BytesIO()
    torch.onnx.export(
        model,
        (example,),
        buffer,  # type: ignore[arg-type]
        dynamo=False,
        opset_version=opset,
        input_names=names[0],
        output_names=names[1],
        dynamic_axes=axes,
        # Its own folding of BatchNorm renames the weights, which tell the layers most surely.
        training=torch.onnx.TrainingMode.PRESERVE,
    )
    return onnx.load_from_string(buffer.getvalue())


def _by_dynamo(
    model: nn.Module, example: Tensor, opset: int, names: Names, open_batch: bool
) -> onnx.ModelProto:
    shapes = ({0: torch.export.Dim("batch")},) if open_batch else None
    program: Any = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        opset_version=max(opset, DYNAMO_MIN_OPSET),
        input_names=names[0],
        output_names=names[1],
        dynamic_shapes=shapes,
        verbose=False,
    )
    return program.model_proto


def _name_layers(graph: gs.Graph, model: nn.Module) -> None:
    """Name each layer's node by its module; further uses of a module get `_1`, `_2`, …"""
    modules = dict(model.named_modules(remove_duplicate=False))
    taken = {node.name for node in graph.nodes if node.op not in LAYER_OPS}
    for node in graph.nodes:
        if node.op not in LAYER_OPS or node.domain:
            continue
        base = _path_of(node, modules) or node.name
        node.name, serial = base, 1
        # A path with a serial may be another module's.
        while node.name in taken or (serial > 1 and node.name in modules):
            node.name, serial = f"{base}_{serial}", serial + 1
        taken.add(node.name)


def _path_of(node: gs.Node, modules: Mapping[str, nn.Module]) -> str | None:
    """The module that a layer's node came from, by its weight's name and its scopes."""
    by_weight = path_of_weight(node.inputs[1].name, modules)
    by_scopes = path_of_scopes(node.name, modules)
    if by_weight is None or by_scopes is None:
        return by_weight or by_scopes
    # Equal weights are stored once, under one of their names. Otherwise theirs is the sure one: the scope
    # `conv_1` is the second use of `conv`, or the module `conv_1`.
    one, other = (modules[path].state_dict().get("weight") for path in (by_weight, by_scopes))
    stored_once = one is not None and other is not None and torch.equal(one, other)
    return by_scopes if stored_once else by_weight


def _mark_chains(network: Network, model: nn.Module) -> None:
    """Record the model's Tucker-2 layers as decompositions, also those of ranks as large as the layer."""
    shapes = infer_shapes(network, input_shapes(network.graph))
    cores = {f"{path}.core" for path in factorised(model, every_path=True)}
    chains = [chain for chain in find_chains(network, shapes) if chain.core.name in cores]
    mark_compressed(network, chains)


def _metadata(
    model: nn.Module, accuracy: float | None, constraints: Mapping[str, Any] | None
) -> dict[str, str]:
    data = {"tdc_train.version": __version__, "tdc_train.plan": dumps(plan_to_json(plan_of(model)))}
    if accuracy is not None:
        data["tdc_train.accuracy"] = json.dumps(accuracy)
    if constraints is not None:
        data[CONSTRAINTS] = dumps(dict(constraints))
    return data


def constraints_in(path: Path) -> dict[str, Any] | None:
    """What an exported file says of constraint sets; None if nothing."""
    found = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    return json.loads(found[CONSTRAINTS]) if CONSTRAINTS in found else None


def _lowered(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model at an opset that it may be newer than, and at the IR version that came with it."""
    if _opset_of(model) > opset:
        for node in model.graph.node:
            # It has its default here, and onnx's converter leaves it behind where it is unknown.
            _drop_attribute(node, "noop_with_empty_axes")
        try:
            model = version_converter.convert_version(model, opset)
        except RuntimeError as error:
            raise TdcError(
                f"the model cannot be brought to opset {opset}: {_first_line(error)}",
                fix="use the torchscript exporter, or a newer opset",
            ) from error
    model.ir_version = onnx.helper.find_min_ir_version_for(list(model.opset_import))
    return model


def _drop_attribute(node: onnx.NodeProto, name: str) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name or attribute.i]
    del node.attribute[:]
    node.attribute.extend(kept)


def _opset_of(model: onnx.ModelProto) -> int:
    return {entry.domain: entry.version for entry in model.opset_import}[""]


@contextmanager
def _explicit_padding(model: nn.Module) -> Iterator[None]:
    """Convolutions of padding `same` with its number, where it is one for both sides.

    The TorchScript exporter leaves dilation out when it works it out.
    """
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.padding == "same"]
    try:
        for conv in convs:
            left, right, top, bottom = conv._reversed_padding_repeated_twice
            if left == right and top == bottom:
                conv.padding = (top, left)
        yield
    finally:
        for conv in convs:
            conv.padding = "same"


@contextmanager
def _quiet() -> Iterator[None]:
    """Torch says that the one exporter is old, and which packages the other could use."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
