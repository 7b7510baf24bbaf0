"""What INT8 costs each layer, as planning sees it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.mixed_evaluate import MixedEvaluator
from tdc_deploy.profiling.store import Store
from tdc_deploy.progress import silent
from tdc_deploy.ranks.sensitivity import RUINED_ERROR
from tdc_deploy.ranks.table import CostTable, Row
from tdc_deploy.samples import Samples
from tdc_deploy.source import read_source
from tdc_deploy.types import DENSE, Candidate, Ranks
from tests.builders import LAYERS, images, save_model, small_cnn

INT8 = Candidate("tucker2", Ranks(8, 8), precision="int8", error=0.5, latency_ms=0.1)


class FakeQuantiser:
    """Layers that round by given errors; `asked` counts."""

    def __init__(self, **errors: float) -> None:
        self.errors = errors
        self.asked: list[str] = []

    def rounding(self, layer: str) -> float | None:
        self.asked.append(layer)
        return self.errors.get(layer)

    def describe(self) -> dict[str, Any]:
        return {"revision": 1}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store.sqlite3")


def with_roundings(
    folder: Path, store: Store, quantiser: Any, exact: tuple[str, ...] = ()
) -> CostTable:
    source = read_source(save_model(small_cnn(), folder / "model.onnx"))
    backend = OnnxRuntimeBackend(1)
    samples = Samples({"image": images(16)}, 1)
    evaluator = MixedEvaluator(source, samples, backend, store, backend, quantiser, exact)
    penalties = {INT8.decomposition: 2.0 * 0.5}
    rows = {name: Row(source.plannable[name], (DENSE, INT8), penalties) for name in LAYERS}
    return evaluator.with_roundings(CostTable(rows), silent)


def test_rounding_is_added_to_what_a_low_rank_costs(tmp_path: Path, store: Store) -> None:
    table = with_roundings(tmp_path, store, FakeQuantiser(conv1=0.1, conv2=math.nan), ())
    row = table.rows["conv1"]
    assert row.penalty(INT8) == pytest.approx(2.0 * 0.5 + 0.1**2)
    assert row.penalty(DENSE) == 0
    assert table.rows["conv2"].rounding == RUINED_ERROR**2
    assert table.rows["conv3"].candidates == (DENSE,), "it cannot be quantised"


def test_layers_that_fp16_does_not_hold_are_not_offered_int8(tmp_path: Path, store: Store) -> None:
    quantiser = FakeQuantiser(conv1=0.1, conv2=0.1, conv3=0.1)
    table = with_roundings(tmp_path, store, quantiser, ("conv2",))
    assert {name: len(row.candidates) for name, row in table.rows.items()} == {
        "conv1": 2,
        "conv2": 1,
        "conv3": 2,
    }
    assert quantiser.asked == ["conv1", "conv3"]


def test_it_is_measured_once(tmp_path: Path, store: Store) -> None:
    first = FakeQuantiser(conv1=0.1, conv2=0.2, conv3=0.3)
    known = with_roundings(tmp_path, store, first)
    again = FakeQuantiser()
    assert with_roundings(tmp_path, store, again) == known
    assert again.asked == []
