from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tdc_deploy.errors import TdcError
from tdc_deploy.samples import Samples
from tdc_deploy.verify import Outputs, compare_outputs, relative_error, run_all

# Sums of a handful of float64 values.
ROUNDING = 1e-12


def column(*values: float) -> NDArray[np.float64]:
    return np.array(values, np.float64)[:, None]


def samples_of(count: int, batch: int = 1, **others: Any) -> Samples:
    return Samples({"x": np.arange(count, dtype=np.float32)[:, None]}, batch, **others)


class PythonRunner:
    """Runs a Python function on the batches that it is fed."""

    def __init__(self, outputs: Any) -> None:
        self.outputs = outputs
        self.fed: list[Any] = []

    def infer(self, feeds: Mapping[str, Any], check_inputs: bool = True) -> Any:
        del check_inputs
        self.fed.append(feeds["x"].copy())
        return self.outputs(feeds["x"])


def test_error_of_hand_made_numbers() -> None:
    # The difference is (0, 1); the reference varies by (-1, 1) around its mean.
    assert abs(relative_error(column(1, 3), column(1, 4)) - 1 / math.sqrt(2)) <= ROUNDING
    assert relative_error(column(1, 3), column(1, 3)) == 0
    # The mean is per element: here each varies by (-1, 1), and one of four is off by 2.
    before = np.array([[10.0, 0.0], [12.0, 2.0]])
    after = np.array([[10.0, 2.0], [12.0, 2.0]])
    assert abs(relative_error(before, after) - 1) <= ROUNDING


def test_error_has_no_unit_and_ignores_an_offset_of_both() -> None:
    rng = np.random.default_rng(0)
    before = rng.standard_normal((8, 3, 4))
    after = before + 0.1 * rng.standard_normal(before.shape)
    error = relative_error(before, after)
    # Rounding at the size of the offset, 1e3, over differences of 0.1.
    assert abs(relative_error(5 * before + 1e3, 5 * after + 1e3) - error) <= 1e-9
    assert 0.05 <= error <= 0.2


@given(
    arrays(np.float64, (6, 3), elements=st.floats(-100, 100)),
    arrays(np.float64, (1, 3), elements=st.floats(-100, 100)),
)
def test_a_network_that_ignores_its_input_has_an_error_of_at_least_one(
    before: NDArray[np.float64], constant: NDArray[np.float64]
) -> None:
    # Something that varies for certain, whatever was drawn.
    before[:, 0] += np.arange(6) * 1e3
    error = relative_error(before, np.broadcast_to(constant, before.shape))
    assert error >= 1 - 1e-9  # rounding of the mean


def test_the_best_constant_has_an_error_of_one() -> None:
    before = np.random.default_rng(1).standard_normal((9, 4)) + 3
    after = np.broadcast_to(before.mean(0), before.shape)
    assert abs(relative_error(before, after) - 1) <= ROUNDING


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_no_finite_error_where_the_output_after_is_not_finite(bad: float) -> None:
    assert relative_error(column(1, 3, 5), column(1, 3, bad)) == math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_reference_that_is_not_finite_is_the_users_to_mend(bad: float) -> None:
    with pytest.raises(TdcError, match="NaN or infinity"):
        relative_error(column(1, bad), column(1, 3))


@pytest.mark.parametrize("noise", [0.0, 1e-9])
def test_an_output_that_does_not_depend_on_the_input_is_refused(noise: float) -> None:
    before = column(5, 5 + noise, 5, 5)
    with pytest.raises(TdcError, match="same for every input"):
        relative_error(before, before)


def test_an_output_of_zeros_is_refused() -> None:
    with pytest.raises(TdcError, match="same for every input"):
        relative_error(column(0, 0), column(0, 1))


def test_cosine_is_the_mean_over_the_inputs() -> None:
    before = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
    after = np.array([[0.0, 1.0], [0.0, 9.0], [-3.0, -4.0], [0.0, 0.0]])
    # Orthogonal, parallel, opposite, and both nothing: 0, 1, -1, 1.
    comparison = compare_outputs({"y": before}, {"y": after}, samples_of(4))
    assert abs(comparison.cosine - 0.25) <= ROUNDING


def test_cosine_of_nothing_with_something_is_zero() -> None:
    before, after = column(0, 0, 1, 2), column(0, 5, 1, 2)
    comparison = compare_outputs({"y": before}, {"y": after}, samples_of(4))
    assert abs(comparison.cosine - 0.75) <= ROUNDING


def test_top1_and_accuracy() -> None:
    before = np.eye(4)
    after = np.eye(4)[[0, 1, 2, 0]]
    labels = np.array([0, 2, 2, 3])
    comparison = compare_outputs({"y": before}, {"y": after}, samples_of(4, labels=labels))
    assert comparison.top1_agreement == 0.75
    assert comparison.accuracy_before == 0.75
    assert comparison.accuracy_after == 0.5
    assert comparison.samples == 4


