from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tdc_deploy.profiling.layers import LayerProfiler, layer_model
from tdc_deploy.profiling.store import Store
from tdc_deploy.tucker import chain_cost
from tdc_deploy.types import DENSE, Candidate, ConvLayer, Ranks
from tests.fakes import constant_timing, macs_of

PLAIN = ConvLayer(
    name="conv",
    c_in=12,
    c_out=20,
    kernel=(3, 3),
    strides=(1, 1),
    pads=(1, 1, 1, 1),
    dilations=(1, 1),
    groups=1,
    dtype="float32",
    batch=1,
    in_hw=(9, 11),
)
ODD = replace(PLAIN, kernel=(3, 5), strides=(2, 1), pads=(1, 0, 2, 3), dilations=(1, 2), batch=3)
POINTWISE = replace(PLAIN, kernel=(1, 1), strides=(2, 2), pads=(0, 0, 0, 0))

TUCKER2 = Candidate("tucker2", Ranks(4, 8), "fused")
TUCKER_IN = Candidate("tucker_in", Ranks(4, 20))
TUCKER_OUT = Candidate("tucker_out", Ranks(12, 8))
SVD = Candidate("svd", Ranks(4, 4))


@dataclass
class FakeBackend:
    """Takes a millisecond more at every measurement; keeps what it was asked."""

    device: str = "one"
    asked: list[Any] = field(default_factory=list)

    def describe(self) -> dict[str, str]:
        return {"device": self.device}

    def measure(self, model: Any, feeds: Any, effort: Any) -> Any:
        self.asked.append((model, feeds, effort))
        return constant_timing(float(len(self.asked)))

    def measure_layers(self, models: Any, effort: Any) -> Any:
        return (self.measure(model, feeds, effort) for model, feeds in models)


def profiler_of(backend: FakeBackend, store: Store) -> LayerProfiler:
    return LayerProfiler(backend, store)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layer", "candidate", "convs"),
    [
        (PLAIN, DENSE, 1),
        (ODD, DENSE, 1),
        (POINTWISE, DENSE, 1),
        (PLAIN, TUCKER2, 3),
        (ODD, TUCKER2, 3),
        (PLAIN, TUCKER_IN, 2),
        (ODD, TUCKER_IN, 2),
        (PLAIN, TUCKER_OUT, 2),
        (ODD, TUCKER_OUT, 2),
        (POINTWISE, SVD, 2),
    ],
    ids=str,
)
def test_every_form_runs_at_the_layers_shape(
    layer: ConvLayer, candidate: Candidate, convs: int
) -> None:
    model = layer_model(layer, candidate)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Conv"] * convs
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = np.random.default_rng(0).standard_normal((layer.batch, layer.c_in, *layer.in_hw))
    (y,) = session.run(None, {"x": x.astype(np.float32)})
    assert y.shape == (layer.batch, layer.c_out, *layer.out_hw)
    # Neither denormal, which would be slow, nor overflowing: of the size of the input.
    assert 0.1 <= y.std() <= 10


@pytest.mark.parametrize("candidate", [DENSE, TUCKER2, TUCKER_IN, TUCKER_OUT], ids=str)
def test_the_model_does_the_candidates_arithmetic(candidate: Candidate) -> None:
    feeds = {"x": np.zeros((ODD.batch, ODD.c_in, *ODD.in_hw), np.float32)}
    assert macs_of(layer_model(ODD, candidate), feeds) == chain_cost(ODD, candidate).macs


def test_a_layer_is_measured_at_its_own_shape(tmp_path: Path) -> None:
    backend = FakeBackend()
    with Store(tmp_path / "store.sqlite3") as store:
        profiler_of(backend, store).latency(ODD, TUCKER2)
    ((model, feeds, _),) = backend.asked
    assert feeds["x"].shape == (3, 12, 9, 11)
    assert feeds["x"].dtype == np.float32
    assert model == layer_model(ODD, TUCKER2)


def test_each_form_of_each_shape_is_measured_once(tmp_path: Path) -> None:
    backend = FakeBackend()
    with Store(tmp_path / "store.sqlite3") as store:
        profiler = profiler_of(backend, store)
        first = [profiler.latency(PLAIN, c) for c in (DENSE, TUCKER2, TUCKER_IN)]
        assert first == [1.0, 2.0, 3.0]
        assert profiler.measured == 3
        assert [profiler.latency(PLAIN, c) for c in (DENSE, TUCKER2, TUCKER_IN)] == first
        assert profiler.measured == 3
        assert len(backend.asked) == 3


def test_another_run_asks_nothing_again(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    with Store(path) as store:
        profiler_of(FakeBackend(), store).latency(PLAIN, TUCKER2)
    backend = FakeBackend()
    with Store(path) as store:
        profiler = profiler_of(backend, store)
        assert profiler.latency(PLAIN, TUCKER2) == 1.0
        assert profiler.measured == 0
        assert backend.asked == []


def test_neither_the_name_nor_the_error_matters(tmp_path: Path) -> None:
    backend = FakeBackend()
    with Store(tmp_path / "store.sqlite3") as store:
        profiler = profiler_of(backend, store)
        known = profiler.latency(PLAIN, TUCKER2)
        assert profiler.latency(replace(PLAIN, name="other"), TUCKER2) == known
        assert profiler.latency(PLAIN, replace(TUCKER2, error=0.5, latency_ms=9.0)) == known
        assert len(backend.asked) == 1


@pytest.mark.parametrize(
    "layer",
    [
        replace(PLAIN, c_in=13),
        replace(PLAIN, c_out=21),
        replace(PLAIN, kernel=(3, 1)),
        replace(PLAIN, strides=(1, 2)),
        replace(PLAIN, pads=(1, 1, 1, 0)),
        replace(PLAIN, dilations=(2, 1)),
        replace(PLAIN, batch=2),
        replace(PLAIN, in_hw=(11, 9)),
    ],
    ids=lambda layer: repr(layer)[10:],
)
def test_every_other_shape_is_measured(tmp_path: Path, layer: ConvLayer) -> None:
    backend = FakeBackend()
    with Store(tmp_path / "store.sqlite3") as store:
        profiler = profiler_of(backend, store)
        assert [profiler.latency(PLAIN, TUCKER2), profiler.latency(layer, TUCKER2)] == [1.0, 2.0]


@pytest.mark.parametrize(
    "candidate",
    [DENSE, TUCKER_IN, replace(TUCKER2, ranks=Ranks(8, 4)), replace(TUCKER2, ranks=Ranks(4, 4))],
    ids=str,
)
def test_every_other_form_is_measured(tmp_path: Path, candidate: Candidate) -> None:
    backend = FakeBackend()
    with Store(tmp_path / "store.sqlite3") as store:
        profiler = profiler_of(backend, store)
        assert [profiler.latency(PLAIN, TUCKER2), profiler.latency(PLAIN, candidate)] == [1.0, 2.0]


def test_another_device_is_measured(tmp_path: Path) -> None:
    one, two = FakeBackend("one"), FakeBackend("two")
    with Store(tmp_path / "store.sqlite3") as store:
        profiler_of(one, store).latency(PLAIN, TUCKER2)
        profiler_of(two, store).latency(PLAIN, TUCKER2)
        assert len(store) == 2
    assert len(one.asked) == len(two.asked) == 1
