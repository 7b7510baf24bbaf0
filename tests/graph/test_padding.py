"""Padding ranks with zeros: the same network."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tdc_deploy.graph import functions as op
from tdc_deploy.graph.fuse import fuse
from tdc_deploy.graph.network import Network, fused_nodes, model_of
from tdc_deploy.graph.padding import pad_ranks
from tests.helpers import Net, Pair, chain, chains_of, feeds_of, network, relative, run, run_float64

Slopes = tuple[float, float]

STEP = 8

# float32 (2⁻²⁴ a rounding) over sums of some hundred terms, added in another order.
FLOAT32 = 1e-5


def fused_net(
    ranks: Pair = (3, 10), inner: Slopes = (0, 1), whole_numbers: bool = False
) -> Network:
    """Two chains, the second with a residual; inner activations of those slopes, and biases."""
    net = Net(8, (9, 8))
    every = (True, True, True)
    y = net.relu(chain(net, "x", "a", ranks=ranks, biases=every, inner=inner), "a.relu")
    z = chain(net, y, "b", ranks=ranks, biases=every, inner=inner)
    model = net.model(net.head(net.relu(net.add(z, y, "b.add"), "b.relu")))
    if whole_numbers:
        rounded(model)
    made = network(model)
    fuse(made, chains_of(made))
    assert [node.op for node in fused_nodes(made.graph)] == [op.TUCKER_CONV, op.TUCKER_CONV_ADD]
    return made


def rounded(model: onnx.ModelProto) -> None:
    """Weights of -1, 0 and 1: every sum is a small whole number, exact in any order."""
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        small = np.sign(values) * (np.abs(values) > np.median(np.abs(values)))
        tensor.CopyFrom(numpy_helper.from_array(small.astype(np.float32), tensor.name))


def padded(made: Network) -> Network:
    copied = made.copy()
    pad_ranks(copied, STEP)
    return copied


@pytest.mark.parametrize("inner", [(1, 1), (0, 0), (0.25, 0.1)])
@pytest.mark.parametrize("ranks", [(3, 2), (8, 5), (9, 16), (8, 8)])
def test_every_rank_becomes_a_multiple_and_weights_keep_their_place(
    ranks: Pair, inner: Slopes
) -> None:
    made = fused_net(ranks, inner)
    r_in, r_out = (-(-rank // STEP) * STEP for rank in ranks)
    for before, after in zip(fused_nodes(made.graph), fused_nodes(padded(made).graph), strict=True):
        shapes = [after.inputs[i].shape for i in range(op.FIRST, op.BIAS + 1)]
        assert [tuple(shape) for shape in shapes] == [
            (r_in, 8),
            (r_in,),
            (3, 3, r_out, r_in),
            (r_out,),
            (8, r_out),
            (8,),
        ]
        for i in range(op.FIRST, op.BIAS + 1):
            old, new = np.asarray(before.inputs[i].values), np.asarray(after.inputs[i].values)
            inside = tuple(slice(size) for size in old.shape)
            assert np.array_equal(new[inside], old)
            assert np.abs(new).sum(dtype=np.float64) == np.abs(old).sum(dtype=np.float64)


@pytest.mark.parametrize("inner", [(1, 1), (0, 0), (0.25, 0.5)])
@pytest.mark.parametrize("ranks", [(3, 2), (8, 5), (9, 16)])
def test_where_sums_are_exact_the_outputs_are_the_same_bits(ranks: Pair, inner: Slopes) -> None:
    """Products and sums of small multiples of 1/8 are exact in float32, whatever their order."""
    made = fused_net(ranks, inner, whole_numbers=True)
    feeds = feeds_of(model_of(made))
    feeds = {name: np.round(4 * value).astype(np.float32) for name, value in feeds.items()}
    before, after = run(model_of(made), feeds)[0], run(model_of(padded(made)), feeds)[0]
    assert np.array_equal(after, before)
    assert np.abs(before).max() > 0


def test_with_any_weights_they_are_the_same_but_for_rounding() -> None:
    """ONNX Runtime may add the channels of another count in another order."""
    made = fused_net((5, 11), (0.25, 0.1))
    feeds = feeds_of(model_of(made))
    exact = run_float64(model_of(made), feeds)[0]
    assert relative(run(model_of(padded(made)), feeds)[0], exact) <= FLOAT32
    assert relative(run_float64(model_of(padded(made)), feeds)[0], exact) <= 1e-13


def test_ranks_that_fit_are_left_alone() -> None:
    made = fused_net((8, 16))
    assert model_of(padded(made)) == model_of(made)
