"""The page: one HTML file that asks for nothing from outside."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from tdc_deploy.report.data import Report
from tdc_deploy.report.headline import badges, headline, tiles
from tdc_deploy.report.layer_chart import layer_chart
from tdc_deploy.report.markup import Html, tag
from tdc_deploy.report.network_charts import prediction_chart, trade_off_chart
from tdc_deploy.report.tables import environment, forms_table, layer_table

# Nothing may be loaded and nothing run, whatever a layer is called.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

# A taller chart scrolls in a box of its own.
MANY_LAYERS = 40


def render(report: Report) -> str:
    """The whole page as text."""
    name = report.output or report.source
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{name} – tdc-deploy report"),
        tag("style", Html(files("tdc_deploy.report").joinpath("page.css").read_text("utf-8"))),
    )
    body = tag("body", tag("main", *(part for part in _parts(report) if part)))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _parts(report: Report) -> list[Html]:
    return [
        _header(report),
        headline(report),
        _warnings(report.outcome.warnings),
        tiles(report),
        _trade_off(report),
        _predictions(report),
        _forms(report),
        _layers(report),
        _environment(report),
        tag("footer", "tdc-deploy. This page is one file and loads nothing."),
    ]


def _header(report: Report) -> Html:
    arrow = tag("span", " → ", class_="arrow", aria_label="became")
    names = [tag("span", report.source)]
    if report.output:
        names += [arrow, tag("span", report.output)]
    return tag(
        "header",
        tag("p", "tdc-deploy report", class_="eyebrow"),
        tag("h1", *names),
        badges(report.outcome),
    )


def _warnings(warnings: Sequence[str]) -> Html:
    if not warnings:
        return Html("")
    items = [tag("li", warning) for warning in warnings]
    title = tag("strong", "Warning" if len(items) == 1 else "Warnings")
    return tag("section", title, tag("ul", *items), class_="warnings", role="note")


def _trade_off(report: Report) -> Html:
    if report.trade_off is None:
        return Html("")
    result = [("dot after", "the result, with its 95% interval")] if report.tried else []
    legend = _legend(
        ("line before", "least error, as predicted"),
        ("dot hollow", "tried: predicted"),
        ("dot trial", "tried: measured"),
        *result,
    )
    text = (
        "Each point is a whole network. Left is faster, low is closer to the source. The trials are "
        "measured on fewer inputs and in shorter runs than the result."
    )
    chart = trade_off_chart(report.trade_off, report.outcome, report.tried)
    return _card("Time against error", text, tag("figure", legend, chart))


def _predictions(report: Report) -> Html:
    if report.trade_off is None or not report.trade_off.trials:
        return Html("")
    legend = _legend(("dot hollow", "predicted"), ("dot trial", "measured"))
    text = (
        "Layers are timed alone and compressed alone; a network is not their sum. Every measured "
        "network corrects the prediction of the next."
    )
    chart = prediction_chart(report.trade_off.trials)
    return _card("Predicted against measured", text, tag("figure", legend, chart))


def _forms(report: Report) -> Html:
    if not report.forms:
        return Html("")
    text = "Each is a whole network; the ratio is to the time of the source as it came."
    return _card("Forms that were built", text, forms_table(report.forms))


def _layers(report: Report) -> Html:
    if not report.layers:
        return Html("")
    changed = sum(layer.changed for layer in report.layers)
    came = sum(layer.came_compressed for layer in report.layers)
    refused = (
        "" if report.outcome.shipped or not changed else " This was refused; the source ships."
    )
    energy = (
        "the layer’s output’s, on the calibration data"
        if report.data_aware
        else "the kernel’s, ‖W − W̃‖² / ‖W‖²"
    )
    text = (
        f"{changed} of {len(report.layers)} layers are decomposed"
        f"{f', {came} came in so' if came else ''}; in the network’s order. "
        f"Times are of each layer alone{_eight_bits(report)}; energy lost is {energy}.{refused}"
    )
    legend = _legend(
        ("bar before", "before"), ("bar after", "after"), ("bar loss", "energy lost"),
        ("bar trial", "ranks, of all channels"),
    )  # fmt: skip
    tall = "tall" if len(report.layers) > MANY_LAYERS else "whole"
    chart = tag("div", layer_chart(report.layers), class_=tall, tabindex="0", role="region",
                aria_label="Chart of layers")  # fmt: skip
    figure = tag("figure", legend, chart) if changed else Html("")
    return _card("Layers", text, figure, layer_table(report.layers))


def _eight_bits(report: Report) -> str:
    """What the layers' times are where they were planned in INT8."""
    forms = [layer.after for layer in report.layers if layer.after is not None]
    planned = any(form.precision == "int8" for form in forms)
    return " in 8 bits, dense before and planned after" if planned else ""


def _environment(report: Report) -> Html:
    text = "Times hold for this device, these versions and these options."
    return _card("Environment", text, environment(report))


def _card(title: str, text: str, *content: Html) -> Html:
    return tag("section", tag("h2", title), tag("p", text, class_="about"), *content, class_="card")


def _legend(*entries: tuple[str, str]) -> Html:
    keys = [
        tag("li", tag("span", class_=f"key {kind}", aria_hidden="true"), text)
        for kind, text in entries
    ]
    return tag("ul", *keys, class_="legend")
