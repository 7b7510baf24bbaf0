"""Figures as a person reads them."""

from __future__ import annotations

import math

from tdc_deploy.types import Candidate

# (at least, divided by, suffix)
_SCALES = ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e3, 1e3, "k"), (0.0, 1.0, ""))


def ms(value: float | None) -> str:
    """Milliseconds with three digits that matter, without the unit."""
    if value is None:
        return "–"
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def number(value: float) -> str:
    """Two digits that matter; no exponent where it would still be short."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "∞"
    if value != 0 and abs(value) < 1e-4:
        return f"{value:.0e}"
    return f"{value:.2g}" if abs(value) < 1 else f"{value:.3g}"


def percent(share: float | None) -> str:
    """A share with two digits that matter, or more where it is large."""
    if share is None:
        return "–"
    value = 100 * share
    if not math.isfinite(value):
        return number(value)
    if abs(value) < 10:
        return f"{number(value) if abs(value) < 1 else f'{value:.1f}'}%"
    return f"{value:.0f}%" if value == round(value) or value <= 90 else f"{value:.1f}%"


def count(value: float) -> str:
    """41.2M, 1.19k."""
    for least, unit, suffix in _SCALES:
        if value >= least:
            return f"{value / unit:.3g}{suffix}"
    return f"{value:.3g}"


def size(value: int | None) -> str:
    """Bytes as kB or MB."""
    if value is None:
        return "–"
    return f"{value / 1e6:.3g} MB" if value >= 1e6 else f"{value / 1e3:.3g} kB"


def change(before: float, after: float) -> str:
    """−84%, +3%, or unchanged."""
    if not before or not after or round(100 * after / before) == 100:
        return "unchanged"
    share = after / before - 1
    return f"{'−' if share < 0 else '+'}{abs(100 * share):.0f}%"


def ranks(candidate: Candidate | None) -> str:
    """The ranks that a form has, or a dash."""
    if candidate is None or candidate.ranks is None:
        return "–"
    r_in, r_out = candidate.ranks.r_in, candidate.ranks.r_out
    alone = {"svd": r_in, "tucker_in": r_in, "tucker_out": r_out}.get(candidate.form)
    return f"{r_in} → {r_out}" if alone is None else f"{alone}"


FORMS = {
    "dense": "dense",
    "tucker2": "Tucker-2",
    "tucker_in": "Tucker, inputs",
    "tucker_out": "Tucker, outputs",
    "svd": "SVD",
}


def form(candidate: Candidate | None) -> str:
    """The form in words."""
    if candidate is None:
        return "–"
    fused = ", fused" if candidate.implementation == "fused" else ""
    int8 = ", INT8" if candidate.precision == "int8" else ""
    return FORMS[candidate.form] + fused + int8