def test_no_accuracy_without_labels() -> None:
    comparison = compare_outputs({"y": np.eye(4)}, {"y": np.eye(4)}, samples_of(4))
    assert comparison.top1_agreement == 1
    assert comparison.accuracy_before is None
    assert comparison.accuracy_after is None


@pytest.mark.parametrize("shape", [(4, 1), (4, 3, 2, 2), (4, 3, 5)])
def test_no_classes_where_the_output_is_no_score_per_class(shape: tuple[int, ...]) -> None:
    output = np.random.default_rng(0).standard_normal(shape)
    labelled = samples_of(4, labels=np.zeros(4, np.int64))
    comparison = compare_outputs({"y": output}, {"y": output}, labelled)
    assert comparison.top1_agreement is None
    assert comparison.accuracy_before is None


def test_the_worst_output_counts() -> None:
    before = {"a": np.eye(4), "b": 2 * np.eye(4)}
    after = {"a": np.eye(4), "b": 2 * np.eye(4)[::-1]}
    both = compare_outputs(before, after, samples_of(4))
    alone = relative_error(before["b"], after["b"])
    assert both.error == alone
    assert both.cosine == 0
    assert both.top1_agreement == 1  # of the first


def test_whole_numbers_count_by_the_share_that_differs() -> None:
    before: Outputs = {"index": np.array([1, 2, 3, 4]), "y": column(1, 2, 3, 4)}
    after: Outputs = {"index": np.array([1, 2, 3, 8]), "y": column(1, 2, 3, 4)}
    assert compare_outputs(before, after, samples_of(4)).error == 0.25


def test_only_whole_numbers() -> None:
    index = {"index": np.array([1, 2])}
    comparison = compare_outputs(index, index, samples_of(2))
    assert (comparison.error, comparison.top1_agreement) == (0.0, None)


def test_a_constant_output_beside_one_that_varies() -> None:
    """Anchor boxes, say: no error as long as they stay."""
    before: Outputs = {"anchors": column(5, 5), "y": column(1, 2)}
    assert compare_outputs(before, before, samples_of(2)).error == 0
    moved: Outputs = {**before, "anchors": column(5, 6)}
    assert compare_outputs(before, moved, samples_of(2)).error == math.inf
    third: Outputs = {**before, "anchors": column(1 / 3, 1 / 3)}
    rounded: Outputs = {**before, "anchors": column(1 / 3, 1 / 3).astype(np.float16)}
    assert compare_outputs(third, rounded, samples_of(2)).error == 0


def test_the_accuracy_is_of_the_output_that_has_classes() -> None:
    scores = np.array([[1.0, 2.0], [4.0, 3.0]], np.float32)
    outputs: Outputs = {"embedding": column(1, 2), "scores": scores}
    samples = replace(samples_of(2), labels=np.array([1, 1]))
    assert compare_outputs(outputs, outputs, samples).accuracy_before == 0.5
    # One row for all samples is no classification of them.
    whole: Outputs = {"y": column(1, 2), "global": scores[:1]}
    assert compare_outputs(whole, whole, samples).accuracy_before is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"y": column(1, 2)}, {"z": column(1, 2)}),
        ({"y": column(1, 2)}, {"y": column(1, 2), "z": column(1, 2)}),
    ],
)
def test_other_outputs_cannot_be_compared(before: Any, after: Any) -> None:
    with pytest.raises(TdcError, match="before"):
        compare_outputs(before, after, samples_of(2))


def test_a_broken_network_is_infinitely_wrong() -> None:
    after = np.eye(4)
    after[1, 1] = math.nan
    assert compare_outputs({"y": np.eye(4)}, {"y": after}, samples_of(4)).error == math.inf


@pytest.mark.parametrize("real", [True, False])
def test_only_real_inputs_verify(real: bool) -> None:
    comparison = compare_outputs({"y": np.eye(4)}, {"y": np.eye(4)}, samples_of(4, real=real))
    assert comparison.verified is real


def test_all_samples_are_run_once_in_batches() -> None:
    runner = PythonRunner(lambda x: {"y": 2 * x, "z": x[:, 0]})
    outputs = run_all(runner, samples_of(10, batch=4))
    assert [len(fed) for fed in runner.fed] == [4, 4, 4]
    assert np.array_equal(outputs["y"], 2 * np.arange(10)[:, None])
    assert np.array_equal(outputs["z"], np.arange(10))


def test_an_output_without_a_batch_is_one_row_per_batch() -> None:
    runner = PythonRunner(lambda x: {"y": np.array([x.sum(), 1, 2]), "z": np.float32(x.sum())})
    outputs = run_all(runner, samples_of(8, batch=4))
    assert np.array_equal(outputs["y"], [[6, 1, 2], [22, 1, 2]])
    assert np.array_equal(outputs["z"], [6, 22])


def test_outputs_are_kept_even_if_the_runner_reuses_its_memory() -> None:
    buffer = np.zeros((2, 1), np.float32)

    def reuse(x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        buffer[:] = x
        return {"y": buffer}

    outputs = run_all(PythonRunner(reuse), samples_of(4, batch=2))
    assert np.array_equal(outputs["y"], np.arange(4)[:, None])
