"""Charts of whole networks: the trade of time for error, and predictions beside what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tdc_deploy.report.canvas import (
    AFTER,
    BEFORE,
    CARD,
    INK,
    LIMIT,
    MUTED,
    TRIAL,
    Draw,
    responsive,
)  # fmt: skip
from tdc_deploy.report.data import Outcome, Point, TradeOff, TrialReport
from tdc_deploy.report.markup import Html
from tdc_deploy.report.text import number, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, NARROW = 756, 246
"""Widths in points: of a desk's page, of a phone's."""

TRADE_OFF_HEIGHTS = (320, 250)
ROW = 21

# Errors above this many limits are shown at the edge.
OUTLIER = 2.5

# More trials than this are the oldest of several searches.
MOST_TRIALS = 16


def trade_off_chart(trade: TradeOff, outcome: Outcome, tried: bool) -> Html:
    """Error over time: the predicted frontier, the trials, and, if one was `tried`, the result."""
    sizes = list(zip((WIDE, NARROW), TRADE_OFF_HEIGHTS, strict=True))
    label = (
        f"Relative error over time. The built network takes {percent(outcome.ratio)} of the source's "
        f"time at an error of {number(outcome.error)}; {len(trade.trials)} networks were tried."
    )
    return responsive(
        _TradeOffDrawing(trade, outcome, tried, False), _TradeOffDrawing(trade, outcome, tried, True),
        "tradeoff", sizes, label,
    )  # fmt: skip


@dataclass(frozen=True)
class _TradeOffDrawing:
    trade: TradeOff
    outcome: Outcome
    tried: bool
    narrow: bool

    def __call__(self, figure: Figure) -> Mapping[str, str]:
        left, bottom = (36, 32) if not self.narrow else (32, 32)
        axes = _axes(figure, left, bottom, 10, 14)
        self._frame(axes)
        self._limits(axes)
        frontier = self.trade.frontier
        axes.plot(
            [100 * p.ratio for p in frontier], [p.error for p in frontier],
            color=BEFORE, linewidth=2.2, zorder=2,
        )  # fmt: skip
        tips = self._trials(axes)
        return tips | self._chosen(axes)

    @property
    def _top(self) -> float:
        """The highest error that is shown: one ruined network must not flatten the others."""
        errors = [trial.measured.error for trial in self.trade.trials]
        usual = [e for e in errors if e <= OUTLIER * self.outcome.max_error] or errors
        limit = self.outcome.max_error
        own = min(self.outcome.error, OUTLIER * limit)
        highest = max([*usual, own], default=own)
        return 1.25 * (max(highest, limit) if limit <= 5 * highest else highest) or 1.0

    def _frame(self, axes: Axes) -> None:
        ratios = [t.measured.ratio for t in self.trade.trials] + [1.0, self.outcome.ratio]
        inside = [p.ratio for p in self.trade.frontier if p.error <= self._top]
        low = min([*ratios, *inside[:1]])
        axes.set_xlim(100 * max(0, low - 0.06), 100 * max(1.04, max(ratios) + 0.04))
        axes.set_ylim(0, self._top)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}%")
        axes.set_xlabel("time, share of the source’s" if not self.narrow else "time")
        axes.set_title("relative error of the output", color=MUTED, fontsize=8.5)

    def _limits(self, axes: Axes) -> None:
        limit, budget = self.outcome.max_error, self.outcome.latency_budget
        style: Any = {"color": LIMIT, "linewidth": 1.1, "linestyle": (0, (4, 3))}
        small: Any = {"textcoords": "offset points", "color": LIMIT, "fontsize": 8}
        if 0.03 * self._top < limit < self._top:
            axes.axhline(limit, **style)
            words, right = f"error limit {number(limit)}", axes.get_xlim()[1]
            axes.annotate(words, (right, limit), (-2, 4), ha="right", **small)
        if budget is not None and 100 * budget > axes.get_xlim()[0]:
            axes.axvline(100 * budget, **style)
            words = f"budget {percent(budget)}"
            axes.annotate(words, (100 * budget, self._top), (4, -2), va="top", **small)

    def _trials(self, axes: Axes) -> dict[str, str]:
        tips = {}
        for i, trial in enumerate(self.trade.trials):
            a, b = trial.predicted, trial.measured
            axes.plot([100 * a.ratio, 100 * b.ratio], [a.error, b.error],
                      color=TRIAL, linewidth=0.9, alpha=0.45, zorder=3)  # fmt: skip
            _dot(axes, a, TRIAL, 4.5, hollow=True, gid=f"tip-predicted-{i}")
            if b.error > self._top:
                edge = Point(b.ratio, 0.985 * self._top)
                _dot(axes, edge, TRIAL, 6, gid=f"tip-measured-{i}", marker="^")
            else:
                _dot(axes, b, TRIAL, 5.5, gid=f"tip-measured-{i}")
            tips[f"tip-predicted-{i}"] = f"trial {i + 1}, predicted: {_said(a)}"
            tips[f"tip-measured-{i}"] = f"trial {i + 1}, measured: {_said(b)}"
        return tips

    def _chosen(self, axes: Axes) -> dict[str, str]:
        _dot(axes, Point(1, 0), INK, 7, gid="tip-dense", clip=False)
        axes.annotate(
            "source", (100, 0), (0, 9), textcoords="offset points", ha="center", color=INK
        )
        if not self.tried:
            return {"tip-dense": "the source"}
        outcome = self.outcome
        place = Point(outcome.ratio, min(outcome.error, 0.985 * self._top))
        if outcome.interval is not None:
            ends = [100 * outcome.interval.lower, 100 * outcome.interval.upper]
            axes.plot(ends, [place.error] * 2, color=AFTER, linewidth=2, zorder=5)
        _dot(axes, place, AFTER, 9, gid="tip-chosen", halo=True)
        what = {"planned": "planned", "source": "refused"}.get(outcome.decision, "built")
        right = outcome.ratio > (0.55 if self.narrow else 0.75)
        axes.annotate(
            f"{what}: {percent(outcome.ratio)}, error {number(outcome.error)}",
            (100 * place.ratio, place.error), (-9 if right else 9, 10),
            textcoords="offset points", ha="right" if right else "left", color=AFTER, fontweight="bold",
        )  # fmt: skip
        said = _said(Point(outcome.ratio, outcome.error))
        return {"tip-dense": "the source", "tip-chosen": f"{what}: {said}"}


def prediction_chart(trials: Sequence[TrialReport]) -> Html:
    """Each trial's time and error as predicted, and as measured."""
    shown = list(trials)[-MOST_TRIALS:]
    first = len(trials) - len(shown)
    height = ROW * len(shown) + 44
    sizes = ((WIDE, height), (NARROW, 2 * height + 8))
    label = f"Predicted and measured time and error of the {len(shown)} networks that were tried."
    return responsive(
        _predictions(shown, first, False),
        _predictions(shown, first, True),
        "predicted",
        sizes,
        label,
    )


