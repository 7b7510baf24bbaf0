"""What the factorised layers share: their parts, their ranks, and the ways to and from a dense layer."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor, nn

from tdc_deploy.errors import TdcError
from tdc_deploy.tucker import Factors, decompose
from tdc_deploy.types import Candidate, Form, Ranks

Init = Literal["hosvd", "hooi"]
"""How factors are computed from a kernel: HOSVD, or HOOI started from it (svd is exact either way)."""

PARTS = ("first", "core", "last")
_Layer = TypeVar("_Layer", bound="FactorisedLayer")


def kind_of(dense: nn.Conv2d | nn.Linear) -> dict[str, Any]:
    """Whether a dense layer has a bias, its device and its type, as layers take them."""
    weight = dense.weight
    return {"bias": dense.bias is not None, "device": weight.device, "dtype": weight.dtype}


class FactorisedLayer(nn.Module):
    """A linear layer as the chain `first`, `core`, `last`; a form without one of them has None there.

    Only the last part that is there has a bias.
    """

    first: nn.Module | None
    core: nn.Module | None
    last: nn.Module | None

    def __init__(self, form: Form, ranks: Ranks) -> None:
        super().__init__()
        self.form: Form = form
        self.ranks = ranks
        for part in PARTS:
            self.register_module(part, None)

    @property
    def candidate(self) -> Candidate:
        """The layer's form and ranks as a plan holds them."""
        fused = self.form == "tucker2"
        return Candidate(self.form, self.ranks, "fused" if fused else "native")

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The parts that are there, in order."""
        found = {name: getattr(self, name) for name in PARTS}
        return {name: part for name, part in found.items() if part is not None}

    @property
    def bias(self) -> nn.Parameter | None:
        """The layer's bias, [M]."""
        bias: nn.Parameter | None = list(self.parts.values())[-1].bias  # type: ignore[assignment]
        return bias

    def forward(self, x: Tensor) -> Tensor:
        """The parts, one after the other."""
        for part in (self.first, self.core, self.last):
            if part is not None:
                x = part(x)
        return x

    def reconstructed(self) -> Tensor:
        """The dense kernel [M, C, kh, kw] (of a Linear: [M, C]) that the chain computes; differentiable."""
        weights = {name: part.weight for name, part in self.parts.items()}
        return reconstruct(**weights)  # type: ignore[arg-type]

    @torch.no_grad()
    def dense(self) -> nn.Module:
        """The nn.Conv2d or nn.Linear that computes the same."""
        weight = self.reconstructed()
        layer = self._like_dense(self.bias is not None, device=weight.device, dtype=weight.dtype)
        layer.weight.copy_(weight)  # type: ignore[operator, union-attr]
        if self.bias is not None:
            layer.bias.copy_(self.bias)  # type: ignore[operator, union-attr]
        return layer.train(self.training)

    @abstractmethod
    def _like_dense(self, bias: bool, **kind: Any) -> nn.Module:
        """A dense layer of this one's geometry; `kind` is its device and dtype."""

    @torch.no_grad()
    def set_factors(self, factors: Factors) -> None:
        """Take these factors as weights; the bias stays.

        Raises:
            TdcError: they are not of this layer's form or ranks.
        """
        for name in PARTS:
            part, values = getattr(self, name), getattr(factors, name)
            if (part is None) != (values is None):
                raise TdcError(
                    f"factors {'without' if values is None else 'with'} {name!r}",
                    expected=f"those of {self.candidate}",
                )
            if part is not None:
                _assign(name, part.weight, values)

    def approximating(
        self: _Layer, dense: nn.Conv2d | nn.Linear, factors: Factors | None, init: Init
    ) -> _Layer:
        """The layer itself, now the approximation of `dense`, in its mode.

        Raises:
            TdcError: as `take_dense`.
        """
        self.take_dense(dense.weight, dense.bias, factors, init)
        return self.train(dense.training)

    @torch.no_grad()
    def take_dense(
        self, weight: Tensor, bias: Tensor | None, factors: Factors | None, init: Init
    ) -> None:
        """Become the approximation of a dense layer; `factors` are computed from `weight` if None.

        Raises:
            TdcError: the ranks are larger than the channels, or the factors do not fit.
        """
        if init not in get_args(Init):
            raise TdcError(f"init {init!r}", expected="hosvd or hooi")
        kernel = weight if weight.ndim == 4 else weight[:, :, None, None]
        if factors is None:
            values = kernel.detach().cpu().double().numpy()
            factors = decompose(values, self.form, self.ranks, refine=init == "hooi")
        self.set_factors(factors)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)


def reconstruct(
    first: Tensor | None = None, core: Tensor | None = None, last: Tensor | None = None
) -> Tensor:
    """The kernel of a chain, of its parts' weights: 1x1 ones [r, C, 1, 1] and [M, r, 1, 1], the core
    [r_out, r_in, kh, kw]; for a chain of two fully connected layers [M, C] from [r, C] and [M, r].

    Raises:
        ValueError: neither a core, nor both first and last.
    """
    if core is None:
        if first is None or last is None:
            raise ValueError("a chain without a core needs both first and last")
        product = last.flatten(1) @ first.flatten(1)
        return product.reshape(*product.shape, *first.shape[2:])
    kernel = core
    if first is not None:
        kernel = torch.einsum("abyx,bc->acyx", kernel, first.flatten(1))
    if last is not None:
        kernel = torch.einsum("ma,acyx->mcyx", last.flatten(1), kernel)
    return kernel


def check_conv(conv: nn.Conv2d) -> None:
    """Raise TdcError if the convolution cannot be decomposed."""
    reason = why_dense(conv)
    if reason:
        raise TdcError(f"{conv} cannot be decomposed: {reason}", fix="leave it dense")


def why_dense(conv: nn.Conv2d) -> str:
    """Why a convolution must stay dense; empty if it need not."""
    if conv.groups != 1:
        return "it is depthwise" if conv.groups == conv.in_channels else "it is grouped"
    if conv.padding_mode != "zeros":
        return f"its padding mode is {conv.padding_mode}, not zeros"
    return ""


def _assign(name: str, weight: Tensor, values: np.ndarray) -> None:
    if values.size != weight.numel() or values.shape[:2] != tuple(weight.shape[:2]):
        raise TdcError(
            f"factor {name!r} of shape {tuple(values.shape)}", expected=f"{tuple(weight.shape)}"
        )
    weight.copy_(torch.from_numpy(np.ascontiguousarray(values)).reshape(weight.shape))
