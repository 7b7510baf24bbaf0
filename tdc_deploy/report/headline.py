"""The top of the page: how much faster, how close, how much smaller."""

from __future__ import annotations

from tdc_deploy.report.data import Outcome, Report
from tdc_deploy.report.markup import Html, join, tag
from tdc_deploy.report.text import change, count, ms, number, percent, size

DECISIONS = {
    "compressed": "compressed",
    "fused": "fused",
    "converted": "converted",
    "source": "source shipped",
    "engine": "engine of the source",
    "planned": "plan",
}

NOTHING = Html("")


def badges(outcome: Outcome) -> Html:
    """What was decided, and whether real inputs were compared."""
    kind = "badge" if outcome.shipped else "badge warn"
    decision = tag("span", DECISIONS[outcome.decision], class_=kind)
    if not outcome.verified:
        status = tag("span", "UNVERIFIED: random inputs only", class_="badge warn")
    elif outcome.samples:
        status = tag("span", f"verified on {outcome.samples} inputs", class_="badge good")
    else:
        status = tag("span", "measured on your inputs", class_="badge good")
    return tag("p", decision, status, class_="badges")


def headline(report: Report) -> Html:
    """The result in one figure, with the two times as bars."""
    figure = tag("p", *_figure(report.outcome), class_="result")
    reason = tag("p", _reason(report), class_="reason")
    return tag("section", tag("div", figure, reason), _bars(report), class_="headline")


def _figure(outcome: Outcome) -> tuple[Html, ...]:
    ratio = outcome.ratio
    if not outcome.shipped:
        return (tag("strong", "Unchanged", class_="dull"),)
    if 0.995 <= ratio <= 1.005 or ratio <= 0:
        return tag("strong", "As fast", class_="dull"), tag("span", "as what came in")
    factor = 1 / ratio if ratio < 1 else ratio
    digits = f"{factor:.2f}" if factor < 10 else f"{factor:.0f}"
    return tag("strong", f"{digits}×"), tag("span", "faster" if ratio < 1 else "the time")


def _reason(report: Report) -> Html:
    outcome, interval = report.outcome, report.outcome.interval
    share = f"{outcome.ratio:.3f} of the source’s time"
    if interval is not None:
        share += f" (95% interval {interval.lower:.3f} to {interval.upper:.3f})"
    if outcome.predicted_ratio is not None:
        share += f"; {outcome.predicted_ratio:.3f} was predicted"
    if outcome.decision == "engine":
        return join(f"{share}. The engine is of the source model as it is: {outcome.reason}.")
    if outcome.shipped:
        return join(share + ".")
    unchanged = f"The source model ships as it is: {outcome.reason}."
    if not report.tried:
        return join(unchanged)
    return join(unchanged, tag("br"), f"What was tried takes {share}.")


def _bars(report: Report) -> Html:
    outcome, interval = report.outcome, report.outcome.interval
    longest = max(outcome.before_ms, outcome.after_ms)
    after = {"source": "refused", "planned": "planned"}.get(outcome.decision, "after")
    p95 = (None, None) if interval is None else (interval.before.p95, interval.after.p95)
    bars = [_bar("before", "before", outcome.before_ms, longest, p95[0])]
    if report.tried:
        kind = "after" if outcome.shipped else "refused"
        bars.append(_bar(after, kind, outcome.after_ms, longest, p95[1]))
    label = "Median time of the whole network"
    return tag("div", *bars, class_="bars", role="group", aria_label=label)


def _bar(label: str, kind: str, time: float, longest: float, p95: float | None) -> Html:
    bar = tag("span", class_=f"bar {kind}", style=f"width:{100 * time / longest:.1f}%")
    tail = "" if p95 is None else tag("small", f"p95 {ms(p95)}")
    return tag(
        "div",
        tag("span", label, class_="name"),
        tag("span", bar, class_="track"),
        tag("span", tag("b", f"{ms(time)} ms"), tail, class_="value"),
        class_="row",
    )


def tiles(report: Report) -> Html:
    """The other figures of the whole network, before and after."""
    outcome = report.outcome
    macs = _sums(report, "macs")
    params = _sums(report, "params")
    entries = [
        _tile("relative error", number(outcome.error), _error_note(outcome)),
        _accuracy(outcome),
        _pair("arithmetic of convolutions", *macs, "MACs"),
        _pair("parameters of convolutions", *params, ""),
        _file(report),
    ]
    shown = [entry for entry in entries if entry]
    if report.tried and not outcome.shipped:
        shown.insert(0, tag("p", "What was tried, and refused:", class_="label"))
    return tag("section", *shown, class_="tiles", aria_label="Figures")


def _sums(report: Report, what: str) -> tuple[int, int]:
    pairs = [getattr(layer, what) for layer in report.layers]
    return sum(before for before, _ in pairs), sum(after for _, after in pairs)


def _error_note(outcome: Outcome) -> str:
    where = "" if outcome.verified else ", on random inputs"
    return f"limit {number(outcome.max_error)}{where}"


def _accuracy(outcome: Outcome) -> Html:
    if outcome.accuracy_before is not None and outcome.accuracy_after is not None:
        after, before = (
            f"{100 * x:.2f}%" for x in (outcome.accuracy_after, outcome.accuracy_before)
        )
        return _tile("accuracy", after, f"before {before}, {outcome.samples} inputs")
    if outcome.top1_agreement is not None:
        return _tile(
            "same top class", percent(outcome.top1_agreement), f"of {outcome.samples} inputs"
        )
    return NOTHING


def _pair(label: str, before: int, after: int, unit: str) -> Html:
    if not before:
        return NOTHING
    note = count(before) if before == after else f"{count(before)} → {count(after)}"
    return _tile(label, change(before, after), f"{note} {unit}".strip())


def _file(report: Report) -> Html:
    if report.output_bytes is None:
        return NOTHING
    before, after = report.source_bytes, report.output_bytes
    return _tile("file", change(before, after), f"{size(before)} → {size(after)}")


def _tile(label: str, value: str, note: str) -> Html:
    kind = "value" if any(character.isdigit() for character in value) else "value word"
    parts = (("label", label), (kind, value), ("note", note))
    return tag("div", *(tag("p", text, class_=kind) for kind, text in parts), class_="tile")
