"""Ranks at which the ways to decompose are compared: the same for all of them."""

from __future__ import annotations

import numpy as np

from benchmarks.plans import conv_macs
from tdc_deploy.source import Source
from tdc_deploy.tucker import chain_cost, dense_cost
from tdc_deploy.types import Candidate, Ranks

Selection = dict[str, Candidate]

HALF_OF_MACS = 0.5
STEP = 4

# Stems have too little to gain, and 1x1 convolutions no core.
MIN_CHANNELS = 8


def half_ranks(source: Source, _: Source) -> Selection:
    """Half of the channels on both sides of every layer."""
    return {
        name: Candidate("tucker2", Ranks(layer.c_in // 2, layer.c_out // 2), "fused")
        for name, layer in source.plannable.items()
        if layer.c_in >= MIN_CHANNELS and not layer.is_pointwise
    }


def for_weights(source: Source, _: Source) -> Selection:
    """Those that favour the plain decomposition: half of the MACs, the same loss of kernels' energy."""
    return balanced(source)


def for_data(_: Source, measured: Source) -> Selection:
    """Those that data-aware planning would take: half of the MACs, the same loss of outputs' energy."""
    return balanced(measured)


def balanced(source: Source) -> Selection:
    """The least loss of energy, equal in all layers, at which half of the MACs are left.

    Each layer gets the cheapest pair of ranks, multiples of 4, that loses no more, if it is cheaper than
    the layer. The energy is the kernels', or with statistics the outputs'.
    """
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if macs_share(source, _within(source, middle)) > HALF_OF_MACS:
            low = middle
        else:
            high = middle
    return _within(source, high)


RANKS = {
    "half the MACs": for_weights,
    "half the MACs for the data": for_data,
    "half the ranks": half_ranks,
}
"""Each of a source, and of it with statistics of its inputs."""


def macs_share(source: Source, selection: Selection) -> float:
    """The convolutions' multiply-adds as a share of the dense network's."""
    return conv_macs(source, selection) / conv_macs(source, {})


def _within(source: Source, loss: float) -> Selection:
    selection = {}
    for name, layer in source.plannable.items():
        if layer.c_in < MIN_CHANNELS or layer.is_pointwise:
            continue
        offered = [
            Candidate("tucker2", Ranks(r_in, r_out), "fused")
            for r_in in range(STEP, layer.c_in + 1, STEP)
            for r_out in range(STEP, layer.c_out + 1, STEP)
        ]
        errors = np.array(source.decompositions.errors(name, offered))
        costs = np.array([chain_cost(layer, candidate).macs for candidate in offered])
        allowed = np.flatnonzero(errors <= loss)
        if len(allowed):
            best = allowed[costs[allowed].argmin()]
            if costs[best] < dense_cost(layer).macs:
                selection[name] = offered[best]
    return selection
