"""The best scale of uniform levels for given numbers: exactly where that is cheap, else by alternation."""

from __future__ import annotations

import torch
from torch import Tensor

# Steps up a level that are sorted. More would take gigabytes: a float64 and an index each, several times.
EXACT_EVENTS = 1 << 23
# Alternation starts with the top level at these shares of a row's largest magnitude, and at these
# quantiles of its nonzero magnitudes: one outlier is far above all levels that the others need.
SHARES = tuple(i / 10 for i in range(1, 11))
QUANTILES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)
# So many of the starts go on, for so many turns or until the scale changes by less than this share: the
# error then changes by its square.
BEST, SWEEPS, CONVERGED = 3, 20, 1e-6


def nearest_levels(
    values: Tensor, top: int, least: int = 0, weights: Tensor | None = None
) -> Tensor:
    """Nearest scale × whole numbers for each row of `values` [R, n], each row with its own scale.

    The scale is the optimal one for `top` = 1 and where rows are not too large to sort their steps.

    Args:
        top: levels are −top to top.
        least: the smallest magnitude of a level where the value is not zero; 1: zeros stay, and no others.
        weights: of the squared differences, like `values`.
    """
    sizes = values.abs().double()
    shares = torch.ones_like(sizes) if weights is None else weights.double().expand_as(sizes)
    if top == 1 or sizes.numel() * top <= EXACT_EVENTS:
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
    """The best scale [R, 1] that alternation between levels and scale finds from the best of several
    starts.
    """
    starts = _starts(sizes) / top
    errors = [_error(sizes, scale, top, least, shares) for scale in starts.split(1, 1)]
    first = torch.cat(errors, 1).argsort(1)[:, :BEST]
    found = torch.cat(
        [
            _alternated(sizes, scale, top, least, shares)
            for scale in starts.gather(1, first).split(1, 1)
        ],
        1,
    )
    errors = [_error(sizes, scale, top, least, shares) for scale in found.split(1, 1)]
    return found.gather(1, torch.cat(errors, 1).argmin(1, keepdim=True))


def _starts(sizes: Tensor) -> Tensor:
    """Magnitudes [R, starts] to put the top level at."""
    ordered = sizes.sort(1).values
    zeros = (ordered == 0).sum(1, keepdim=True)
    last = sizes.shape[1] - 1
    places = [zeros + (share * (last - zeros)).round().long() for share in QUANTILES]
    return torch.cat(
        [*(share * ordered[:, -1:] for share in SHARES)]
        + [ordered.gather(1, place.clamp(0, last)) for place in places],
        1,
    )


def _alternated(sizes: Tensor, scale: Tensor, top: int, least: int, shares: Tensor) -> Tensor:
    """Where levels and scale, in turns, lead from a scale [R, 1]."""
    for _ in range(SWEEPS):
        levels = _levels(sizes, scale, top, least)
        weighed = shares * levels
        energy = (weighed * levels).sum(1, keepdim=True)
        fitted = torch.where(energy > 0, (weighed * sizes).sum(1, keepdim=True) / energy, scale)
        if bool(((fitted - scale).abs() <= CONVERGED * scale).all()):
            return fitted
        scale = fitted
    return scale


def _error(sizes: Tensor, scale: Tensor, top: int, least: int, shares: Tensor) -> Tensor:
    """What is left [R, 1] with a scale [R, 1]."""
    left = sizes - scale * _levels(sizes, scale, top, least)
    return (shares * left.square()).sum(1, keepdim=True)


def _levels(sizes: Tensor, scale: Tensor, top: int, least: int) -> Tensor:
    """The nearest whole numbers of scales: 0 to top."""
    levels = torch.where(scale > 0, (sizes / scale).round(), 0.0).clamp(least, top)
    return levels * (sizes > 0)
