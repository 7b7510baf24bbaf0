"""The normalisation layer of a network, by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from tdc_deploy.errors import TdcError

Norm = Callable[[int], nn.Module]
GROUPS = 8


def _group_norm(channels: int) -> nn.Module:
    if channels % GROUPS:
        raise TdcError(f"norm 'group' with {channels} channels", expected=f"a multiple of {GROUPS}")
    return nn.GroupNorm(GROUPS, channels)


def norm_by_name(norm: str) -> Norm:
    """BatchNorm ("batch") or GroupNorm of 8 groups ("group"): a constructor from channels.

    Group normalisation has no statistics, so that N processes compute what one does.
    """
    kinds: dict[str, Norm] = {"batch": nn.BatchNorm2d, "group": _group_norm}
    if norm not in kinds:
        raise TdcError(f"norm is {norm!r}", expected=" or ".join(map(repr, kinds)))
    return kinds[norm]
