"""Layers of a shared kernel basis as chains, where a backend measures that to be faster."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from tdc_deploy.backends.base import Backend
from tdc_deploy.profiling.measure import LAYER, Feeds
from tdc_deploy.progress import Progress, silent
from tdc_deploy.types import Timing
from tdc_train.export import export_onnx
from tdc_train.layers.basis_conv import BasisConv2d
from tdc_train.modes import evaluating
from tdc_train.projections.sets import ConstraintSet, KernelBasis

INPUT = "image"
# Of float32 weights whose factors are fitted anew; one that is fitted to others is off by some 1e-2.
SAME = 1e-5


@dataclass(frozen=True)
class MeasuredBasis:
    """A layer's median latencies in milliseconds, alone at its own input shape."""

    path: str
    dense_ms: float
    chain_ms: float

    @property
    def is_faster(self) -> bool:
        """Whether the chain is."""
        return self.chain_ms < self.dense_ms

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"dense_ms": self.dense_ms, "chain_ms": self.chain_ms, "chain": self.is_faster}


def apply_faster_bases(
    model: nn.Module,
    held: Mapping[str, ConstraintSet],
    shape: Sequence[int],
    backend: Backend,
    progress: Progress = silent,
) -> list[MeasuredBasis]:
    """Put a `BasisConv2d` in the place of each layer for which the backend measures it to be faster.

    The model, changed in place, computes what it did: a layer whose factors are not found again
    (`KernelBasis`) stays as it is, and is not among the measured. A chain that the backend refuses counts
    as slower.

    Args:
        held: module path → set; those that are no `KernelBasis` are passed over.
        shape: of the network's input, [N, C, H, W].

    Raises:
        TdcError: the backend refuses a dense layer.
    """
    chains = {
        path: chain
        for path, kind in held.items()
        if isinstance(kind, KernelBasis)
        for chain in _chains_of(cast(nn.Conv2d, model.get_submodule(path)), kind)
    }
    shapes = input_shapes(model, list(chains), shape)
    pairs = [(path, part) for path in chains for part in (model.get_submodule(path), chains[path])]
    found = backend.measure_layers(
        ((as_onnx(part, shapes[path]), _feeds(shapes[path])) for path, part in pairs), LAYER
    )
    measured = []
    for done, path in enumerate(chains):
        progress("measuring shared bases", done, len(chains))
        dense, chain = next(found), next(found)
        if not isinstance(dense, Timing):
            raise dense
        chain_ms = chain.median if isinstance(chain, Timing) else math.inf
        measured.append(MeasuredBasis(path, dense.median, chain_ms))
    faster = {id(model.get_submodule(m.path)): chains[m.path] for m in measured if m.is_faster}
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if id(module) in faster:
            model.set_submodule(path, faster[id(module)])
    return measured


def _chains_of(conv: nn.Conv2d, kind: KernelBasis) -> list[BasisConv2d]:
    """The chain that computes what the convolution does; none if its factors are not found."""
    coefficients, kernels = kind.factors(conv.weight)
    weight = conv.weight.detach().double()
    apart = torch.tensordot(coefficients, kernels, 1) - weight
    if not float(apart.norm()) <= SAME * float(weight.norm()):
        return []
    return [BasisConv2d.from_conv(conv, coefficients, kernels)]


@torch.no_grad()
def input_shapes(
    model: nn.Module, paths: Sequence[str], shape: Sequence[int]
) -> dict[str, tuple[int, ...]]:
    """Module path → the shape of what the module is given (last, if it is called several times)."""
    found: dict[str, tuple[int, ...]] = {}

    def note(path: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found[path] = tuple(inputs[0].shape)

        return hook

    hooks = [model.get_submodule(path).register_forward_pre_hook(note(path)) for path in paths]
    try:
        with evaluating(model):
            model(torch.zeros(*shape, device=next(model.parameters()).device))
    finally:
        for handle in hooks:
            handle.remove()
    return found


def as_onnx(layer: nn.Module, shape: Sequence[int]) -> onnx.ModelProto:
    """A model of the layer alone, with input `image` of that shape."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.onnx"
        export_onnx(nn.Sequential(layer), path, shape, input_name=INPUT)
        return onnx.load(str(path))


def _feeds(shape: Sequence[int]) -> Feeds:
    return {INPUT: np.random.default_rng(1).standard_normal(shape, np.float32)}
