"""Apply a plan to a torch model, and read it back off."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from tdc_deploy.errors import TdcError
from tdc_deploy.plan_file import LayerChoice, Plan, check_layers
from tdc_deploy.tucker import Factors
from tdc_deploy.types import Candidate, ConvLayer
from tdc_train.layer_names import module_paths
from tdc_train.layers import FactorisedLayer, Init, SvdConv2d, SvdLinear, TuckerConv2d
from tdc_train.layers.factorised import why_dense


def decomposable(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Module path → layer that may be decomposed: ungrouped, zero-padded Conv2d, and Linear.

    Subclasses are left alone: what they compute is theirs to know. A module that has two paths has
    the first.
    """
    return {
        path: module
        for path, module in _outside_chains(model).items()
        if path and isinstance(module, (nn.Conv2d, nn.Linear)) and not _why_not(module)
    }


def factorised(model: nn.Module, every_path: bool = False) -> dict[str, FactorisedLayer]:
    """Module path → layer that is a chain already; one that has two paths by its first, or by both."""
    modules = model.named_modules(remove_duplicate=not every_path)
    return {path: module for path, module in modules if isinstance(module, FactorisedLayer)}


def selection_of(
    model: nn.Module, plan: Plan, onnx_model: Path | None = None
) -> dict[str, Candidate]:
    """Module path → candidate of the plan's layers that are not dense, checked against the model.

    The plan may name modules, or nodes of an ONNX export (see `module_paths`).

    Raises:
        TdcError: a layer that the model does not have or that must stay dense, or that does not have
            the ranks or the kernel.
    """
    selection = _by_first_path(model, plan, onnx_model)
    modules = dict(model.named_modules())
    known = {path: _describe(path, layer) for path, layer in decomposable(model).items()}
    for path in selection:
        if path not in known:
            reason = _why_not(modules[path]) or "it is a part of a chain"
            raise TdcError(f"layer {path!r} of the plan must stay as it is: {reason}")
    check_layers(Plan({path: LayerChoice(c) for path, c in selection.items()}), known)
    return selection


def apply_plan(
    model: nn.Module,
    plan: Plan,
    factors: Mapping[str, Factors] | None = None,
    *,
    init: Init = "hosvd",
    onnx_model: Path | None = None,
) -> nn.Module:
    """Replace the plan's layers by chains, in place; return the model.

    Args:
        plan: names modules, or nodes of an ONNX export of the model (see `module_paths`).
        factors: module path → factors to use; layers that are not in it are decomposed by `init`.
        onnx_model: the export that the plan was made for, where its names alone do not tell.

    Raises:
        TdcError: the plan or the factors do not fit the model, which is then unchanged.
    """
    given = factors or {}
    selection = selection_of(model, plan, onnx_model)
    unused = sorted(set(given) - set(selection))
    if unused:
        raise TdcError(f"factors for {unused[0]!r}, which the plan leaves dense")
    layers = decomposable(model)
    made = {
        path: chain_of(layers[path], candidate, given.get(path), init)
        for path, candidate in selection.items()
    }
    _replace(model, {id(layers[path]): chain for path, chain in made.items()})
    return model


def chain_of(
    layer: nn.Conv2d | nn.Linear,
    candidate: Candidate,
    factors: Factors | None = None,
    init: Init = "hosvd",
) -> FactorisedLayer:
    """The chain that approximates a layer in the candidate's form.

    Raises:
        TdcError: they do not fit.
    """
    if candidate.form == "svd" and candidate.ranks is not None:
        rank = candidate.ranks.r_in
        if isinstance(layer, nn.Linear):
            return SvdLinear.from_linear(layer, rank, factors, init)
        return SvdConv2d.from_conv(layer, rank, factors, init)
    if isinstance(layer, nn.Linear):
        raise TdcError(f"{candidate} of {layer}", expected="svd")
    return TuckerConv2d.from_conv(layer, candidate, factors, init)


def plan_of(model: nn.Module) -> Plan:
    """The plan that makes a dense model this one."""
    return Plan({path: LayerChoice(layer.candidate) for path, layer in factorised(model).items()})


def make_dense(model: nn.Module) -> nn.Module:
    """Replace every chain by the dense layer that computes the same, in place; return the model."""
    _replace(model, {id(layer): layer.dense() for layer in factorised(model).values()})
    return model


def _by_first_path(model: nn.Module, plan: Plan, onnx_model: Path | None) -> dict[str, Candidate]:
    """The plan by module path: of a module that has several, or that is called twice, by its first."""
    modules = dict(model.named_modules(remove_duplicate=False))
    first = {id(module): path for path, module in model.named_modules()}
    chosen = plan.selection
    selection: dict[str, Candidate] = {}
    for name, path in module_paths(chosen, model, onnx_model).items():
        path = first[id(modules[path])]
        candidate = chosen[name]
        other = selection.setdefault(path, candidate)
        if (other.form, other.ranks) != (candidate.form, candidate.ranks):
            raise TdcError(
                f"the plan has module {path!r} both as {other} and as {candidate}",
                expected="one form: they are the same weights",
            )
    return selection


def _outside_chains(model: nn.Module) -> dict[str, nn.Module]:
    inside = {id(part) for chain in factorised(model).values() for part in chain.parts.values()}
    return {path: module for path, module in model.named_modules() if id(module) not in inside}


def _why_not(module: nn.Module) -> str:
    if isinstance(module, FactorisedLayer):
        return f"it is a chain already, {module.candidate}"
    if type(module) is nn.Conv2d:
        return why_dense(module)
    return "" if type(module) is nn.Linear else f"it is a {type(module).__name__}"


def _describe(path: str, layer: nn.Conv2d | nn.Linear) -> ConvLayer:
    """The layer at the smallest input that it takes; a Linear is a 1x1 convolution of one pixel."""
    if isinstance(layer, nn.Linear):
        channels, kernel, dilation = (layer.in_features, layer.out_features), (1, 1), (1, 1)
    else:
        channels = (layer.in_channels, layer.out_channels)
        kernel = (layer.kernel_size[0], layer.kernel_size[1])
        dilation = (layer.dilation[0], layer.dilation[1])
    span = [step * (size - 1) + 1 for step, size in zip(dilation, kernel, strict=True)]
    return ConvLayer(
        name=path,
        c_in=channels[0],
        c_out=channels[1],
        kernel=kernel,
        strides=(1, 1),
        pads=(0, 0, 0, 0),
        dilations=dilation,
        groups=1,
        dtype="float32",
        batch=1,
        in_hw=(span[0], span[1]),
    )


def _replace(model: nn.Module, new: Mapping[int, nn.Module]) -> None:
    """Put modules in the place of those of these ids, wherever they stand."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if id(child) in new:
                setattr(parent, name, new[id(child)])
