"""What ADMM asks of a constraint set."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


class Projection(Protocol):
    """A set of weights, by the map onto it."""

    def __call__(self, weight: Tensor) -> Tensor:
        """A nearest member of the set: same shape, type and device, no gradient; `weight` stays."""

    def describe(self) -> str:
        """The set in a few words, for logs."""


@runtime_checkable
class WarmProjection(Protocol):
    """A projection that is faster where it may start from a member of the set near the answer."""

    def __call__(self, weight: Tensor) -> Tensor:
        """As `Projection`."""

    def describe(self) -> str:
        """As `Projection`."""

    def near(self, weight: Tensor, start: Tensor) -> Tensor:
        """As the call, started from `start`, a member of the set such as the last projection."""
