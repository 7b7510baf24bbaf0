"""What engines in INT8 need of the stage that calibrates, which this package does not know."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

import onnx

from tdc_deploy.graph.network import Network


@dataclass(frozen=True, eq=False)
class Quantised:
    """A network without fused chains, with `layers` in Q/DQ form.

    `fallen_back` are those that should have been too, and are not for the limits. A layer that was
    decomposed is in INT8 with all of its parts.
    """

    network: Network
    layers: tuple[str, ...]
    fallen_back: tuple[str, ...] = ()
    calibrator: str = ""


class Quantiser(Protocol):
    """Puts layers of one source's networks in Q/DQ form."""

    @property
    def revision(self) -> int:
        """Raised whenever the same layer makes another Q/DQ form."""
        ...

    def __call__(
        self, network: Network, layers: Collection[str] | None, exact: Collection[str]
    ) -> Quantised:
        """The network with these layers in INT8 (None: all), as far as the limits allow; nodes that are
        `exact` are left alone.

        Raises:
            TdcError: it cannot be quantised, or no layer is left in INT8.
        """
        ...

    def trial(self, network: Network, layers: Collection[str], exact: Collection[str]) -> Network:
        """The same for a plan that is tried, in less time, whatever the limits."""
        ...

    def rounding(self, layer: str) -> float | None:
        """The error of the source's output where this layer alone is in INT8; None if it cannot be."""
        ...

    def layer(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A model of one layer in Q/DQ form, from 8 bits to 8 bits."""
        ...

    def describe(self) -> dict[str, Any]:
        """What trials and roundings depend on besides the network."""
        ...
