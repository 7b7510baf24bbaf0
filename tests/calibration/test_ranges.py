from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tdc_calibration import ranges
from tdc_calibration.ranges import BINS, RangeOf, TensorRange

from tdc_deploy.errors import TdcError

Array = NDArray[Any]


def measured(*batches: Array) -> TensorRange:
    watcher = RangeOf("t")
    for batch in batches:
        watcher.add(batch.astype(np.float32))
    found = watcher.result()
    assert found is not None
    return found


def check(found: TensorRange, values: Array) -> None:
    """The histogram is that of all values at once, over the bins that it ended with."""
    values = values.astype(np.float32)
    expected = np.histogram(values.astype(np.float64), found.edges)[0]
    np.testing.assert_array_equal(found.counts, expected)
    assert found.counts.sum() == values.size
    assert (found.minimum, found.maximum) == (values.min(), values.max())
    assert found.start % found.width == 0
    finest = max(2.0**-126, np.abs(values).max() * 2.0**-23)
    if values.min() < values.max() and found.width > finest:
        assert BINS / 2 < len(found.counts) <= BINS


RNG = np.random.default_rng(0)
GROWING = [
    RNG.standard_normal((4, 3, 5, 5)) * scale + offset
    for scale, offset in [(1, 0), (1e-3, 0), (30, -7), (1, 1e4), (1e6, 0)]
]


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [1, 3], [2], [3, 0, 3]])
def test_growing_loses_nothing(order: list[int]) -> None:
    batches = [GROWING[i] for i in order]
    found = measured(*batches)
    together = np.concatenate(batches)
    check(found, together)
    exact = together.astype(np.float32)
    np.testing.assert_array_equal(found.lowest, exact.min((0, 2, 3)))
    np.testing.assert_array_equal(found.highest, exact.max((0, 2, 3)))


@pytest.mark.parametrize("value", [0.0, 3.7, -1e20, 1e-30])
def test_constants(value: float) -> None:
    constant = np.full((2, 3, 4), value)
    found = measured(constant)
    assert found.counts.tolist() == [24]
    assert found.start <= np.float32(value) < found.start + found.width
    check(measured(constant, GROWING[0]), np.append(constant, GROWING[0]))


def test_signs_and_extremes() -> None:
    huge = float(np.finfo(np.float32).max)
    for batch in ([[-huge, huge]], [[1e-40, 1e-38]], [[-1.0, -0.5]], [[-0.0, 0.0]], [[0.0, 1.0]]):
        check(measured(np.array(batch)), np.array(batch))


def test_only_some_values_are_counted_but_all_are_ranged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "SPREAD", 10)
    values = np.arange(200.0).reshape(2, 2, 50)
    found = measured(values)
    assert found.counts.sum() == 20
    assert (found.minimum, found.maximum) == (0, 199)
    assert found.lowest.tolist() == [0, 50]


def test_tensors_without_channels() -> None:
    assert measured(np.array([1.0, 2.0, 5.0])).lowest.tolist() == [1]
    assert measured(np.array(2.0)).highest.tolist() == [2]
    assert measured(np.ones((2, 0, 3)), np.array([[1.0, 4.0]])).highest.tolist() == [1, 4]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(value: float) -> None:
    with pytest.raises(TdcError, match="tensor 't' holds NaN or infinity"):
        measured(np.array([[1.0, value, 2.0]]))


def test_a_tensor_that_never_has_a_value_has_no_range() -> None:
    watcher = RangeOf("boxes")
    watcher.add(np.zeros((0, 4), np.float32))
    assert watcher.result() is None
    watcher.add(np.ones((1, 4), np.float32))
    found = watcher.result()
    assert found is not None and found.counts.sum() == 4
