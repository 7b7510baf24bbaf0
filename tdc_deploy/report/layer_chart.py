"""The chart of layers: time before and after, energy lost, ranks kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from tdc_deploy.report.canvas import AFTER, BEFORE, INK, LOSS, MUTED, TRIAL, responsive
from tdc_deploy.report.data import LayerReport
from tdc_deploy.report.markup import Html, clean, shortened
from tdc_deploy.report.network_charts import NARROW, WIDE
from tdc_deploy.report.text import form, ms, percent, ranks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Points per layer: one line on a desk; a name with bars below on a phone.
WIDE_ROW, NARROW_ROW = 19, 33
HEADER = 30

Value = Callable[[LayerReport], float]


def layer_chart(layers: Sequence[LayerReport]) -> Html:
    """Bars for every layer, in graph order."""
    sizes = ((WIDE, WIDE_ROW * len(layers) + HEADER), (NARROW, NARROW_ROW * len(layers) + HEADER))
    label = f"Time before and after, energy lost and ranks kept of {len(layers)} layers."
    return responsive(
        lambda f: _wide(f, layers), lambda f: _narrow(f, layers), "layers", sizes, label
    )


def _wide(figure: Figure, layers: Sequence[LayerReport]) -> Mapping[str, str]:
    panels = _panels(figure, [(132, 236), (470, 86), (608, 136)])
    time, loss, kept = panels
    _prepare(time, len(layers), "time alone, ms: before and after")
    _prepare(loss, len(layers), "energy lost")
    _prepare(kept, len(layers), "ranks kept: in, out")
    for row, layer in enumerate(layers):
        time.annotate(
            shortened(clean(layer.name), 23), (0, row), (-132, 0), textcoords="offset points",
            color=INK, va="center", annotation_clip=False,
        )  # fmt: skip
    tips = _times(time, layers, 0.0, 0.62)
    _losses(loss, layers, 0.0, 0.34)
    _ranks(kept, layers)
    return tips


def _narrow(figure: Figure, layers: Sequence[LayerReport]) -> Mapping[str, str]:
    time, loss = _panels(figure, [(2, 92), (178, 34)])
    _prepare(time, len(layers), "ms: before, after")
    _prepare(loss, len(layers), "energy lost")
    for row, layer in enumerate(layers):
        time.annotate(
            shortened(clean(layer.name), 22), (0, row - 0.3), color=INK, va="center", fontsize=8.5,
            annotation_clip=False,
        )  # fmt: skip
        detail = f"{form(layer.after).split(',')[0]} {ranks(layer.after)}".removesuffix("–").strip()
        loss.annotate(
            detail, (1, row - 0.3), xycoords=("axes fraction", "data"), xytext=(28, 0),
            textcoords="offset points", color=MUTED, va="center", ha="right", fontsize=7.5,
            annotation_clip=False,
        )  # fmt: skip
    _losses(loss, layers, 0.17, 0.2)
    return _times(time, layers, 0.17, 0.36)


def _panels(figure: Figure, columns: Sequence[tuple[float, float]]) -> list[Axes]:
    """Axes side by side: (left, width) in points."""
    width, height = (72 * inches for inches in figure.get_size_inches())
    return [
        figure.add_axes((left / width, 4 / height, wide / width, (height - HEADER) / height))
        for left, wide in columns
    ]


def _prepare(axes: Axes, rows: int, title: str) -> None:
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_title(title, color=MUTED, fontsize=8.5, pad=8)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _times(
    axes: Axes, layers: Sequence[LayerReport], offset: float, thickness: float
) -> Mapping[str, str]:
    """Before as a wide pale bar, after as a thin one on it; both as text behind."""
    before = [layer.before_ms or 0.0 for layer in layers]
    after = [layer.after_ms or 0.0 if layer.changed else 0.0 for layer in layers]
    rows = [row + offset for row in range(len(layers))]
    bars = axes.barh(rows, before, thickness, color=BEFORE)
    axes.barh(rows, after, 0.5 * thickness, color=AFTER)
    axes.set_xlim(0, max(*before, *after) or 1)
    tips = {}
    for i, (layer, bar) in enumerate(zip(layers, bars, strict=True)):
        said = "not measured" if layer.before_ms is None else ms(layer.before_ms)
        if after[i]:
            said += f" → {ms(after[i])}"
        _beside(axes, said, max(before[i], after[i]), rows[i], INK if layer.changed else MUTED)
        bar.set_gid(f"tip-before-{i}")
        tips[f"tip-before-{i}"] = f"{layer.name}: {said} ms"
    return tips


def _losses(axes: Axes, layers: Sequence[LayerReport], offset: float, thickness: float) -> None:
    errors = [x.after.error if x.changed and x.after is not None else 0.0 for x in layers]
    axes.barh([row + offset for row in range(len(layers))], errors, thickness, color=LOSS)
    axes.set_xlim(0, max(errors) or 1)
    for row, (layer, error) in enumerate(zip(layers, errors, strict=True)):
        if layer.changed:
            _beside(axes, percent(error), error, row + offset, INK)


def _ranks(axes: Axes, layers: Sequence[LayerReport]) -> None:
    """The share of the channels that each rank keeps, in above out."""
    axes.set_xlim(0, 1.6)
    places, shares = [], []
    for row, layer in enumerate(layers):
        if layer.layer is None or layer.after is None or layer.after.ranks is None:
            axes.text(0, row, form(layer.after), color=MUTED, va="center", fontsize=8)
            continue
        kept = layer.after.ranks
        places += [row - 0.17, row + 0.17]
        shares += [kept.r_in / layer.layer.c_in, kept.r_out / layer.layer.c_out]
        _beside(axes, ranks(layer.after), 1, row, INK)
    axes.barh(places, [1.0] * len(places), 0.22, color=BEFORE, alpha=0.45)
    axes.barh(places, shares, 0.22, color=TRIAL)


def _beside(axes: Axes, text: str, x: float, y: float, colour: str) -> None:
    axes.annotate(
        text, (x, y), (4, 0), textcoords="offset points", va="center", fontsize=8, color=colour,
        annotation_clip=False,
    )  # fmt: skip
