"""Weights for the tests of constraint sets, and how far they are from members."""

from __future__ import annotations

from typing import Any

import torch
from tdc_train.projections.sets import ConstraintSet

# Sums of at most some thousand float64 squares.
EXACT = 1e-12
# float32 weights of factors fitted in float64, or of scales that are rounded once.
ROUNDED = 1e-6


def kernel(*shape: int, seed: int = 0, dtype: Any = torch.float64) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def distance(weight: Any, member: Any) -> float:
    return float((weight.double() - member.double()).square().sum())


def ready(kind: ConstraintSet, weight: Any) -> ConstraintSet:
    return kind.prepared({"w": weight})["w"]
