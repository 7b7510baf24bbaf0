"""Cost tables with made-up numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from tdc_deploy.ranks.candidates import candidate_errors, enumerate_candidates
from tdc_deploy.ranks.table import CostTable, Row, latency
from tdc_deploy.tucker import chain_cost
from tdc_deploy.types import DENSE, Candidate, ConvLayer, Ranks
from tests.helpers import decaying


def conv_layer(
    name: str = "conv",
    c_in: int = 64,
    c_out: int = 64,
    size: int = 3,
    in_hw: tuple[int, int] = (14, 14),
) -> ConvLayer:
    """A convolution that keeps its image's size."""
    pad = size // 2
    return ConvLayer(
        name=name,
        c_in=c_in,
        c_out=c_out,
        kernel=(size, size),
        strides=(1, 1),
        pads=(pad, pad, pad, pad),
        dilations=(1, 1),
        groups=1,
        dtype="float32",
        batch=1,
        in_hw=in_hw,
    )


def row(name: str, dense_ms: float, offers: Sequence[tuple[int, float, float]]) -> Row:
    """Dense and Tucker-2 candidates of (rank, latency, error)."""
    candidates = [
        Candidate("tucker2", Ranks(rank, rank), "fused", error=error, latency_ms=ms)
        for rank, ms, error in offers
    ]
    return Row(conv_layer(name), (replace(DENSE, latency_ms=dense_ms), *candidates))


def random_table(rng: np.random.Generator, layers: int, offers: int) -> CostTable:
    """Layers with offers of random latency and error, the slower ones not always more exact."""
    rows = {}
    for i in range(layers):
        dense_ms = float(rng.uniform(0.1, 1))
        ms = rng.uniform(0.05, 0.95, offers) * dense_ms
        error = rng.uniform(0, 1, offers) ** 2
        rows[f"l{i}"] = row(
            f"l{i}", dense_ms, [(j + 1, float(ms[j]), float(error[j])) for j in range(offers)]
        )
    return CostTable(rows)


@lru_cache
def realistic_table(layers: int = 6, seed: int = 0) -> CostTable:
    """Layers with all their candidates: real errors of made-up kernels, latency by arithmetic."""
    rng = np.random.default_rng(seed)
    rows = {}
    for i in range(layers):
        channels = (32, 64, 96)[i % 3]
        layer = conv_layer(f"l{i}", channels, channels)
        candidates = enumerate_candidates(layer)
        weight = decaying(rng, channels, channels, 3, 3, decay=0.7)
        errors = candidate_errors(weight, candidates, None)
        offered = [
            replace(c, error=error, latency_ms=milliseconds(layer, c))
            for c, error in zip(candidates, errors, strict=True)
        ]
        dense = replace(DENSE, latency_ms=milliseconds(layer, DENSE))
        faster = [c for c in offered if latency(c) < latency(dense)]
        rows[layer.name] = Row(layer, (dense, *faster))
    return CostTable(rows)


def milliseconds(layer: ConvLayer, candidate: Candidate) -> float:
    """10 GMAC/s and 5 µs for every convolution."""
    parts = {"dense": 1, "tucker2": 3}.get(candidate.form, 2)
    return chain_cost(layer, candidate).macs / 1e7 + 0.005 * parts
