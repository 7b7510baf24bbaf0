"""What a model takes, as the readers need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tdc_deploy.graph.shapes import Shapes
from tdc_deploy.samples import batch_size, input_types
from tdc_deploy.source import Source


@dataclass(frozen=True, eq=False)
class InputSpec:
    """Types and shapes of a model's inputs, by name; the first dimension of each is the batch.

    Raises:
        TdcError: the inputs do not share their first dimension.
    """

    types: Mapping[str, np.dtype[Any]]
    shapes: Shapes

    def __post_init__(self) -> None:
        batch_size(self.shapes)

    @property
    def batch(self) -> int:
        """Samples in one run of the model."""
        return batch_size(self.shapes)


def input_spec(source: Source) -> InputSpec:
    """The inputs of a model, at the shapes that it is planned at."""
    return InputSpec(input_types(source.network.graph), source.inputs)
