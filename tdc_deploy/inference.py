"""Run an artifact on a file of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tdc_deploy.errors import TdcError
from tdc_deploy.files import check_distinct, check_writable, write_whole
from tdc_deploy.npz import npz_bytes
from tdc_deploy.outputs import Outputs, run_samples, scores_name, share_equal
from tdc_deploy.progress import Progress, silent
from tdc_deploy.runtime.session import Session, load
from tdc_deploy.runtime.tensors import TensorInfo
from tdc_deploy.samples import Samples, read_rows

# The batch of a model that takes any.
DEFAULT_BATCH = 16


@dataclass(frozen=True, eq=False)
class Inferred:
    """Outputs by name, one row per sample; accuracy where there are labels and class scores."""

    outputs: Outputs
    samples: int
    batch: int
    accuracy: float | None


def infer(
    artifact: Path,
    inputs: Path,
    output: Path,
    *,
    batch: int | None = None,
    threads: int = 0,
    progress: Progress = silent,
) -> Inferred:
    """Run an `.onnx` file or an engine on an .npz file or folder of .npy files; write an .npz of outputs.

    A last batch that is not full is filled up, and its fill left out of the outputs.

    Args:
        batch: samples at a time, where the artifact leaves it open.

    Raises:
        TdcError: a bad file, inputs that do not fit, or an output that cannot be written; nothing is
            written then.
    """
    if output.suffix != ".npz":
        raise TdcError(f"output {output}", expected="a name that ends in .npz")
    check_writable(output)
    check_distinct([output], [artifact, *(inputs.glob("*") if inputs.is_dir() else [inputs])])
    with load(artifact, threads) as session:
        samples = _samples(session, inputs, batch)
        outputs = run_samples(lambda feeds: _by_name(session, feeds), samples, progress)
    scores = scores_name(outputs, samples)
    classes = None if scores is None else outputs[scores].argmax(1)
    write_whole({output: npz_bytes(outputs)})
    accuracy = share_equal(classes, samples.labels)
    return Inferred(outputs, len(samples), samples.batch, accuracy)


def _samples(session: Session, inputs: Path, batch: int | None) -> Samples:
    read = read_rows(inputs, {info.name: info.shape for info in session.inputs}, 1)
    if not len(read):
        raise TdcError(f"{inputs} holds no samples", expected="at least one")
    return Samples(read.arrays, _batch(session.inputs, batch, len(read)), read.labels)


def _batch(inputs: Sequence[TensorInfo], asked: int | None, count: int) -> int:
    fixed = {info.shape[0] for info in inputs if info.shape and isinstance(info.shape[0], int)}
    if asked is not None and asked < 1:
        raise TdcError(f"a batch of {asked}", expected="1 or more")
    if not fixed:
        limits = [info.maximum[0] for info in inputs if info.maximum]
        return asked or min(DEFAULT_BATCH, count, *limits)
    if len(fixed) > 1:
        raise TdcError(
            f"the inputs have different first dimensions: {sorted(fixed)}",
            expected="the batch size first in every input",
        )
    if asked not in (None, *fixed):
        raise TdcError(f"a batch of {asked}", expected=f"{fixed.pop()}, which the artifact fixes")
    return fixed.pop()


def _by_name(session: Session, feeds: Any) -> dict[str, Any]:
    found = session(feeds)
    return found if isinstance(found, dict) else {session.outputs[0].name: found}
