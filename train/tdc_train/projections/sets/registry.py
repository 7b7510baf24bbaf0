"""The constraint sets by name, and which layers of a network one is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from tdc_deploy.errors import TdcError, did_you_mean
from tdc_train.conversion import decomposable
from tdc_train.projections.sets.base import ConstraintSet
from tdc_train.projections.sets.levels import PowersOfTwo, UniformLevels
from tdc_train.projections.sets.n_m import NM
from tdc_train.projections.sets.patterns import KernelPatterns
from tdc_train.projections.sets.periodic import Periodic
from tdc_train.projections.sets.sparse_basis import SparseBasis
from tdc_train.projections.sets.ternary import Ternary, TernarySum
from tdc_train.projections.sets.ternary_basis import TernaryBasis
from tdc_train.projections.sets.top_k import TopK

SETS: dict[str, type[ConstraintSet]] = {
    kind.name: kind
    for kind in (
        TopK,
        NM,
        KernelPatterns,
        Periodic,
        SparseBasis,
        TernaryBasis,
        UniformLevels,
        PowersOfTwo,
        Ternary,
        TernarySum,
    )
}
MIN_CHANNELS = 8
# Beside the set's own parameters.
SELECTION = ("name", "skip", "min_channels")


@dataclass(frozen=True)
class ChosenSet:
    """A set as a recipe gives it, for all layers that it takes but those in `skip`, and those of fewer
    input channels than `min_channels` (the first layer, usually).
    """

    member_of: ConstraintSet
    skip: tuple[str, ...] = ()
    min_channels: int = MIN_CHANNELS

    def sets_for(self, model: nn.Module) -> dict[str, ConstraintSet]:
        """Module path → its set, prepared from the weights as they are.

        Raises:
            TdcError: the network lacks a layer to be skipped, or has none for the set.
        """
        layers = decomposable(model)
        for path in self.skip:
            if path not in layers:
                raise TdcError(
                    f"layer {path!r} in skip is none that a set could be for",
                    fix=did_you_mean(path, layers),
                )
        weights = {
            path: layer.weight
            for path, layer in layers.items()
            if path not in self.skip
            and layer.weight.shape[1] >= self.min_channels
            and not self.member_of.why_not(tuple(layer.weight.shape))
        }
        if not weights:
            raise TdcError(
                f"no layer for {self.member_of.describe()}",
                expected="a network of ungrouped convolutions or linear layers of that kind",
                fix="lower min_channels, or take another set",
            )
        return self.member_of.prepared(weights)


def chosen_set(table: Mapping[str, Any]) -> ChosenSet:
    """What a recipe's `set` says.

    Raises:
        TdcError: no such set, an unknown key, or a value out of range.
    """
    own = {key: value for key, value in table.items() if key not in SELECTION[1:]}
    made = make_set(own)
    skip, least = table.get("skip", ()), table.get("min_channels", MIN_CHANNELS)
    if not isinstance(skip, Sequence) or isinstance(skip, str):
        raise TdcError(f"skip is {skip!r}", expected="a list of module paths")
    if not isinstance(least, int) or isinstance(least, bool) or least < 1:
        raise TdcError(f"min_channels is {least!r}", expected="a whole number of at least 1")
    return ChosenSet(made, tuple(map(str, skip)), least)


def make_set(table: Mapping[str, Any]) -> ConstraintSet:
    """A set from its name and parameters; the inverse of `ConstraintSet.table`.

    Raises:
        TdcError: no such set, an unknown key, or a value out of range.
    """
    name = table.get("name")
    if not isinstance(name, str) or name not in SETS:
        raise TdcError(
            f"set name is {name!r}",
            expected=f"one of {', '.join(SETS)}",
            fix=did_you_mean(str(name), SETS),
        )
    kind = SETS[name]
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    for key, value in table.items():
        if key not in known and key != "name":
            raise TdcError(
                f"set {name} has unknown key {key!r}",
                expected=f"one of {', '.join([*known, *SELECTION[1:]])}",
                fix=did_you_mean(key, [*known, *SELECTION[1:]]),
            )
        if key in known and not _fits(value, str(known[key].type)):
            raise TdcError(f"{key} of set {name} is {value!r}", expected=str(known[key].type))
    return kind(**{key: _tuples(value) for key, value in table.items() if key != "name"})


def _fits(value: object, wanted: str) -> bool:
    """Flags and lists; the sets look at their numbers and names themselves."""
    if wanted == "bool":
        return isinstance(value, bool)
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return is_list == (wanted not in ("int", "float", "str"))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value
