"""What a constraint set is: a projection that knows its parameters and what its members cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from tdc_deploy.errors import TdcError
from tdc_train.projections.sets.spaces import FixedZeros, Space

FLOAT_BITS = 32


@dataclass(frozen=True)
class Footprint:
    """What a member of a set takes.

    Attributes:
        value_bits: of the numbers of each weight or coefficient; float32 ones count 32.
        index_bits: of what says where they belong, in the format that the set's docstring names.
        shared_bits: of what many weights share: scales, basis kernels, pattern libraries, supports.
        macs: multiply-adds with nonzero numbers for one output position (a product with ±1 counts as one).
        dense_bits, dense_macs: of the same weight kept dense, in float32.
    """

    value_bits: int
    index_bits: int
    shared_bits: int
    macs: int
    dense_bits: int
    dense_macs: int

    @property
    def bits(self) -> int:
        """All of them."""
        return self.value_bits + self.index_bits + self.shared_bits


class ConstraintSet(ABC):
    """A set of weights [M, C, kh, kw] (of a linear layer: [M, C]), by the map to a nearest member.

    How training stays in it: with `keeps_values` by a forward pass at the projected weights with the
    gradient handed straight through; else, or as well, in a linear `space`, which with `keeps_support` is
    that of the member's zeros. Its fields are its parameters, and plain values.
    """

    name: ClassVar[str]
    keeps_support: ClassVar[bool] = False
    keeps_values: ClassVar[bool] = False

    @torch.no_grad()
    def __call__(self, weight: Tensor) -> Tensor:
        """A nearest member found: same shape, type and device; `weight` stays.

        Raises:
            TdcError: the set has no weights of this shape.
        """
        if reason := self.why_not(tuple(weight.shape)):
            raise TdcError(
                f"{self.describe()} of a weight of shape {tuple(weight.shape)}: {reason}"
            )
        wide = weight.detach().to(torch.promote_types(weight.dtype, torch.float32)).contiguous()
        # Adding zero makes -0.0 a plain zero, which every reader takes for one.
        return (self._nearest(wide).reshape(weight.shape) + 0.0).to(weight.dtype)

    @abstractmethod
    def describe(self) -> str:
        """The set in a few words."""

    def why_not(self, shape: tuple[int, ...]) -> str:
        """Why a weight of this shape has no such constraint, or nothing."""
        return "" if len(shape) >= 2 else "it is no kernel or matrix"

    def prepared(self, weights: Mapping[str, Tensor]) -> dict[str, ConstraintSet]:
        """Each weight's set, with what is taken from the trained weights of all of them."""
        return dict.fromkeys(weights, self)

    def settled(self, weight: Tensor) -> ConstraintSet:  # noqa: ARG002
        """The set as it holds the member that it has for `weight`."""
        return self

    def space(self, member: Tensor) -> Space | None:
        """What training of a member does not leave; None where it may go anywhere."""
        return FixedZeros(member.detach() != 0) if self.keeps_support else None

    @abstractmethod
    def footprint(self, member: Tensor) -> Footprint:
        """What a member takes."""

    @abstractmethod
    def _nearest(self, weight: Tensor) -> Tensor:
        """The member for a float32 or float64 weight."""

    def table(self) -> dict[str, Any]:
        """The set as plain values, which `registry.make_set` takes."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}  # type: ignore[arg-type]
        return {"name": self.name, **values}


def footprint_of(
    member: Tensor,
    *,
    value_bits: int,
    index_bits: int,
    shared_bits: int = 0,
    macs: int | None = None,
) -> Footprint:
    """A footprint beside the dense weight's; without `macs`, one for each nonzero."""
    count = member.numel()
    return Footprint(
        value_bits,
        index_bits,
        shared_bits,
        int(member.count_nonzero()) if macs is None else macs,
        count * FLOAT_BITS,
        count,
    )


def is_3x3(shape: tuple[int, ...]) -> bool:
    """Whether a weight is of 3x3 kernels."""
    return len(shape) == 4 and shape[2:] == (3, 3)


def check_density(name: str, value: object) -> None:
    """Raise TdcError unless it is above 0 and at most 1."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= 1:
        raise TdcError(f"{name} is {value!r}", expected="above 0 and at most 1")


def check_whole(name: str, value: object, least: int, most: int) -> None:
    """Raise TdcError unless it is a whole number from `least` to `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise TdcError(f"{name} is {value!r}", expected=f"a whole number from {least} to {most}")


def check_one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    """Raise TdcError unless it is one of these."""
    if value not in known:
        raise TdcError(f"{name} is {value!r}", expected=f"one of {', '.join(known)}")


def check_share(density: object, scope: object, kept: object) -> None:
    """Raise TdcError unless they say how much stays, of each layer or of the network (`kept_of`)."""
    check_density("density", density)
    check_one_of("scope", scope, ("layer", "network"))
    check_whole("kept", kept, 0, 1 << 62)


def kept_of(density: float, scope: str, kept: int, total: int) -> int:
    """How many of a layer's `total` stay: `kept`, or that share; at least one.

    Raises:
        TdcError: the density is of the network, and the set is not prepared.
    """
    if scope == "network" and not kept:
        raise TdcError("a density of the network for one layer", expected="prepared sets")
    return min(kept, total) or count_of(density, total)


def count_of(density: float, total: int) -> int:
    """How many a share of all is; at least one."""
    return min(total, max(1, round(density * total)))
