"""A network, a recipe and a data set that train in a blink."""

from __future__ import annotations

from typing import Any

from tdc_train.models.norms import norm_by_name
from tdc_train.recipe import Recipe
from tdc_train.recipe_file import recipe_from
from torch import Tensor, nn


class TinyNet(nn.Module):
    """Two convolutions, [N, 3, 32, 32] → [N, 10]."""

    def __init__(self, norm: str = "batch", dropout: float = 0.2, channels: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 3, 4, 1)
        self.norm1 = norm_by_name(norm)(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 2, 1)
        self.norm2 = norm_by_name(norm)(channels)
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv1(x)).relu()
        x = self.norm2(self.conv2(x)).relu()
        return self.fc(self.drop(x.mean((2, 3))))  # type: ignore[no-any-return]


class FlatNet(nn.Sequential):
    """A network that takes images of one size only, [N, 3, side, side] → [N, 10]."""

    def __init__(self, side: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3 * side * side, 10))


TINY_DATA = {"train": 64, "val": 32, "test": 32}


def tiny(*stages: dict[str, Any], **more: Any) -> Recipe:
    """A recipe for TinyNet; each stage's epochs, batch and rate are small if not given."""
    usual = {"epochs": 2, "batch": 16, "optimizer": {"lr": 0.05}}
    data: dict[str, Any] = {
        "model": {"name": "tests.train.tiny:TinyNet"},
        "data": {"name": "shapes", "options": TINY_DATA},
        "stages": [{**usual, **stage} for stage in stages or ({"kind": "dense"},)],
        **more,
    }
    return recipe_from(data, "tiny")
