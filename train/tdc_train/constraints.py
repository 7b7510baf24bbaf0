"""Which constraint sets a network's weights are drawn to, and which they are held in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tdc_deploy.errors import TdcError
from tdc_train.conversion import decomposable
from tdc_train.projections.sets import ConstraintSet, make_set, obeys_n_m
from tdc_train.projections.sets.base import FLOAT_BITS


@dataclass(frozen=True)
class Constraints:
    """Module path → set, prepared.

    Attributes:
        aim: what ADMM draws the weights to; they are not in it yet.
        held: what they have been projected to, and stay in.
    """

    aim: Mapping[str, ConstraintSet] = field(default_factory=dict)
    held: Mapping[str, ConstraintSet] = field(default_factory=dict)

    @torch.no_grad()
    def projected(self, model: nn.Module) -> Constraints:
        """Project the model's weights to the aim, in place; it is held from now on."""
        settled = {}
        for path, weight in weights_of(model, self.aim).items():
            settled[path] = self.aim[path].settled(weight)
            weight.copy_(self.aim[path](weight))
        return Constraints({}, {**self.held, **settled})

    def to_json(self) -> dict[str, Any] | None:
        """Plain values; None if there are no sets."""
        if not self.aim and not self.held:
            return None
        parts = {"aim": self.aim, "held": self.held}
        return {
            part: {path: made.table() for path, made in sets.items()}
            for part, sets in parts.items()
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Constraints:
        """The inverse of `to_json`.

        Raises:
            TdcError: sets that are not known.
        """
        found = {
            part: {path: make_set(table) for path, table in (data or {}).get(part, {}).items()}
            for part in ("aim", "held")
        }
        return cls(**found)


def weights_of(model: nn.Module, sets: Mapping[str, ConstraintSet]) -> dict[str, nn.Parameter]:
    """Module path → the weight that a set is for.

    Raises:
        TdcError: the model has no such layer.
    """
    layers = decomposable(model)
    for path in sets:
        if path not in layers:
            raise TdcError(
                f"a constraint for layer {path!r}, which the model lacks",
                expected=f"one of {', '.join(layers)}",
            )
    return {path: layers[path].get_parameter("weight") for path in sets}


def sizes(model: nn.Module, held: Mapping[str, ConstraintSet]) -> dict[str, Any]:
    """What the network's weights take, plain values: of each held layer and of all.

    `bits` count all parameters and BatchNorm's statistics, float32 unless a set holds them; how a set's are
    counted its class says. `macs_share` is of the layer's dense multiply-adds; `tensorrt_sparse` tells
    whether TensorRT's sparse kernels take the dense weight (2:4, whatever the set is).
    """
    layers, saved = {}, 0
    for path, weight in weights_of(model, held).items():
        found = held[path].footprint(weight.detach())
        saved += found.dense_bits - found.bits
        layers[path] = {
            "set": held[path].describe(),
            "value_bits": found.value_bits,
            "index_bits": found.index_bits,
            "shared_bits": found.shared_bits,
            "dense_bits": found.dense_bits,
            "macs_share": found.macs / found.dense_macs,
            "tensorrt_sparse": obeys_n_m(weight.detach()),
        }
    tensors = [*model.parameters(), *model.buffers()]
    dense = FLOAT_BITS * sum(t.numel() for t in tensors if t.is_floating_point())
    return {
        "layers": layers,
        "bits": dense - saved,
        "dense_bits": dense,
        "compression": dense / (dense - saved),
    }


def constrained_macs(dense: Mapping[str, int], found: Mapping[str, Any]) -> int:
    """Multiply-adds of a network whose layers have these dense ones; of those held `sizes`' shares."""
    shares = {path: layer["macs_share"] for path, layer in found["layers"].items()}
    return round(sum(count * shares.get(path, 1.0) for path, count in dense.items()))


def moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float:
    """‖after − before‖ / ‖before‖ over all weights."""
    apart = sum(
        float((after[name].detach() - value).square().sum(dtype=torch.float64))
        for name, value in before.items()
    )
    total = sum(float(value.square().sum(dtype=torch.float64)) for value in before.values())
    return (apart / total) ** 0.5 if total else 0.0
