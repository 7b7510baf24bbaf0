"""Arithmetic, parameters and traffic, against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from tdc_deploy.tucker import Cost, chain_cost, dense_cost
from tdc_deploy.tucker.cost import chain_layers
from tdc_deploy.types import DENSE, Candidate, ConvLayer, Ranks

PLAIN = ConvLayer(
    name="conv",
    c_in=64,
    c_out=64,
    kernel=(3, 3),
    strides=(1, 1),
    pads=(1, 1, 1, 1),
    dilations=(1, 1),
    groups=1,
    dtype="float32",
    batch=1,
    in_hw=(56, 56),
)
STRIDED = replace(PLAIN, c_out=128, strides=(2, 2))  # 56x56 → 28x28
POINTWISE = replace(PLAIN, c_out=256, kernel=(1, 1), pads=(0, 0, 0, 0), strides=(2, 2))


def test_dense() -> None:
    # 64·64·9 weights, each used at 56·56 = 3136 pixels; 64·3136 floats read and as many written.
    assert dense_cost(PLAIN) == Cost(115_605_504, 36_864, 1_605_632)
    assert dense_cost(PLAIN).flops == 231_211_008


def test_strided() -> None:
    # 64·128·9 weights at 28·28 = 784 pixels; 64·3136 floats read, 128·784 written.
    assert dense_cost(STRIDED) == Cost(57_802_752, 73_728, 4 * (200_704 + 100_352))


def test_batch_groups_and_half_precision() -> None:
    assert dense_cost(replace(PLAIN, batch=4)) == Cost(4 * 115_605_504, 36_864, 4 * 1_605_632)
    depthwise = dense_cost(replace(PLAIN, groups=64))
    assert (depthwise.macs, depthwise.params) == (576 * 3136, 576)
    assert dense_cost(replace(PLAIN, dtype="float16")).activation_bytes == 802_816


def test_dense_candidate_is_the_layer() -> None:
    assert chain_layers(PLAIN, DENSE) == [PLAIN]
    assert chain_cost(PLAIN, DENSE) == dense_cost(PLAIN)


def test_tucker2() -> None:
    candidate = Candidate("tucker2", Ranks(32, 32))
    # 64·32 and 32·64 weights of the 1x1s, 32·32·9 of the core, all at 3136 pixels.
    params = 2048 + 9216 + 2048
    # Floats: 64 + 32, then 32 + 32, then 32 + 64 channels of 3136 pixels.
    assert chain_cost(PLAIN, candidate) == Cost(params * 3136, params, 4 * 256 * 3136)


def test_fused_moves_only_the_layers_input_and_output() -> None:
    native = Candidate("tucker2", Ranks(32, 16))
    fused = replace(native, implementation="fused")
    assert chain_cost(STRIDED, fused).macs == chain_cost(STRIDED, native).macs
    assert chain_cost(STRIDED, fused).params == chain_cost(STRIDED, native).params
    assert chain_cost(STRIDED, fused).activation_bytes == 4 * (64 * 3136 + 128 * 784)
    # In between: 32 channels of 3136 pixels and 16 of 784, each written and read.
    difference = 2 * 4 * (32 * 3136 + 16 * 784)
    assert chain_cost(STRIDED, native).activation_bytes == 4 * (64 * 3136 + 128 * 784) + difference


def test_strided_tucker2_strides_in_its_core() -> None:
    first, core, last = chain_layers(STRIDED, Candidate("tucker2", Ranks(32, 16)))
    assert (first.kernel, first.strides, first.in_hw, first.c_out) == ((1, 1), (1, 1), (56, 56), 32)
    assert (core.kernel, core.strides, core.c_in, core.c_out) == ((3, 3), (2, 2), 32, 16)
    assert (core.pads, core.in_hw, core.out_hw) == ((1, 1, 1, 1), (56, 56), (28, 28))
    assert (last.kernel, last.strides, last.in_hw, last.c_out) == ((1, 1), (1, 1), (28, 28), 128)
    cost = chain_cost(STRIDED, Candidate("tucker2", Ranks(32, 16)))
    assert cost.macs == 64 * 32 * 3136 + 32 * 16 * 9 * 784 + 16 * 128 * 784


def test_one_sided() -> None:
    into = chain_cost(STRIDED, Candidate("tucker_in", Ranks(16, 128)))
    assert into.macs == 64 * 16 * 3136 + 16 * 128 * 9 * 784
    assert into.activation_bytes == 4 * ((64 + 16) * 3136 + 16 * 3136 + 128 * 784)
    out = chain_cost(STRIDED, Candidate("tucker_out", Ranks(64, 32)))
    assert out.macs == 64 * 32 * 9 * 784 + 32 * 128 * 784
    assert out.activation_bytes == 4 * (64 * 3136 + 32 * 784 + (32 + 128) * 784)


def test_svd_strides_in_its_first_convolution() -> None:
    cost = chain_cost(POINTWISE, Candidate("svd", Ranks(16, 16)))
    # Only the 784 pixels that the stride keeps are computed.
    assert cost.macs == (64 * 16 + 16 * 256) * 784
    assert cost.params == 64 * 16 + 16 * 256
    assert cost.activation_bytes == 4 * (64 * 3136 + 16 * 784 + (16 + 256) * 784)


@pytest.mark.parametrize("form", ["tucker2", "tucker_in", "tucker_out"])
def test_dilation_and_asymmetric_padding_stay_in_the_core(form: str) -> None:
    layer = replace(PLAIN, kernel=(5, 1), dilations=(2, 1), pads=(3, 0, 1, 0), in_hw=(20, 17))
    ranks = {"tucker_in": Ranks(8, 64), "tucker_out": Ranks(64, 8)}.get(form, Ranks(8, 8))
    candidate = Candidate(form, ranks)  # type: ignore[arg-type]  # parametrized as a string
    parts = chain_layers(layer, candidate)
    assert parts[-1].out_hw == layer.out_hw == (16, 17)
    assert [part.kernel for part in parts].count((5, 1)) == 1
    for before, after in pairwise(parts):
        assert (before.c_out, before.out_hw) == (after.c_in, after.in_hw)


def test_costs_add_up() -> None:
    assert Cost(1, 2, 3) + Cost(10, 20, 30) == Cost(11, 22, 33)
