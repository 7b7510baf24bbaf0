"""Training inside constraint sets: in a space, or with gradients taken at the projected weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tdc_deploy.errors import TdcError
from tdc_train.constraints import weights_of
from tdc_train.projections.sets import ConstraintSet


class Hold:
    """Keeps a model's weights in their sets while an optimizer moves them.

    Sets with a space: gradients and steps are taken in the one that the weights are in at the start (of
    top-k, what is zero stays zero). Sets of values: the weights that the optimizer moves are free; forward
    and backward pass, and all evaluation, are at their projections, and the gradient is handed straight
    through (Y. Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons for
    Conditional Computation", 2013).

    Args:
        model: its weights are in the sets.
    """

    def __init__(self, model: nn.Module, held: Mapping[str, ConstraintSet]) -> None:
        weights = weights_of(model, held)
        self._sets = {path: kind for path, kind in held.items() if kind.keeps_values}
        self._weights = weights
        spaces = {path: kind.space(weights[path]) for path, kind in held.items()}
        self._spaces = {path: space for path, space in spaces.items() if space is not None}

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
        """No gradient that leads out of a space: it moves nothing, and clipping shall not count it."""
        for path, space in self._spaces.items():
            weight = self._weights[path]
            if weight.grad is not None:
                weight.grad.copy_(space(weight.grad))

    @torch.no_grad()
    def after_step(self) -> None:
        """Back into the spaces."""
        for path, space in self._spaces.items():
            self._weights[path].copy_(space(self._weights[path]))

    @torch.no_grad()
    def finish(self) -> None:
        """Leave the model at its projected weights."""
        for path, kind in self._sets.items():
            self._weights[path].copy_(kind(self._weights[path]))

    def state_dict(self) -> dict[str, Any]:
        """The spaces' masks: a weight that became zero by chance is not held there."""
        return {"masks": {path: space.mask for path, space in self._spaces.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken.

        Raises:
            TdcError: it holds other layers.
        """
        masks: dict[str, Tensor] = state["masks"]
        if other := sorted(set(masks) ^ set(self._spaces)):
            raise TdcError(
                f"a checkpoint that holds {', '.join(masks) or 'no layer'}, which differs in {other[0]!r}",
                expected=f"one that holds {', '.join(self._spaces) or 'none'}",
                fix="it is of another version: begin the stage again in a new folder",
            )
        self._spaces = {path: self._spaces[path].with_mask(mask) for path, mask in masks.items()}
