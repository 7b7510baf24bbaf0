"""A convolution as a Tucker-2 chain: 1x1, kxk core, 1x1 (Kim et al., ICLR 2016)."""

from __future__ import annotations

from typing import Any

from torch import nn

from tdc_deploy.errors import TdcError
from tdc_deploy.tucker import Factors
from tdc_deploy.types import Candidate, Form, Ranks
from tdc_train.layers.factorised import FactorisedLayer, Init, check_conv, kind_of

TUCKER_FORMS: tuple[Form, ...] = ("tucker2", "tucker_in", "tucker_out")


class TuckerConv2d(FactorisedLayer):
    """An ungrouped, zero-padded nn.Conv2d as a chain in one of `TUCKER_FORMS`.

    The core has the convolution's stride, padding and dilation: `first` has no bias, so that padding
    before it and behind it are the same.

    Args:
        kernel_size, stride, padding, dilation: as nn.Conv2d takes them, padding "same" and "valid" too.
        form: tucker2 has all parts, tucker_in no `last` (r_out is M), tucker_out no `first` (r_in is C).

    Raises:
        TdcError: another form, or ranks that do not fit the channels.
    """

    first: nn.Conv2d | None
    core: nn.Conv2d
    last: nn.Conv2d | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        ranks: Ranks,
        form: Form = "tucker2",
        *,
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(form, ranks)
        _check_ranks(in_channels, out_channels, ranks, form)
        kind: dict[str, Any] = {"device": device, "dtype": dtype}
        has_last = form != "tucker_in"
        if form != "tucker_out":
            self.first = nn.Conv2d(in_channels, ranks.r_in, 1, bias=False, **kind)
        self.core = nn.Conv2d(
            *(ranks.r_in, ranks.r_out, kernel_size, stride, padding, dilation),
            bias=bias and not has_last,
            **kind,
        )
        if has_last:
            self.last = nn.Conv2d(ranks.r_out, out_channels, 1, bias=bias, **kind)

    @classmethod
    def from_conv(
        cls,
        conv: nn.Conv2d,
        candidate: Candidate,
        factors: Factors | None = None,
        init: Init = "hosvd",
    ) -> TuckerConv2d:
        """The chain that approximates `conv`, on its device, in its type and mode.

        `factors` are those to use; None decomposes the kernel.

        Raises:
            TdcError: a grouped or otherwise padded convolution, or a candidate that does not fit it.
        """
        check_conv(conv)
        layer = cls(
            *(conv.in_channels, conv.out_channels, conv.kernel_size, _ranks_of(candidate)),  # type: ignore[arg-type]
            candidate.form,
            stride=conv.stride,  # type: ignore[arg-type]
            padding=conv.padding,  # type: ignore[arg-type]
            dilation=conv.dilation,  # type: ignore[arg-type]
            **kind_of(conv),
        )
        return layer.approximating(conv, factors, init)

    def _like_dense(self, bias: bool, **kind: Any) -> nn.Conv2d:
        core = self.core
        channels = core.in_channels if self.first is None else self.first.in_channels
        outputs = core.out_channels if self.last is None else self.last.out_channels
        kind |= {"stride": core.stride, "padding": core.padding, "dilation": core.dilation}
        size: Any = core.kernel_size
        return nn.Conv2d(channels, outputs, size, bias=bias, **kind)


def _ranks_of(candidate: Candidate) -> Ranks:
    if candidate.ranks is None:
        raise TdcError("a dense candidate", expected=f"one of {', '.join(TUCKER_FORMS)}")
    return candidate.ranks


def _check_ranks(c: int, m: int, ranks: Ranks, form: Form) -> None:
    if form not in TUCKER_FORMS:
        raise TdcError(f"form {form!r}", expected=f"one of {', '.join(TUCKER_FORMS)}")
    fits = ranks.r_in <= c and ranks.r_out <= m
    fits &= form != "tucker_in" or ranks.r_out == m
    fits &= form != "tucker_out" or ranks.r_in == c
    if not fits:
        raise TdcError(
            f"{form} with r_in {ranks.r_in} and r_out {ranks.r_out} for {c} to {m} channels",
            expected=f"r_in {'=' if form == 'tucker_out' else 'at most'} {c}, "
            f"r_out {'=' if form == 'tucker_in' else 'at most'} {m}",
        )
