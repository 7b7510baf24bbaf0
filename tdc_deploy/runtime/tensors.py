"""What a session says of its inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorInfo:
    """An input or output; sizes that may vary are None or a name.

    An engine's inputs take sizes from `minimum` to `maximum`, both included.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]
    minimum: Shape | None = None
    maximum: Shape | None = None

    def fits(self, shape: Shape) -> bool:
        """Whether an array of this shape can be this tensor."""
        if shape == self.shape:
            return True
        if len(shape) != len(self.shape):
            return False
        declared = zip(shape, self.shape, strict=True)
        if any(isinstance(want, int) and have != want for have, want in declared):
            return False
        if self.minimum is None or self.maximum is None:
            return True
        limits = zip(self.minimum, shape, self.maximum, strict=True)
        return all(low <= size <= high for low, size, high in limits)

    def expected_shape(self) -> str:
        """The shapes that fit, in words."""
        if self.minimum is None or self.minimum == self.maximum:
            return f"{self.shape}"
        return f"{self.minimum} to {self.maximum}"
