"""A convolution whose kernels share a basis, as a depthwise convolution and a 1x1 one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tdc_deploy.errors import TdcError
from tdc_train.layers.factorised import check_conv, kind_of


class BasisConv2d(nn.Module):
    """[N, C, H, W] → [N, M, H', W']: each input channel with d shared kernels, then their mixture.

    `basis` is depthwise with d outputs a channel, all of the same d kernels; `mix` is 1x1, [M, C·d]
    (S. Li et al., "PENNI", ICML 2020, section 3.3).
    """

    def __init__(self, basis: nn.Conv2d, mix: nn.Conv2d) -> None:
        super().__init__()
        self.basis = basis
        self.mix = mix

    def forward(self, x: Tensor) -> Tensor:
        """The mixture of what the basis kernels give."""
        return self.mix(self.basis(x))  # type: ignore[no-any-return]

    @classmethod
    @torch.no_grad()
    def from_conv(cls, conv: nn.Conv2d, coefficients: Tensor, kernels: Tensor) -> BasisConv2d:
        """The layer with a convolution's geometry and bias, and these factors as weights.

        Args:
            coefficients: [M, C, d].
            kernels: [d, kh, kw].

        Raises:
            TdcError: the convolution is grouped, or the factors are not of its shape.
        """
        check_conv(conv)
        count = len(kernels)
        wanted = (conv.out_channels, conv.in_channels, count)
        if tuple(coefficients.shape) != wanted or tuple(kernels.shape[1:]) != conv.kernel_size:
            raise TdcError(
                f"coefficients {tuple(coefficients.shape)} of kernels {tuple(kernels.shape)}",
                expected=f"{wanted} of kernels {(count, *conv.kernel_size)}",
            )
        kind, channels = kind_of(conv), conv.in_channels * count
        basis = nn.Conv2d(
            conv.in_channels,
            channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            groups=conv.in_channels,
            **{**kind, "bias": False},
        )
        mix = nn.Conv2d(channels, conv.out_channels, 1, **kind)
        basis.weight.copy_(kernels[:, None].repeat(conv.in_channels, 1, 1, 1))
        mix.weight.copy_(coefficients.reshape(conv.out_channels, channels, 1, 1))
        if conv.bias is not None and mix.bias is not None:
            mix.bias.copy_(conv.bias)
        return cls(basis, mix).train(conv.training)
