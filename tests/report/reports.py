"""Reports with made-up figures."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from tdc_deploy.report.data import (
    FormReport,
    LayerReport,
    Outcome,
    Point,
    Report,
    TradeOff,
    TrialReport,
)
from tdc_deploy.types import DENSE, Candidate, Ranks, Ratio
from tests.fakes import constant_timing
from tests.ranks.tables import conv_layer

NEEDS_MATPLOTLIB = pytest.mark.skipif(
    find_spec("matplotlib") is None, reason="matplotlib, the extra [report], is not installed"
)

RATIO = Ratio(0.52, 0.515, 0.524, constant_timing(61.25), constant_timing(31.875))

OUTCOME = Outcome(
    decision="compressed",
    reason="it is faster",
    warnings=(),
    before_ms=61.25,
    after_ms=31.875,
    ratio=0.52,
    interval=RATIO,
    predicted_ratio=0.507,
    error=0.0713,
    max_error=0.1,
    latency_budget=0.5,
    verified=True,
    samples=256,
    top1_agreement=0.992,
)


def layers(count: int, name: str = "/layer{0}/conv{1}/Conv") -> tuple[LayerReport, ...]:
    """Decomposed layers, each fourth one dense, each seventh one depthwise and not measured."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(count):
        layer = conv_layer(name.format(i // 3, i), 128, 128)
        before = float(rng.uniform(0.1, 1))
        if i % 7 == 6:
            depthwise = replace(layer, groups=128)
            made.append(
                LayerReport(layer.name, depthwise, DENSE, DENSE, None, None, "it is depthwise")
            )
        elif i % 4 == 3:
            made.append(LayerReport(layer.name, layer, DENSE, DENSE, before, before, "no gain"))
        else:
            form = Candidate("tucker2", Ranks(32, 48), "fused", error=float(rng.uniform(0, 0.1)))
            made.append(LayerReport(layer.name, layer, DENSE, form, before, before / 2))
    return tuple(made)


def trade_off() -> TradeOff:
    """A smooth frontier, and trials around it."""
    ratios = np.linspace(0.3, 1, 60)
    trials = [
        TrialReport(Point(r, 0.2 * (1 - r)), Point(1.1 * r, 0.25 * (1 - r)))
        for r in (0.4, 0.5, 0.6, 0.8)
    ]
    return TradeOff(tuple(Point(float(r), 0.2 * (1 - float(r))) for r in ratios), tuple(trials))


def report(count: int = 8, name: str = "/layer{0}/conv{1}/Conv") -> Report:
    """A report with everything on it."""
    return Report(
        source="resnet.onnx",
        output="fast.onnx",
        outcome=OUTCOME,
        source_bytes=250_000_000,
        output_bytes=121_000_000,
        layers=layers(count, name),
        trade_off=trade_off(),
        forms=(FormReport("source", 1.0, 1.0, 0.0, "fp16"),),
        environment={"device": "a processor", "threads": "2"},
        options={"max_error": "0.1"},
    )
