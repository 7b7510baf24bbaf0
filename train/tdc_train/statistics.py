"""Second moments of what a layer's kernel is multiplied with: the input of a data-aware decomposition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdc_deploy.errors import TdcError
from tdc_train.batches import check_repeatable
from tdc_train.features import module_at
from tdc_train.modes import evaluating

# Patches with more elements than this are looked at by channel only: 4608 (512 channels, 3x3) makes a
# matrix of 170 MB in float64.
MAX_PATCH = 4608

# Bytes of all second moments that are accumulated in one pass over the data.
PASS_BYTES = 2**30

# Elements of unfolded patches at a time.
CHUNK = 2**25


def patch_moments(
    model: nn.Module,
    names: Sequence[str],
    batches: Iterable[Tensor],
    max_patch: int = MAX_PATCH,
) -> dict[str, Tensor]:
    """E[x·xᵀ] over all patches x that each layer's kernel sees, float64, exact.

    A convolution's is [C·kh·kw, C·kh·kw] in the order [C, kh, kw] (the padding's zeros are part of the
    patches: the kernel is multiplied with them too); by channel, [C, C], averaged over the kernel's
    positions, where C·kh·kw is above `max_patch`. A linear layer's is [C, C]. The model is run in eval
    mode, once for as many layers as fit in a gigabyte.

    Args:
        names: module paths of ungrouped Conv2d and Linear layers.
        batches: images [n, C, H, W]; iterated once a pass, one in memory at a time.

    Raises:
        TdcError: no such layer, a grouped one, no images, batches that can be iterated only once, or
            activations that are not finite.
    """
    layers = {name: _checked(model, name) for name in names}
    check_repeatable(batches)
    found: dict[str, Tensor] = {}
    with evaluating(model):
        for group in _groups(layers, max_patch):
            found |= _pass(model, group, batches, max_patch)
    return found


def _checked(model: nn.Module, name: str) -> nn.Conv2d | nn.Linear:
    layer = module_at(model, name)
    if isinstance(layer, nn.Linear):
        return layer
    if not isinstance(layer, nn.Conv2d) or layer.groups > 1:
        raise TdcError(f"{name!r} is {layer}", expected="an ungrouped Conv2d, or a Linear")
    return layer


def _size(layer: nn.Conv2d | nn.Linear, max_patch: int) -> int:
    if isinstance(layer, nn.Linear):
        return layer.in_features
    patch = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
    return patch if patch <= max_patch else layer.in_channels


def _groups(
    layers: Mapping[str, nn.Conv2d | nn.Linear], max_patch: int
) -> Iterator[dict[str, nn.Conv2d | nn.Linear]]:
    group: dict[str, nn.Conv2d | nn.Linear] = {}
    held = 0
    for name, layer in layers.items():
        size = 8 * _size(layer, max_patch) ** 2
        if group and held + size > PASS_BYTES:
            yield group
            group, held = {}, 0
        group[name] = layer
        held += size
    if group:
        yield group


@torch.no_grad()
def _pass(
    model: nn.Module,
    layers: Mapping[str, nn.Conv2d | nn.Linear],
    batches: Iterable[Tensor],
    max_patch: int,
) -> dict[str, Tensor]:
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(layers, 0)

    def add(name: str) -> object:
        def hook(layer: nn.Conv2d | nn.Linear, inputs: tuple[Tensor, ...]) -> None:
            for rows in _rows(layer, inputs[0], max_patch):
                # Products of float32 in float64 are exact: only the sum is rounded.
                wide = rows.double()
                moment = wide.T @ wide
                sums[name] = sums[name].add_(moment) if name in sums else moment
                counts[name] += len(rows)

        return hook

    hooks = [layer.register_forward_pre_hook(add(name)) for name, layer in layers.items()]  # type: ignore[arg-type]
    seen = 0
    try:
        for images in batches:
            model(images)
            seen += len(images)
    finally:
        for handle in hooks:
            handle.remove()
    if not seen:
        raise TdcError("no images to measure second moments on", expected="at least one")
    return {name: _mean(name, sums.get(name), counts[name]) for name in layers}


def _mean(name: str, total: Tensor | None, count: int) -> Tensor:
    if total is None:
        raise TdcError(f"layer {name!r} was not run", expected="a layer that the images go through")
    if not bool(torch.isfinite(total).all()):
        raise TdcError(f"the input of layer {name!r} is not finite", expected="finite activations")
    return total / count


def _rows(layer: nn.Conv2d | nn.Linear, x: Tensor, max_patch: int) -> Iterator[Tensor]:
    """The patches of an input as rows, some images at a time."""
    if isinstance(layer, nn.Linear):
        yield x.reshape(-1, layer.in_features)
        return
    kernel = (layer.kernel_size[0], layer.kernel_size[1])
    positions = kernel[0] * kernel[1]
    by_channel = layer.in_channels * positions > max_patch
    padded = _padded(layer, x)
    elements = layer.in_channels * positions * x.shape[2] * x.shape[3]
    for part in padded.split(max(1, CHUNK // elements)):
        patches = F.unfold(part, kernel, dilation=layer.dilation, stride=layer.stride)
        if by_channel:
            # The mean over positions is the moment of all positions' pixels.
            patches = patches.unflatten(1, (layer.in_channels, positions)).flatten(2)
        yield patches.transpose(1, 2).reshape(-1, patches.shape[1])


def _padded(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """The input with its padding, also `same`, which may be more on one side, and other modes."""
    left_right_top_bottom = layer._reversed_padding_repeated_twice
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(x, left_right_top_bottom, mode=mode)
