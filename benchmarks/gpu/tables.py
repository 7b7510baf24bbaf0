"""The benchmark's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.gpu.targets import (
    Verdict,
    best,
    core_verdict,
    geometric_mean,
    layer_verdicts,
    pick_over_best,
    share_of_roofline,
    speedup,
    speedup_over_tdc,
)
from tdc_deploy.cli.output import Output

Entry = dict[str, Any]

LAYER_HEADERS = (
    *("layer", "times", "floor us", "ours us", "of floor", "pick", "chain us", "faster"),
    *("dense us", "faster", "tactic", "best chain"),
)
CORE_HEADERS = ("C-N-size", "ours us", "TDC us", "faster", "core us", "tactic", "TDC's tile")
WORDS = {True: "met", False: "MISSED", None: "not measured"}


def print_results(out: Output, entries: Mapping[str, Entry]) -> None:
    """Everything that is there: a table for each precision and batch, then the targets."""
    layers = [(key, entry) for key, entry in entries.items() if "chain" in entry]
    groups = {(entry["precision"], entry["batch"]) for _, entry in layers}
    for precision, batch in sorted(groups):
        of_group = [
            (key, entry)
            for key, entry in layers
            if (entry["precision"], entry["batch"]) == (precision, batch)
        ]
        _print_layers(out, f"{precision}, batch {batch}", of_group)
    cores = [(key, entry) for key, entry in entries.items() if "tdc" in entry]
    if cores:
        rows = [_core_row(key, entry) for key, entry in cores]
        out.table(
            CORE_HEADERS,
            rows,
            title="\nTDC's cores, fp32: our chain, TDC's scheme, its core",
        )
    for precision in sorted({precision for precision, _ in groups}):
        of_precision = [entry for _, entry in layers if entry["precision"] == precision]
        _print_verdicts(out, precision, layer_verdicts(of_precision))
    _print_verdicts(out, "TDC", [core_verdict([entry for _, entry in cores])])
    _print_failures(out, entries)


def _print_layers(out: Output, title: str, layers: Sequence[tuple[str, Entry]]) -> None:
    out.table(LAYER_HEADERS, [_layer_row(key, entry) for key, entry in layers], title=f"\n{title}")
    for kind in ("chain", "dense"):
        values = [v for _, entry in layers if (v := speedup(entry, kind)) is not None]
        if values:
            mean = geometric_mean(values)
            out.text(f"geometric mean over the best {kind}: {mean:.2f} ({len(values)} layers)")


def _layer_row(key: str, entry: Entry) -> tuple[object, ...]:
    ours, chain, dense = entry["ours"], best(entry, "chain"), best(entry, "dense")
    return (
        key.split("/b")[0],
        len(entry["names"]),
        _us(entry["floor_us"]),
        _us(ours["us"]),
        _ratio(share_of_roofline(entry)),
        _ratio(pick_over_best(entry)),
        _us(chain and chain[1]),
        _ratio(speedup(entry, "chain")),
        _us(dense and dense[1]),
        _ratio(speedup(entry, "dense")),
        ours.get("tactic", "none is right"),
        chain[0] if chain else "-",
    )


def _core_row(key: str, entry: Entry) -> tuple[object, ...]:
    ours, tdc = entry["ours"], entry["tdc"]
    return (
        key.split("/")[1],
        _us(ours["us"]),
        _us(tdc["us"]),
        _ratio(speedup_over_tdc(entry)),
        _us(entry["tdc_core"]["us"]),
        ours.get("tactic", "none is right"),
        tdc.get("tactic", "-"),
    )


def _print_verdicts(out: Output, title: str, verdicts: Sequence[Verdict]) -> None:
    rows = [(v.what, v.target, v.measured, WORDS[v.met]) for v in verdicts]
    out.table(("target", "limit", "measured", ""), rows, title=f"\n{title}: ours")


def _print_failures(out: Output, entries: Mapping[str, Entry]) -> None:
    for key, entry in entries.items():
        for tactic, excess in entry["ours"]["wrong"].items():
            out.warn(f"{key}: {tactic} is WRONG, {excess:g} times the error that is allowed")
        for name, error in entry.get("failed", {}).items():
            out.text(f"{key}: {name} was not measured: {error}")


def _us(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
