"""The rows of a report's layers: what each layer was, what it became, and why it stays if it does."""

from __future__ import annotations

from dataclasses import replace

from tdc_deploy.inspection import Entry, layer_entries
from tdc_deploy.plan_file import Plan
from tdc_deploy.ranks.table import CostTable, Row, latency
from tdc_deploy.report.data import LayerReport
from tdc_deploy.source import Source


def layer_reports(
    source: Source, fused: set[str], plan: Plan | None, table: CostTable | None, shipped: bool
) -> tuple[LayerReport, ...]:
    """Every convolution and chain of the source in graph order.

    `fused` are the source's own fused operators; `shipped` is False where the source is shipped as it is.
    """
    entries = {entry.layer.name: entry for entry in layer_entries(source, fused)}
    rows = {
        name: _chain(entry, shipped) if entry.kind != "conv" else _conv(entry, plan, table)
        for name, entry in entries.items()
    }
    unknown = [
        LayerReport(name, None, None, None, None, None, conv.reason)
        for name, conv in source.convs.items()
        if conv.layer is None
    ]
    return (*rows.values(), *unknown)


def _chain(entry: Entry, shipped: bool) -> LayerReport:
    after = replace(entry.form, implementation="fused") if shipped else entry.form
    came = "came in fused" if entry.form.implementation == "fused" else "came in as a chain"
    why = f"{came}, now one operator" if after != entry.form else came
    return LayerReport(entry.layer.name, entry.layer, entry.form, after, None, None, why)


def _conv(entry: Entry, plan: Plan | None, table: CostTable | None) -> LayerReport:
    name = entry.layer.name
    choice = None if plan is None else plan.layers.get(name)
    if choice is None:
        why = entry.note.removeprefix("stays dense: ") or "not planned"
        return LayerReport(name, entry.layer, entry.form, entry.form, None, None, why)
    candidate = choice.candidate
    dense = candidate.form == "dense"
    as_it_is = dense and candidate.precision != "int8"
    why = _why_dense(None if table is None else table.rows.get(name)) if as_it_is else ""
    after_ms = choice.dense_ms if as_it_is else candidate.latency_ms
    return LayerReport(name, entry.layer, entry.form, candidate, choice.dense_ms, after_ms, why)


def _why_dense(row: Row | None) -> str:
    if row is None:
        return "the plan leaves it dense"
    if len(row.candidates) == 1:
        return "no other form was found to be faster"
    most = row.dense_ms - min(map(latency, row.candidates))
    return f"saves {most:.3g} ms at most: not worth the error"
