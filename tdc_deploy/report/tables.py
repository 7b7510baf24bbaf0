"""The page's tables; each scrolls in its own box, so that the page does not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tdc_deploy.report.data import FormReport, LayerReport, Report
from tdc_deploy.report.markup import Html, join, tag
from tdc_deploy.report.text import count, form, ms, number, percent, ranks
from tdc_deploy.types import ConvLayer

Cell = tuple[str, str]
"""A cell's class (`text` or `figure`) and content."""


def layer_table(layers: Sequence[LayerReport]) -> Html:
    """Every layer with its shape, form, ranks, times, error and arithmetic."""
    headers = [
        ("text", "layer"), ("text", "convolution"), ("text", "form"), ("figure", "ranks"),
        ("figure", "ms before"), ("figure", "ms after"), ("figure", "energy lost"),
        ("figure", "MACs"),
    ]  # fmt: skip
    return _table("Layers", headers, [_layer_cells(layer) for layer in layers])


def forms_table(forms: Sequence[FormReport]) -> Html:
    """The forms of one network that were built."""
    headers = [
        ("text", "form"), ("figure", "ms"), ("figure", "ratio"), ("figure", "error"), ("text", "precision"),
    ]  # fmt: skip
    rows = [
        [
            ("text", entry.name), ("figure", ms(entry.time_ms)), ("figure", f"{entry.ratio:.3f}"),
            ("figure", number(entry.error)), ("text", entry.precision),
        ]
        for entry in forms
    ]  # fmt: skip
    return _table("Forms", headers, rows)


def environment(report: Report) -> Html:
    """Device, versions and options, as lists."""
    return tag(
        "div",
        tag("h3", "Device and versions"), _list(report.environment),
        tag("h3", "Options"), _list(report.options or {"options": "none given"}),
        class_="environment",
    )  # fmt: skip


def _list(entries: Mapping[str, str]) -> Html:
    pairs = [
        tag("div", tag("dt", key.strip().replace("_", " ")), tag("dd", value))
        for key, value in entries.items()
    ]
    return tag("dl", *pairs)


def _layer_cells(layer: LayerReport) -> list[Cell]:
    before, after = layer.macs
    lost = layer.after.error if layer.changed and layer.after is not None else None
    return [
        ("text name", layer.name),
        ("text", "–" if layer.layer is None else _convolution(layer.layer)),
        (
            "text",
            join(form(layer.after), tag("small", layer.why)) if layer.why else form(layer.after),
        ),
        ("figure", ranks(layer.after)),
        ("figure", ms(layer.before_ms)),
        ("figure", ms(layer.after_ms)),
        ("figure", percent(lost)),
        ("figure", _macs(before, after)),
    ]


def _macs(before: int, after: int) -> str:
    if not before:
        return "–"
    return count(before) if before == after else f"{count(before)} → {count(after)}"


def _convolution(layer: ConvLayer) -> str:
    """`64 → 128, 3×3 /2, 28×28`."""
    kh, kw = layer.kernel
    stride = (
        "" if layer.strides == (1, 1) else f" /{'×'.join(map(str, dict.fromkeys(layer.strides)))}"
    )
    h, w = layer.in_hw
    text = f"{layer.c_in} → {layer.c_out}, {kh}×{kw}{stride}, {h}×{w}"
    return text if layer.groups == 1 else join(text, tag("small", f"{layer.groups} groups"))


def _table(label: str, headers: Iterable[Cell], rows: Iterable[Sequence[Cell]]) -> Html:
    head = tag("tr", *(tag("th", text, class_=kind, scope="col") for kind, text in headers))
    body = [_row(cells) for cells in rows]
    table = tag("table", tag("caption", label), tag("thead", head), tag("tbody", *body))
    return tag(
        "div", table, class_="scroll", tabindex="0", role="region", aria_label=f"Table: {label}"
    )


def _row(cells: Sequence[Cell]) -> Html:
    (kind, name), *others = cells
    first = tag("th", name, class_=kind, scope="row")
    return tag("tr", first, *(tag("td", text, class_=kind) for kind, text in others))
