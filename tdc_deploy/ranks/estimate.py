"""Ranks from the weights alone: no times, no inputs, no training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tdc_deploy.errors import TdcError
from tdc_deploy.ranks.candidates import MAX_MACS, candidate_errors
from tdc_deploy.ranks.vbmf import kernel_ranks
from tdc_deploy.tucker import chain_cost, dense_cost
from tdc_deploy.types import DENSE, Candidate, ConvLayer, Ranks

Estimate = Callable[[ConvLayer, NDArray[np.floating]], Candidate]
"""From a layer and its kernel [M, C, kh, kw] to the candidate chosen, its error filled in."""

STEP = 8


def by_vbmf(step: int = STEP) -> Estimate:
    """The ranks that variational Bayes finds (`kernel_ranks`), rounded up to a multiple of `step`.

    Rounding up also keeps a layer in which it sees nothing but noise from being cut to nothing.
    """
    _check_step(step)

    def estimate(layer: ConvLayer, weight: NDArray[np.floating]) -> Candidate:
        r_in, r_out = (max(1, -(-rank // step)) * step for rank in kernel_ranks(weight))
        return _with_error(weight, _candidate(layer, r_in, r_out))

    return estimate


def by_energy(energy: float, step: int = STEP) -> Estimate:
    """The cheapest ranks, multiples of `step`, that keep this share of the kernel's energy ‖W‖²."""
    if not 0 < energy < 1:
        raise TdcError(f"energy is {energy}", expected="a share above 0 and below 1")
    _check_step(step)

    def estimate(layer: ConvLayer, weight: NDArray[np.floating]) -> Candidate:
        offered = _every_candidate(layer, step)
        errors = candidate_errors(weight, offered, None)
        kept = [
            replace(candidate, error=error)
            for candidate, error in zip(offered, errors, strict=True)
            if error <= 1 - energy
        ]
        return min(kept, key=lambda c: (chain_cost(layer, c).macs, c.error), default=DENSE)

    return estimate


def _every_candidate(layer: ConvLayer, step: int) -> list[Candidate]:
    ranks_in, ranks_out = (
        [*range(step, channels, step), channels] for channels in (layer.c_in, layer.c_out)
    )
    if layer.is_pointwise:
        pairs = [(rank, rank) for rank in ranks_in if rank < min(layer.c_in, layer.c_out)]
    else:
        pairs = [(r_in, r_out) for r_in in ranks_in for r_out in ranks_out]
    found = (_candidate(layer, *pair) for pair in pairs)
    return [candidate for candidate in found if candidate.form != "dense"]


def _candidate(layer: ConvLayer, r_in: int, r_out: int) -> Candidate:
    """The form that has these ranks, a rank of all channels being none; dense if that is no cheaper."""
    c, m = layer.c_in, layer.c_out
    if layer.is_pointwise:
        rank = max(r_in, r_out)
        found = Candidate("svd", Ranks(rank, rank)) if rank < min(c, m) else DENSE
    elif r_in < c and r_out < m:
        found = Candidate("tucker2", Ranks(r_in, r_out), "fused")
    elif r_in < c:
        found = Candidate("tucker_in", Ranks(r_in, m))
    else:
        found = Candidate("tucker_out", Ranks(c, r_out)) if r_out < m else DENSE
    cheap = chain_cost(layer, found).macs <= MAX_MACS * dense_cost(layer).macs
    return found if cheap else DENSE


def _with_error(weight: NDArray[np.floating], candidate: Candidate) -> Candidate:
    return replace(candidate, error=candidate_errors(weight, [candidate], None)[0])


def _check_step(step: int) -> None:
    if step < 1:
        raise TdcError(f"step is {step}", expected="a whole number of at least 1")
