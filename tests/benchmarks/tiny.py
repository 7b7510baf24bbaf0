"""Small networks in the place of the benchmarks' own, with time by arithmetic."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import plan_quality
from benchmarks.networks import registry
from benchmarks.networks.registry import Network
from tests.fakes import FakeTime

SIZE = 24

# Ranks [r_out, r_in]; the last entry is a linear layer's, as the authors' tables have them.
RANKS = {
    "conv2.weight": [8, 16],
    "conv3.weight": [16, 24],
    "fc.weight": [8],
}

# A table that spends its error badly: a plan for its error is faster, however rough the estimates are.
WASTEFUL = {**RANKS, "conv2.weight": [24, 8], "conv3.weight": [16, 12]}


class TinyNet(nn.Module):
    """Three convolutions with BatchNorm; images [N, 3, 24, 24] → logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        for i, (c_in, c_out) in enumerate(((3, 16), (16, 32), (32, 32)), 1):
            self.add_module(f"conv{i}", nn.Conv2d(c_in, c_out, 3, 1, 1, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(c_out))
        self.fc = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in (1, 2, 3):
            x = torch.relu(self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(x)))
        logits: torch.Tensor = self.fc(x.mean((2, 3)))
        return logits


def tiny_networks(
    folder: Path, patch: pytest.MonkeyPatch, ranks: Mapping[str, list[int]] = RANKS
) -> FakeTime:
    """NETWORKS holds a tiny network twice: as `resnet18` with a table of ranks, as `plain` without."""
    table = folder / "ranks.json"
    table.write_text(json.dumps({"models": {"resnet18": ranks}}))
    patch.setattr("benchmarks.plans.RANK_FILE", table)
    for name in list(registry.NETWORKS):
        patch.delitem(registry.NETWORKS, name)
    patch.setitem(registry.NETWORKS, "resnet18", Network(TinyNet, SIZE, table="resnet18"))
    patch.setitem(registry.NETWORKS, "plain", Network(TinyNet, SIZE))
    time = FakeTime(patch)
    patch.setattr(plan_quality, "compare_fresh", time._compare_fresh)
    return time
