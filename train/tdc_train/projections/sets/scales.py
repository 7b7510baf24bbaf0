"""The best scale of uniform levels for given numbers: exactly where that is cheap, else by alternation."""

from __future__ import annotations

import torch
from torch import Tensor

# Sorting more than this takes longer than the alternation is worth.
EXACT_EVENTS = 1 << 21
STARTS, SWEEPS = 12, 20


def nearest_levels(
    values: Tensor, top: int, least: int = 0, weights: Tensor | None = None
) -> Tensor:
    """Nearest scale × whole numbers for each row of `values` [R, n], each row with its own scale.

    Args:
        top: levels are −top to top.
        least: the smallest magnitude of a level where the value is not zero; 1: zeros stay, and no others.
        weights: of the squared differences, like `values`.
    """
    sizes = values.abs().double()
    shares = torch.ones_like(sizes) if weights is None else weights.double().expand_as(sizes)
    if sizes.numel() * top <= EXACT_EVENTS:
        scale = exact_scale(sizes, top, least, shares)
    else:
        scale = alternated_scale(sizes, top, least, shares)
    return (values.sign() * scale * _levels(sizes, scale, top, least)).to(values.dtype)


def exact_scale(sizes: Tensor, top: int, least: int, shares: Tensor) -> Tensor:
    """The optimal scale [R, 1] of magnitudes [R, n].

    As the scale falls, one magnitude after the other moves up a level: |w| moves from q − 1 to q where the
    scale is |w| / (q − ½). With the levels fixed the best scale is Σ|w|q / Σq², and its gain
    (Σ|w|q)² / Σq²; the best of all assignments on the way is the optimum. With one level this is the exact
    ternary projection: sort |w|, take the k that maximises (Σ top-k)² / k.
    """
    level = torch.arange(1, top + 1, dtype=torch.float64, device=sizes.device)
    there = (sizes > 0).double() * shares
    moments = sizes[..., None] / (level - 0.5)
    if least:
        moments[..., 0] = torch.where(sizes > 0, torch.inf, moments[..., 0])
    order = moments.flatten(1).argsort(dim=-1, descending=True, stable=True)
    gained = (
        (sizes * shares)[..., None].expand(*sizes.shape, top).flatten(1).gather(1, order).cumsum(1)
    )
    spent = (there[..., None] * (2 * level - 1)).flatten(1).gather(1, order).cumsum(1)
    gain = gained.square() / spent.clamp_min(torch.finfo(torch.float64).tiny)
    if least:
        # Assignments that leave a forced one at zero do not count.
        steps = torch.arange(1, gain.shape[1] + 1, device=gain.device)
        gain = gain.masked_fill(steps < (sizes > 0).sum(-1, keepdim=True), -1.0)
    best = gain.argmax(1, keepdim=True)
    found = gained.gather(1, best) / spent.gather(1, best)
    return torch.where(spent.gather(1, best) > 0, found, 0.0)


def alternated_scale(sizes: Tensor, top: int, least: int, shares: Tensor) -> Tensor:
    """The best scale [R, 1] that alternation between levels and scale finds from several starts."""
    largest = sizes.amax(1, keepdim=True)
    best, error = largest / top, None
    for share in torch.linspace(0.2, 1.0, STARTS).tolist():
        scale = largest / top * share
        for _ in range(SWEEPS):
            levels = _levels(sizes, scale, top, least)
            energy = (shares * levels.square()).sum(1, keepdim=True)
            fitted = (shares * sizes * levels).sum(1, keepdim=True) / energy
            scale = torch.where(energy > 0, fitted, scale)
        left = shares * (sizes - scale * _levels(sizes, scale, top, least)).square()
        total = left.sum(1, keepdim=True)
        better = total < error if error is not None else torch.ones_like(total, dtype=torch.bool)
        best = torch.where(better, scale, best)
        error = total if error is None else torch.minimum(total, error)
    return best


def _levels(sizes: Tensor, scale: Tensor, top: int, least: int) -> Tensor:
    """The nearest whole numbers of scales: 0 to top."""
    levels = torch.where(scale > 0, (sizes / scale).round(), 0.0).clamp(least, top)
    return levels * (sizes > 0)
