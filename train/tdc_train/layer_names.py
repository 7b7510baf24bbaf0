"""From the names that ONNX models give their nodes to the module paths of the torch model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx_graphsurgeon as gs
from torch import nn

from tdc_deploy.errors import TdcError, did_you_mean
from tdc_deploy.graph.read import read_network

LAYER_OPS = ("Conv", "Gemm", "MatMul")

# These are never called, so the TorchScript exporter does not name them.
_CONTAINERS = (nn.ModuleList, nn.ModuleDict)


def module_paths(
    names: Iterable[str], model: nn.Module, onnx_model: Path | None = None
) -> dict[str, str]:
    """The module path of each name: itself, or of the node of that name in an export of the model.

    `/layer1/layer1.0/conv1/Conv`, which torch's TorchScript exporter writes, can be read as it is. Of
    other node names (`node_conv2d_3` of the dynamo exporter) only `onnx_model`, the exported file as
    `tdc-deploy plan` saw it, tells the module, by its weight's name.

    Raises:
        TdcError: a name that no module has, or that several could have.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    nodes = {} if onnx_model is None else _paths_of_nodes(onnx_model, modules)
    paths: dict[str, str] = {}
    for name in names:
        path = name if name in modules else nodes.get(name) or path_of_scopes(name, modules)
        if path is None:
            raise _unknown(name, modules, onnx_model)
        paths[name] = path
    return paths


def path_of_weight(tensor: str, modules: Mapping[str, nn.Module]) -> str | None:
    """The module whose parameter has this name in an export, if there is one."""
    path = tensor.removesuffix(".weight")
    return path if path != tensor and path in modules else None


def path_of_scopes(node: str, modules: Mapping[str, nn.Module]) -> str | None:
    """The module that a TorchScript export's node `/layer1/layer1.0/conv1/Conv` came from.

    None if there is none or if several could be meant. Each scope is the name of a module in the one
    before, where a number follows the parent's name (`layer1.0`); a second call adds `_1`.
    """
    scopes = node.strip("/").split("/")
    if not node.startswith("/") or not re.fullmatch(rf"({'|'.join(LAYER_OPS)})(_\d+)?", scopes[-1]):
        return None
    found = {("", "")}
    for scope in scopes[:-1]:
        found = {step for path, label in found for step in _steps(path, label, scope, modules)}
    return found.pop()[0] if len(found) == 1 else None


def _steps(
    path: str, label: str, scope: str, modules: Mapping[str, nn.Module]
) -> set[tuple[str, str]]:
    """(path, label) of the modules below `path` that `scope` may mean; `label` is the scope before."""
    for text in (scope, re.sub(r"_\d+$", "", scope)):
        below = text.removeprefix(f"{label}.") if label else text
        tails = {text, below}
        starts = [path, *_containers_below(path, modules)]
        found = {_join(start, tail) for start in starts for tail in tails} & set(modules)
        if found:
            return {(child, text) for child in found}
    return set()


def _containers_below(path: str, modules: Mapping[str, nn.Module]) -> list[str]:
    found = []
    for name, _ in modules[path].named_children():
        child = _join(path, name)
        if isinstance(modules[child], _CONTAINERS):
            found += [child, *_containers_below(child, modules)]
    return found


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _paths_of_nodes(file: Path, modules: Mapping[str, nn.Module]) -> dict[str, str]:
    """Node name → module path, of the layers of a file as planning reads it."""
    found = {}
    for node in read_network(file).graph.nodes:
        if node.op in LAYER_OPS and not node.domain and isinstance(node.inputs[1], gs.Constant):
            by_weight = path_of_weight(node.inputs[1].name, modules)
            path = by_weight or path_of_scopes(node.name, modules)
            if path is not None:
                found[node.name] = path
    return found


def _unknown(name: str, modules: Mapping[str, nn.Module], onnx_model: Path | None) -> TdcError:
    fix = did_you_mean(name, modules)
    if not fix and onnx_model is None:
        fix = "give the ONNX file that the plan was made for, or name the modules"
    where = "" if onnx_model is None else f", nor does {onnx_model} tell which"
    return TdcError(
        f"the plan names layer {name!r}, which is no module of the model{where}",
        expected="a module's path, such as layer1.0.conv1",
        fix=fix,
    )
