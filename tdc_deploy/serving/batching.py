"""Whether a model has a batch dimension that Triton may fill, and how far."""

from __future__ import annotations

from collections.abc import Sequence

from tdc_deploy.errors import TdcError
from tdc_deploy.serving.model import ServedModel, ServedTensor

DEFAULT_MAX_BATCH = 8
"""Where the artifact sets no limit: an ONNX file with an open batch size."""


def max_batch_size(models: Sequence[ServedModel], wanted: int | None) -> int:
    """Triton's max_batch_size: as wanted, else the artifacts' own limit; 0 if the batch is fixed.

    Raises:
        TdcError: more is wanted than the artifacts take.
    """
    if not all(has_batch(model) for model in models):
        if wanted:
            raise TdcError(
                f"max_batch is {wanted}, and {models[0].path} takes one fixed batch",
                expected="an open first dimension in every input and output, from 1 upwards",
                fix="leave --max-batch out, or export the model with an open batch size",
            )
        return 0
    limit = batch_limit(models)
    if wanted is None:
        return DEFAULT_MAX_BATCH if limit is None else limit
    if limit is not None and wanted > limit:
        raise TdcError(
            f"max_batch is {wanted}", expected=f"at most {limit}, which the engine was built for"
        )
    return wanted


def has_batch(model: ServedModel) -> bool:
    """Whether the first dimension of every input and output is open, from 1, and is one and the same."""
    tensors = model.inputs + model.outputs
    if not all(tensor.shape and not isinstance(tensor.shape[0], int) for tensor in tensors):
        return False
    # Exporters name the outputs' sizes as they like; only the inputs' names tell anything.
    names = {tensor.shape[0] for tensor in model.inputs}
    return len(names) == 1 and all(
        tensor.least is None or tensor.least[0] == 1 for tensor in model.inputs
    )


def batch_limit(models: Sequence[ServedModel]) -> int | None:
    """The largest batch that all of the models take, None if they set no limit."""
    limits = [
        tensor.most[0] for model in models for tensor in model.inputs if tensor.most is not None
    ]
    return min(limits) if limits else None


def served_dims(tensor: ServedTensor, batched: bool) -> list[int]:
    """The shape as config.pbtxt gives it: without the batch dimension, -1 where a size is open."""
    shape = tensor.shape[1:] if batched else tensor.shape
    return [size if isinstance(size, int) else -1 for size in shape]
