"""Checks of single values of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args

from tdc_deploy.errors import TdcError
from tdc_deploy.types import check_number


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raise TdcError unless the value is one of a Literal's."""
    if value not in get_args(choices):
        raise TdcError(f"{name} is {value!r}", expected=f"one of {', '.join(get_args(choices))}")


def check_whole(name: str, value: object, least: int = 0) -> None:
    """Raise TdcError unless the value is a whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise TdcError(f"{name} is {value!r}", expected=f"a whole number of at least {least}")


def check_share(name: str, value: object) -> None:
    """Raise TdcError unless the value is a number from 0 to below 1."""
    check_number(name, value)
    if value >= 1:  # type: ignore[operator]
        raise TdcError(f"{name} is {value!r}", expected="at least 0 and below 1")


def check_types(owner: object) -> None:
    """Raise TdcError where a text, a flag or a table of a section is of another type."""
    types: dict[str, type | tuple[type, ...]] = {"str": str, "bool": bool}
    types |= {"str | None": (str, type(None)), "Mapping[str, Any]": Mapping}
    for entry in fields(owner):  # type: ignore[arg-type]
        value, wanted = getattr(owner, entry.name), types.get(str(entry.type))
        if wanted is not None and not isinstance(value, wanted):
            raise TdcError(f"{entry.name} is {value!r}", expected=str(entry.type))
