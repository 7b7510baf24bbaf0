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
from tdc_deploy.samples import Samples

Outputs = Mapping[str, NDArray[Any]]

# Below this share of its size, an output's variation over the inputs is rounding.
MIN_VARIATION = 1e-6


@dataclass(frozen=True)
class Comparison:
    """How far the network after is from the one before, over `samples` inputs.

    error: norm of the difference over the norm of (output before − its mean over the inputs); the
    largest of the outputs' errors. cosine: mean over the inputs of the outputs' cosine similarity.
    top1_agreement: share of the inputs on which the first output's largest class is the same, and the
    accuracies are shares that match the labels; None where the output is no [N, classes] or there are
    no labels. `verified` is False if the inputs were random.
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
    parts: dict[str, list[NDArray[Any]]] = {}
    for feeds, count in samples.batches():
        for name, value in runner.infer(feeds, check_inputs=False).items():
            array = np.asarray(value)
            # Outputs without a batch dimension (a global score) count as one row a batch.
            rows = array[:count] if array.shape[:1] == (samples.batch,) else array[None]
            parts.setdefault(name, []).append(np.array(rows))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def compare_outputs(before: Outputs, after: Outputs, samples: Samples) -> Comparison:
    """Compare the outputs of two networks on the same samples.

    Raises:
        TdcError: the outputs have other names, or those before do not depend on the input.
    """
    floats = [name for name, value in before.items() if value.dtype.kind == "f"]
    if set(before) != set(after) or not floats:
        raise TdcError(
            f"outputs {sorted(before)} before, {sorted(after)} after",
            expected="the same outputs, at least one of them floating point",
        )
    errors = [relative_error(before[name], after[name]) for name in floats]
    cosines = [_cosine(before[name], after[name]) for name in floats]
    first_before, first_after = before[floats[0]], after[floats[0]]
    classes = first_before.ndim == 2 and first_before.shape[1] > 1
    top_before, top_after = first_before.argmax(-1), first_after.argmax(-1)
    labels = samples.labels if classes else None
    return Comparison(
        error=max(errors),
        cosine=min(cosines),
        top1_agreement=float((top_before == top_after).mean()) if classes else None,
        accuracy_before=None if labels is None else float((top_before == labels).mean()),
        accuracy_after=None if labels is None else float((top_after == labels).mean()),
        samples=len(samples),
        verified=samples.real,
    )


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
    if variation <= MIN_VARIATION * float(np.linalg.norm(reference)):
        raise TdcError(
            "the model's output is the same for every input, so its error means nothing",
            expected="inputs that differ, and a network that depends on them",
            fix="give --inputs with real, different samples",
        )
    difference = float(np.linalg.norm(other - reference)) / variation
    return difference if np.isfinite(difference) else math.inf


def _cosine(before: NDArray[Any], after: NDArray[Any]) -> float:
    a = before.reshape(len(before), -1).astype(np.float64)
    b = after.reshape(len(after), -1).astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = (norms == 0) & (np.abs(a - b).max(1) == 0)
    dots = (a * b).sum(1)
    cosines = np.divide(dots, norms, out=both_zero.astype(np.float64), where=norms > 0)
    return float(cosines.mean())
