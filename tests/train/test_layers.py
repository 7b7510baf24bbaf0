"""Factorised layers against the dense layers that they stand for."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch
from tdc_train.layers import SvdConv2d, SvdLinear, TuckerConv2d
from torch import nn
from torch.nn import functional as F

from tdc_deploy.errors import TdcError
from tdc_deploy.tucker import decompose, reconstruct
from tdc_deploy.types import Candidate, Form, Ranks
from tests.train.small_models import TUCKER2, relative

# The chain and its reconstructed kernel multiply the same numbers in another order; in float64 that
# leaves some 1e-15 of the output.
SAME = 1e-12

GEOMETRIES: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 5, "padding": 2, "dilation": 2},
    {"kernel_size": (1, 3), "padding": (0, 1), "stride": (2, 1)},
    {"kernel_size": (7, 2), "padding": (3, 1), "stride": (1, 3), "dilation": (1, 2)},
    {"kernel_size": 3, "padding": "same", "dilation": 2},
    {"kernel_size": 4, "padding": "same"},
    {"kernel_size": 3, "padding": "valid"},
    {"kernel_size": 1, "padding": 1, "stride": 2},
]


def conv(seed: int = 0, **geometry: Any) -> nn.Conv2d:
    torch.manual_seed(seed)
    return nn.Conv2d(9, 12, dtype=torch.float64, **geometry)


def candidate(form: Form) -> Candidate:
    ranks = {"tucker2": Ranks(4, 5), "tucker_in": Ranks(4, 12), "tucker_out": Ranks(9, 5)}
    return Candidate(form, ranks[form])


def image(channels: int = 9) -> Any:
    return torch.randn(2, channels, 15, 17, dtype=torch.float64)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("form", ["tucker2", "tucker_in", "tucker_out"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_a_chain_is_the_convolution_with_its_reconstructed_kernel(
    geometry: dict[str, Any], form: Form, bias: bool
) -> None:
    layer = conv(bias=bias, **geometry)
    chain = TuckerConv2d.from_conv(layer, candidate(form))
    x = image()
    wanted = F.conv2d(
        x, chain.reconstructed(), layer.bias, layer.stride, layer.padding, layer.dilation
    )
    assert chain(x).shape == layer(x).shape
    assert relative(chain(x), wanted) <= SAME
    assert relative(chain.dense()(x), wanted) <= SAME


@pytest.mark.parametrize("init", ["hosvd", "hooi"])
@pytest.mark.parametrize("form", ["tucker2", "tucker_in", "tucker_out"])
def test_the_kernel_is_the_decomposition(form: Form, init: Any) -> None:
    layer = conv(kernel_size=3)
    chain = TuckerConv2d.from_conv(layer, candidate(form), init=init)
    factors = decompose(layer.weight.detach().numpy(), form, chain.ranks, refine=init == "hooi")
    assert relative(chain.reconstructed(), torch.from_numpy(reconstruct(factors))) <= SAME


def test_full_rank_is_the_layer() -> None:
    layer = conv(kernel_size=3, stride=2)
    x = image()
    chain = TuckerConv2d.from_conv(layer, Candidate("tucker2", Ranks(9, 12)))
    assert relative(chain(x), layer(x)) <= SAME


def test_the_parts_are_small_convolutions_with_one_bias() -> None:
    chain = TuckerConv2d.from_conv(conv(kernel_size=3), candidate("tucker2"))
    shapes = {name: tuple(value.shape) for name, value in chain.state_dict().items()}
    assert shapes == {
        "first.weight": (4, 9, 1, 1),
        "core.weight": (5, 4, 3, 3),
        "last.weight": (12, 5, 1, 1),
        "last.bias": (12,),
    }
    one_sided = TuckerConv2d.from_conv(conv(kernel_size=3), candidate("tucker_in"))
    assert list(one_sided.state_dict()) == ["first.weight", "core.weight", "core.bias"]


def test_given_factors_are_taken() -> None:
    layer = conv(kernel_size=3)
    other = decompose(conv(seed=5, kernel_size=3).weight.detach().numpy(), "tucker2", Ranks(4, 5))
    chain = TuckerConv2d.from_conv(layer, candidate("tucker2"), other)
    assert relative(chain.reconstructed(), torch.from_numpy(reconstruct(other))) <= SAME


@pytest.mark.parametrize("form", ["tucker_in", "svd"])
def test_factors_of_another_form_are_refused(form: Form) -> None:
    ranks = Ranks(4, 12) if form == "tucker_in" else Ranks(4, 4)
    size = 1 if form == "svd" else 3
    factors = decompose(conv(kernel_size=size).weight.detach().numpy(), form, ranks)
    with pytest.raises(TdcError, match="factor"):
        TuckerConv2d.from_conv(conv(kernel_size=size), candidate("tucker2"), factors)


def test_factors_of_other_ranks_are_refused() -> None:
    factors = decompose(conv(kernel_size=3).weight.detach().numpy(), "tucker2", Ranks(4, 6))
    with pytest.raises(TdcError, match="of shape"):
        TuckerConv2d.from_conv(conv(kernel_size=3), candidate("tucker2"), factors)


def test_the_kernel_has_gradients() -> None:
    chain = TuckerConv2d.from_conv(conv(kernel_size=3), candidate("tucker2"))
    chain.reconstructed().square().sum().backward()
    assert all(chain.get_parameter(f"{part}.weight").grad is not None for part in chain.parts)


def test_type_device_and_mode_are_the_layers() -> None:
    layer = nn.Conv2d(9, 12, 3).to(torch.bfloat16).eval()
    chain = TuckerConv2d.from_conv(layer, candidate("tucker2"))
    assert chain.core.weight.dtype == torch.bfloat16
    assert not chain.training and not chain.core.training and not chain.dense().training


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"groups": 3}, "grouped"),
        ({"groups": 9}, "depthwise"),
        ({"padding_mode": "circular", "padding": 1}, "padding mode is circular"),
    ],
)
def test_what_cannot_be_decomposed_is_refused(options: dict[str, Any], reason: str) -> None:
    layer = nn.Conv2d(9, 9, 3, **options)
    with pytest.raises(TdcError, match=reason):
        TuckerConv2d.from_conv(layer, Candidate("tucker2", Ranks(4, 5)))


@pytest.mark.parametrize(
    "bad",
    [
        Candidate("dense"),
        Candidate("svd", Ranks(4, 4)),
        Candidate("tucker2", Ranks(10, 5)),
        Candidate("tucker2", Ranks(4, 13)),
        Candidate("tucker_in", Ranks(4, 5)),
        Candidate("tucker_out", Ranks(4, 5)),
    ],
    ids=str,
)
def test_candidates_that_do_not_fit_are_refused(bad: Candidate) -> None:
    with pytest.raises(TdcError):
        TuckerConv2d.from_conv(conv(kernel_size=3), bad)


def test_an_unknown_init_is_refused() -> None:
    with pytest.raises(TdcError, match="init 'random'"):
        TuckerConv2d.from_conv(conv(kernel_size=3), TUCKER2, init="random")  # type: ignore[arg-type]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("geometry", [{}, {"stride": 2}, {"padding": 1, "stride": (1, 2)}], ids=str)
def test_an_svd_convolution(geometry: dict[str, Any], bias: bool) -> None:
    layer = conv(kernel_size=1, bias=bias, **geometry)
    chain = SvdConv2d.from_conv(layer, 4)
    x = image()
    wanted = F.conv2d(x, chain.reconstructed(), layer.bias, layer.stride, layer.padding)
    assert relative(chain(x), wanted) <= SAME
    assert relative(chain.dense()(x), wanted) <= SAME
    assert relative(SvdConv2d.from_conv(layer, 9)(x), layer(x)) <= SAME


def test_an_svd_convolution_is_the_truncated_svd() -> None:
    layer = conv(kernel_size=1)
    u, s, vt = torch.linalg.svd(layer.weight.detach()[:, :, 0, 0], full_matrices=False)
    wanted = (u[:, :4] * s[:4]) @ vt[:4]
    assert relative(SvdConv2d.from_conv(layer, 4).reconstructed()[:, :, 0, 0], wanted) <= SAME


@pytest.mark.parametrize("bias", [True, False])
def test_an_svd_linear(bias: bool) -> None:
    layer = nn.Linear(9, 12, bias=bias, dtype=torch.float64)
    chain = SvdLinear.from_linear(layer, 4)
    x = torch.randn(2, 5, 9, dtype=torch.float64)
    wanted = F.linear(x, chain.reconstructed(), layer.bias)
    assert chain.reconstructed().shape == (12, 9)
    assert relative(chain(x), wanted) <= SAME
    assert relative(chain.dense()(x), wanted) <= SAME
    assert relative(SvdLinear.from_linear(layer, 9)(x), layer(x)) <= SAME


def test_svd_of_what_it_does_not_fit_is_refused() -> None:
    with pytest.raises(TdcError, match="1x1"):
        SvdConv2d.from_conv(conv(kernel_size=3), 4)
    with pytest.raises(TdcError, match="at most 9"):
        SvdConv2d.from_conv(conv(kernel_size=1), 10)
    with pytest.raises(TdcError, match="at most 9"):
        SvdLinear.from_linear(nn.Linear(9, 12), 10)
