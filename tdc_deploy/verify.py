"""Compare what two networks put out for the same inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from polygraphy.backend.base import BaseRunner

from tdc_deploy.errors import TdcError
from tdc_deploy.outputs import run_samples, scores_name, share_equal
from tdc_deploy.samples import Samples

Outputs = Mapping[str, NDArray[Any]]

# Below this share of its size, an output's variation over the inputs is rounding.
MIN_VARIATION = 1e-6

# A constant output that moves by no more than this share of it has only been rounded differently.
SAME = 1e-5


@dataclass(frozen=True)
class Comparison:
    """How far the network after is from the one before, over `samples` inputs.

    error: norm of the difference over the norm of (output before − its mean over the inputs), for
    integer outputs the share that differs; the largest of the outputs' errors. cosine: mean over the
    inputs of the float outputs' cosine similarity, the least of them. top1_agreement: share of the
    inputs on which the largest class of the first output [N, classes] is the same, and the accuracies
    are shares that match the labels; None where there is no such output, or there are no labels.
    `verified` is False if the inputs were random.
    """

    error: float
    cosine: float
    top1_agreement: float | None
    accuracy_before: float | None
    accuracy_after: float | None
    samples: int
    verified: bool


def run_all(runner: BaseRunner, samples: Samples) -> Outputs:
    """Every output over all samples, [N, ...], from an active runner."""
    return run_samples(lambda feeds: runner.infer(feeds, check_inputs=False), samples)


def compare_outputs(before: Outputs, after: Outputs, samples: Samples) -> Comparison:
    """Compare the outputs of two networks on the same samples.

    Raises:
        TdcError: the outputs have other names, or those before do not depend on the input.
    """
    if set(before) != set(after) or not before:
        raise TdcError(
            f"outputs {sorted(before)} before, {sorted(after)} after", expected="the same outputs"
        )
    errors = {name: output_error(name, before[name], after[name]) for name in before}
    if not vary(before):
        raise _constant_output()
    floats = [name for name, value in before.items() if value.dtype.kind == "f"]
    scores = scores_name(before, samples)
    top_before = None if scores is None else before[scores].argmax(1)
    top_after = None if scores is None else after[scores].argmax(1)
    return Comparison(
        error=max(errors.values()),
        cosine=min((_cosine(before[name], after[name]) for name in floats), default=1.0),
        top1_agreement=share_equal(top_before, top_after),
        accuracy_before=share_equal(top_before, samples.labels),
        accuracy_after=share_equal(top_after, samples.labels),
        samples=len(samples),
        verified=samples.real,
    )


def vary(outputs: Outputs) -> bool:
    """Whether some output depends on the input, so that an error means something."""
    return any(_varies(value) for value in outputs.values())


def output_error(name: str, before: NDArray[Any], after: NDArray[Any]) -> float:
    """The error of one output: relative for floats, the share of elements that differ for the rest.

    A float output that is the same for every input (anchor boxes, say) has none if it stays as it is.
    """
    if before.shape != after.shape:
        raise TdcError(
            f"output {name!r} has shape {before.shape} before and {after.shape} after",
            expected="outputs whose size does not depend on the values",
        )
    if before.dtype.kind != "f":
        return float((before != after).mean()) if before.size else 0.0
    if np.isfinite(before).all() and not _varies(before):
        share = max(SAME, float(np.finfo(after.dtype).eps))  # it may be put out in float16
        largest = float(np.abs(before).max(initial=0))
        same = np.allclose(before, after, rtol=share, atol=share * largest)
        return 0.0 if same else math.inf
    return relative_error(before, after)


def relative_error(before: NDArray[Any], after: NDArray[Any]) -> float:
    """‖after − before‖ / ‖before − mean over the inputs of before‖.

    Against the bare output, a network that ignores its input would look perfect.

    Raises:
        TdcError: `before` does not depend on the input, or is not finite.
    """
    reference, other = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if not np.isfinite(reference).all():
        raise TdcError(
            "the model's own output holds NaN or infinity on these inputs",
            fix="check the inputs' preprocessing, or the weights",
        )
    variation = float(np.linalg.norm(reference - reference.mean(0)))
    if not _varies(reference):
        raise _constant_output()
    difference = float(np.linalg.norm(other - reference)) / variation
    return difference if np.isfinite(difference) else math.inf


def _constant_output() -> TdcError:
    return TdcError(
        "the model's output is the same for every input, so its error means nothing",
        expected="inputs that differ, and a network that depends on them",
        fix="give --inputs with real, different samples",
    )


def _varies(values: NDArray[Any]) -> bool:
    """Whether an output [N, ...] differs between its rows by more than rounding."""
    exact = np.asarray(values, np.float64)
    spread = float(np.linalg.norm(exact - exact[:1]))
    return bool(spread > MIN_VARIATION * float(np.linalg.norm(exact)))


def _cosine(before: NDArray[Any], after: NDArray[Any]) -> float:
    a = before.reshape(len(before), -1).astype(np.float64)
    b = after.reshape(len(after), -1).astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = (norms == 0) & (np.abs(a - b).max(1) == 0)
    dots = (a * b).sum(1)
    cosines = np.divide(dots, norms, out=both_zero.astype(np.float64), where=norms > 0)
    return float(cosines.mean())
