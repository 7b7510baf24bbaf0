"""Requests that Triton makes itself before it serves, and the shapes of its CUDA graphs."""

from __future__ import annotations

from typing import Any

from tdc_deploy.errors import TdcError
from tdc_deploy.serving.model import ServedModel, ServedTensor
from tdc_deploy.serving.options import ServingOptions


def add_warmup(config: Any, model: ServedModel, options: ServingOptions) -> None:
    """Add a request of zeros for each batch size that matters, so that the first client need not wait."""
    for size in _batch_sizes(config):
        warmup = config.model_warmup.add(name=f"batch {size}", batch_size=size)
        for entry, tensor in zip(config.input, model.inputs, strict=True):
            data = warmup.inputs[tensor.name]
            data.data_type = entry.data_type
            data.dims.extend(_sizes(tensor, config, options) or [1])
            data.zero_data = True


def add_graph_specs(config: Any, model: ServedModel, options: ServingOptions) -> None:
    """Name the shapes to capture where a size is open; else Triton takes the batch sizes it likes."""
    if all(size > 0 for entry in config.input for size in entry.dims):
        return
    for size in _batch_sizes(config):
        # Without a batch dimension, Triton wants a size of 0 here.
        spec = config.optimization.cuda.graph_spec.add(
            batch_size=size if config.max_batch_size else 0
        )
        for tensor in model.inputs:
            spec.input[tensor.name].dim.extend(_sizes(tensor, config, options))


def _batch_sizes(config: Any) -> list[int]:
    """1, those that the batcher prefers, and the largest; 1 for a model of one fixed batch."""
    if not config.max_batch_size:
        return [1]
    return sorted({1, *config.dynamic_batching.preferred_batch_size, config.max_batch_size})


def _sizes(tensor: ServedTensor, config: Any, options: ServingOptions) -> list[int]:
    """A shape in which every size is known, without the batch."""
    given = options.shapes.get(tensor.name)
    if given is not None and not tensor.takes(given):
        raise TdcError(f"{tensor.name!r} of shape {given}", expected=f"{tensor.shape}")
    skipped = 1 if config.max_batch_size else 0
    shape = (given or tensor.usual or tensor.shape)[skipped:]
    sizes = [size for size in shape if isinstance(size, int)]
    if len(sizes) != len(shape):
        raise TdcError(
            f"{tensor.name!r} has shape {tensor.shape}: no size to warm up with",
            expected="a size for every dimension",
            fix=f"give it: --shapes {tensor.name}:1x3x224x224",
        )
    return sizes


def check_names(model: ServedModel, options: ServingOptions) -> None:
    """Raise TdcError if a shape is given for something that is no input."""
    names = [tensor.name for tensor in model.inputs]
    for name in options.shapes:
        if name not in names:
            raise TdcError(f"{name!r} is no input", expected=", ".join(names))
