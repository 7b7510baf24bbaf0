"""1x1 convolutions and fully connected layers as two smaller ones, from a truncated SVD."""

from __future__ import annotations

from typing import Any

from torch import nn

from tdc_deploy.errors import TdcError
from tdc_deploy.tucker import Factors
from tdc_deploy.types import Ranks
from tdc_train.layers.factorised import FactorisedLayer, Init, check_conv, kind_of


class SvdConv2d(FactorisedLayer):
    """An ungrouped, zero-padded 1x1 nn.Conv2d as 1x1 C→rank, 1x1 rank→M.

    `first` has the stride and the padding: it then computes only the pixels that are kept.

    Raises:
        TdcError: a rank above the channels.
    """

    first: nn.Conv2d
    last: nn.Conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        rank: int,
        *,
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__("svd", _checked_rank(rank, in_channels, out_channels))
        kind: dict[str, Any] = {"device": device, "dtype": dtype}
        self.first = nn.Conv2d(in_channels, rank, 1, stride, padding, bias=False, **kind)
        self.last = nn.Conv2d(rank, out_channels, 1, bias=bias, **kind)

    @classmethod
    def from_conv(
        cls, conv: nn.Conv2d, rank: int, factors: Factors | None = None, init: Init = "hosvd"
    ) -> SvdConv2d:
        """The chain that approximates a 1x1 convolution, on its device, in its type and mode.

        Raises:
            TdcError: a grouped, otherwise padded or larger convolution, or a rank that does not fit it.
        """
        check_conv(conv)
        if conv.kernel_size != (1, 1):
            raise TdcError(f"svd of {conv}", expected="a 1x1 kernel", fix="use tucker2")
        layer = cls(
            *(conv.in_channels, conv.out_channels, rank),
            stride=conv.stride,  # type: ignore[arg-type]
            padding=conv.padding,  # type: ignore[arg-type]
            **kind_of(conv),
        )
        return layer.approximating(conv, factors, init)

    def _like_dense(self, bias: bool, **kind: Any) -> nn.Conv2d:
        kind |= {"stride": self.first.stride, "padding": self.first.padding}
        return nn.Conv2d(self.first.in_channels, self.last.out_channels, 1, bias=bias, **kind)


class SvdLinear(FactorisedLayer):
    """An nn.Linear as Linear C→rank, Linear rank→M.

    Raises:
        TdcError: a rank above the features.
    """

    first: nn.Linear
    last: nn.Linear

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        *,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__("svd", _checked_rank(rank, in_features, out_features))
        self.first = nn.Linear(in_features, rank, bias=False, device=device, dtype=dtype)
        self.last = nn.Linear(rank, out_features, bias=bias, device=device, dtype=dtype)

    @classmethod
    def from_linear(
        cls, linear: nn.Linear, rank: int, factors: Factors | None = None, init: Init = "hosvd"
    ) -> SvdLinear:
        """The chain that approximates `linear`, on its device, in its type and mode.

        Raises:
            TdcError: a rank that does not fit it.
        """
        layer = cls(linear.in_features, linear.out_features, rank, **kind_of(linear))
        return layer.approximating(linear, factors, init)

    def _like_dense(self, bias: bool, **kind: Any) -> nn.Linear:
        return nn.Linear(self.first.in_features, self.last.out_features, bias=bias, **kind)


def _checked_rank(rank: int, c: int, m: int) -> Ranks:
    if rank > min(c, m):
        raise TdcError(
            f"svd of rank {rank} for {c} to {m} channels", expected=f"at most {min(c, m)}"
        )
    return Ranks(rank, rank)
