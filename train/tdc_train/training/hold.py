"""Training inside constraint sets: zeros that stay zero, and gradients taken at the projected weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tdc_train.constraints import weights_of
from tdc_train.projections.sets import ConstraintSet


class Hold:
    """Keeps a model's weights in their sets while an optimizer moves them.

    Sets of supports: what is zero at the start is zero again after each step. Sets of values: the weights
    that the optimizer moves are free; forward and backward pass, and all evaluation, are at their
    projections, and the gradient is handed straight through (Y. Bengio et al., "Estimating or Propagating
    Gradients Through Stochastic Neurons for Conditional Computation", 2013).

    Args:
        model: its weights are in the sets.
    """

    def __init__(self, model: nn.Module, held: Mapping[str, ConstraintSet]) -> None:
        weights = weights_of(model, held)
        self._sets = {path: kind for path, kind in held.items() if kind.keeps_values}
        self._weights = weights
        self._masks = {
            path: (weights[path].detach() != 0) for path, kind in held.items() if kind.keeps_support
        }

    @contextmanager
    def projected(self) -> Iterator[None]:
        """The model at its projected weights; after it the free ones are back."""
        free = {path: self._weights[path].detach().clone() for path in self._sets}
        self.finish()
        try:
            yield
        finally:
            with torch.no_grad():
                for path, weight in free.items():
                    self._weights[path].copy_(weight)

    @torch.no_grad()
    def after_backward(self) -> None:
        """No gradient where zeros stay: it moves nothing, and clipping shall not count it."""
        for path, mask in self._masks.items():
            weight = self._weights[path]
            if weight.grad is not None:
                weight.grad.masked_fill_(~mask, 0.0)

    @torch.no_grad()
    def after_step(self) -> None:
        """Zeros again where there were zeros."""
        for path, mask in self._masks.items():
            self._weights[path].mul_(mask)

    @torch.no_grad()
    def finish(self) -> None:
        """Leave the model at its projected weights."""
        for path, kind in self._sets.items():
            self._weights[path].copy_(kind(self._weights[path]))

    def state_dict(self) -> dict[str, Any]:
        """The masks: a weight that became zero by chance is not held there."""
        return {"masks": dict(self._masks)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        masks: dict[str, Tensor] = state["masks"]
        self._masks = {path: mask.to(self._masks[path].device) for path, mask in masks.items()}
