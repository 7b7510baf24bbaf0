"""What the kernels should reach, and whether the results show it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Entry = dict[str, Any]

SPEEDUP_AT_BATCH_1 = 2.0
SPEEDUP_AT_BATCH_32 = 1.5
LEAST_SPEEDUP = 0.9
SHARE_OF_ROOFLINE = 0.6
# Below this floor a launch itself takes longer than the work.
SMALLEST_FLOOR_US = 4.0
PICK_OVER_BEST = 1.15
SPEEDUP_OVER_TDC = 1.3


@dataclass(frozen=True)
class Verdict:
    """A target and what was measured for it; `met` is None where nothing was."""

    what: str
    target: str
    measured: str
    met: bool | None


def geometric_mean(values: Sequence[float]) -> float:
    """NaN of nothing."""
    return math.exp(math.fsum(map(math.log, values)) / len(values)) if values else math.nan


def best(entry: Entry, kind: str) -> tuple[str, float] | None:
    """The fastest competitor of a kind and its microseconds."""
    found = {name: float(figures["us"]) for name, figures in entry.get(kind, {}).items()}
    return min(found.items(), key=lambda item: item[1]) if found else None


def speedup(entry: Entry, kind: str) -> float | None:
    """How many times faster ours is than the best competitor of a kind ("chain" or "dense")."""
    native, ours = best(entry, kind), entry["ours"]["us"]
    return None if native is None or ours is None else native[1] / ours


def share_of_roofline(entry: Entry) -> float | None:
    """The floor over our time."""
    ours = entry["ours"]["us"]
    return None if ours is None else float(entry["floor_us"]) / ours


def pick_over_best(entry: Entry) -> float | None:
    """The time of the model's first pick over that of the best tactic, both by tdc_time."""
    ours = entry["ours"]
    pick = ours.get("pick_tdc_time_us")
    return None if pick is None else float(pick) / ours["tdc_time_us"]


def speedup_over_tdc(entry: Entry) -> float | None:
    """How many times faster ours is than TDC's scheme, both of one chain in fp32."""
    ours, tdc = entry["ours"]["us"], entry["tdc"]["us"]
    return None if ours is None or tdc is None else float(tdc) / ours


def layer_verdicts(entries: Sequence[Entry]) -> list[Verdict]:
    """The targets for layers of one precision."""
    at = {batch: [e for e in entries if e["batch"] == batch] for batch in (1, 32)}
    large = [entry for entry in entries if entry["floor_us"] > SMALLEST_FLOOR_US]
    return [
        _mean("over the best chain, batch 1", _chain(at[1]), SPEEDUP_AT_BATCH_1),
        _mean("over the best chain, batch 32", _chain(at[32]), SPEEDUP_AT_BATCH_32),
        _extreme("slowest layer over the best chain", _chain(entries), LEAST_SPEEDUP, min),
        _extreme(
            f"least share of the roofline, floor > {SMALLEST_FLOOR_US:g} us",
            _known(share_of_roofline, large),
            SHARE_OF_ROOFLINE,
            min,
        ),
        _extreme(
            "model's pick over the best tactic, worst",
            _known(pick_over_best, entries),
            PICK_OVER_BEST,
            max,
        ),
    ]


def core_verdict(entries: Sequence[Entry]) -> Verdict:
    """The target for the 18 cores."""
    return _mean("over TDC's scheme, fp32", _known(speedup_over_tdc, entries), SPEEDUP_OVER_TDC)


def _chain(entries: Sequence[Entry]) -> list[float]:
    return _known(lambda entry: speedup(entry, "chain"), entries)


def _known(figure: Callable[[Entry], float | None], entries: Sequence[Entry]) -> list[float]:
    return [value for entry in entries if (value := figure(entry)) is not None]


def _mean(what: str, values: Sequence[float], least: float) -> Verdict:
    text = f"geometric mean >= {least:g}"
    if not values:
        return Verdict(what, text, "not measured", None)
    mean = geometric_mean(values)
    return Verdict(what, text, f"{mean:.2f} of {len(values)}", mean >= least)


def _extreme(
    what: str, values: Sequence[float], limit: float, extreme: Callable[[Sequence[float]], float]
) -> Verdict:
    text = f"{'>=' if extreme is min else '<='} {limit:g}"
    if not values:
        return Verdict(what, text, "not measured", None)
    value = extreme(values)
    met = value >= limit if extreme is min else value <= limit
    return Verdict(what, text, f"{value:.2f} of {len(values)}", met)
