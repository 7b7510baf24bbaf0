"""A moving average of a model's weights and statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """average ← decay · average + (1 − decay) · model, after each step.

    The decay is (1 + n) / (10 + n) in the first steps n, as long as that is less: the start is
    forgotten soon.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self.steps = 0
        self.average = {name: t.detach().clone() for name, t in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the model's state in."""
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for name, now in model.state_dict().items():
            if now.is_floating_point():
                self.average[name].lerp_(now, 1 - decay)
            else:
                self.average[name].copy_(now)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model with the average's state, inside the block."""
        own: dict[str, Tensor] = {n: t.detach().clone() for n, t in model.state_dict().items()}
        model.load_state_dict(self.average)
        try:
            yield
        finally:
            model.load_state_dict(own)
