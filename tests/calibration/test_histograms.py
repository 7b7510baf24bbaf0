"""Histograms of activations, against NumPy on values kept whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from tdc_calibration import histograms
from tdc_calibration.calibrators import CALIBRATORS, ranges_of
from tdc_calibration.histograms import BINS, _counts, activation_names, collect, extremes

from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.errors import TdcError
from tdc_deploy.graph.network import Network
from tdc_deploy.samples import Samples
from tests.builders import images, small_cnn
from tests.helpers import network, run

COUNT = 9


@pytest.fixture
def made() -> Network:
    return network(small_cnn())


def samples(batch: int = 1) -> Samples:
    return Samples({"image": images(COUNT)}, batch)


def test_every_float_activation_is_watched(made: Network) -> None:
    names = activation_names(made)
    assert names[0] == "image"
    assert {"conv1.out", "relu1", "sum", "pooled", "logits"} <= set(names)


@pytest.mark.parametrize("batch", [1, 4], ids=["one by one", "with a filled batch"])
def test_counts_are_those_of_all_values(batch: int) -> None:
    """The last batch of 4 repeats a sample three times, which must not count."""
    made = network(small_cnn(batch=batch))
    found = collect(made, ["image", "logits", "relu2"], samples(batch), OnnxRuntimeBackend(1))
    values = np.concatenate([run(small_cnn(), {"image": x[None]})[0] for x in images(COUNT)])
    assert found["image"].counts.sum() == images(COUNT).size
    assert found["relu2"].low == 0.0
    logits = found["logits"]
    assert logits.counts.sum() == values.size
    # float32 sums in another order
    assert abs(logits.low - min(values.min(), 0)) <= 1e-4
    assert abs(logits.high - values.max()) <= 1e-4
    expected, _ = np.histogram(values, BINS, (logits.low, logits.high))
    moved = np.abs(np.cumsum(expected - logits.counts)).max()
    assert moved <= 3  # values within rounding of a bin's edge


def test_groups_change_nothing(made: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    names = activation_names(made)
    whole = collect(made, names, samples(), OnnxRuntimeBackend(1))
    monkeypatch.setattr(histograms, "GROUP_BYTES", 200_000)
    apart = collect(made, names, samples(), OnnxRuntimeBackend(1))
    assert list(apart) == names
    for name in names:
        # What a session puts out decides which kernels it fuses, and so the last bit.
        assert abs(whole[name].high - apart[name].high) <= 1e-5 * (1 + whole[name].high)
        assert whole[name].counts.sum() == apart[name].counts.sum()


def test_extremes_are_where_the_bins_end(made: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histograms, "GROUP_BYTES", 200_000)
    names = activation_names(made)
    counted = collect(made, names, samples(), OnnxRuntimeBackend(1))
    found = extremes(made, names, samples(), OnnxRuntimeBackend(1))
    assert found == {name: (h.low, h.high) for name, h in counted.items()}
    assert list(found) == names


def test_a_network_that_diverges_is_refused(made: Network) -> None:
    node = next(n for n in made.graph.nodes if n.name == "conv2")
    values: NDArray[Any] = node.inputs[1].values
    node.inputs[1].values = np.full_like(values, 3e38)
    with pytest.raises(TdcError, match=r"is (inf|nan|-inf) on the calibration data"):
        collect(made, activation_names(made), samples(), OnnxRuntimeBackend(1))


@pytest.mark.parametrize("largest", [1e-44, 1e-36, 1e-34, 3e38])
@pytest.mark.parametrize("least", [0.0, -1.0])
def test_ranges_at_the_ends_of_float32(largest: float, least: float) -> None:
    values = np.array([least, 0, 0.5, 1], np.float32) * np.float32(largest)
    low, high = float(values.min()), float(values.max())
    found = _counts(values, low, high)
    np.testing.assert_array_equal(
        found, np.histogram(values.astype(np.float64), BINS, (low, high))[0]
    )


def test_an_activation_that_is_always_empty() -> None:
    """As the boxes of a detector that finds none."""
    model = small_cnn()
    for name, value in (("none.starts", 0), ("none.ends", 0), ("none.axes", 1)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    model.graph.node.append(
        onnx.helper.make_node(
            "Slice", ["logits", "none.starts", "none.ends", "none.axes"], ["none"]
        )
    )
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("none", onnx.TensorProto.FLOAT, [1, 0])
    )
    found = collect(network(model), ["none", "logits"], samples(), OnnxRuntimeBackend(1))
    assert found["none"].counts.sum() == 0
    assert found["logits"].counts.sum() > 0
    for calibrator in CALIBRATORS:
        for symmetric in (False, True):
            assert ranges_of(found, calibrator, symmetric=symmetric)["none"] == (0, 0)