def _predictions(trials: Sequence[TrialReport], first: int, narrow: bool) -> Draw:
    def draw(figure: Figure) -> Mapping[str, str]:
        width, height = (72 * inches for inches in figure.get_size_inches())
        block = ROW * len(trials)
        if narrow:
            boxes = [(40, height - 18 - block, width - 52, block), (40, 22, width - 52, block)]
        else:
            half = (width - 130) / 2
            boxes = [(48, 22, half, block), (width - half - 14, 22, half, block)]
        panels = [
            figure.add_axes((x / width, y / height, w / width, h / height)) for x, y, w, h in boxes
        ]
        times = [(100 * t.predicted.ratio, 100 * t.measured.ratio) for t in trials]
        errors = [(t.predicted.error, t.measured.error) for t in trials]
        _dumbbells(panels[0], times, first, "time, share of the source’s")
        panels[0].xaxis.set_major_formatter(lambda value, _: f"{value:.0f}%")
        _dumbbells(panels[1], errors, first, "relative error of the output")
        return {}

    return draw


def _dumbbells(axes: Axes, pairs: Sequence[tuple[float, float]], first: int, title: str) -> None:
    rows = range(len(pairs))
    for row, (predicted, measured) in zip(rows, pairs, strict=True):
        axes.plot([predicted, measured], [row, row], color=TRIAL, linewidth=1.6, zorder=2)
        axes.plot([predicted], [row], "o", markersize=6.5, markerfacecolor=CARD,
                  markeredgecolor=TRIAL, markeredgewidth=1.4, zorder=3)  # fmt: skip
        axes.plot([measured], [row], "o", markersize=6.5, color=TRIAL, zorder=4)
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    axes.set_yticks(list(rows), [f"trial {first + row + 1}" for row in rows])
    axes.set_title(title, color=MUTED, fontsize=8.5, pad=7)
    axes.set_xlim(0, 1.08 * max([max(pair) for pair in pairs]) or 1)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)


def _axes(figure: Figure, left: float, bottom: float, right: float, top: float) -> Axes:
    """Axes with margins in points."""
    width, height = (72 * inches for inches in figure.get_size_inches())
    top += 8
    box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    axes = figure.add_axes(box)
    axes.tick_params(length=0)
    axes.locator_params(nbins=6)
    return axes


def _dot(
    axes: Axes, point: Point, colour: str, diameter: float, *, gid: str,
    hollow: bool = False, halo: bool = False, clip: bool = True, marker: str = "o",
) -> None:  # fmt: skip
    axes.plot(
        [100 * point.ratio], [point.error], marker, markersize=diameter, zorder=6 if halo else 4,
        markerfacecolor=CARD if hollow else colour, markeredgecolor=CARD if halo else colour,
        markeredgewidth=1.6 if halo else 1.2, gid=gid, clip_on=clip,
    )  # fmt: skip


def _said(point: Point) -> str:
    return f"{percent(point.ratio)} of the time, error {number(point.error)}"
