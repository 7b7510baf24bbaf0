"""Layers in Q/DQ form, as planning for INT8 measures them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from tdc_calibration.int8 import Scheme
from tdc_calibration.int8_build import fastest_scheme
from tdc_calibration.int8_choices import Int8Choices, int8_layer_model
from tdc_calibration.int8_evaluate import Int8Evaluator
from tdc_calibration.readback import operators_run

from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.evaluate import Evaluator
from tdc_deploy.profiling.layers import LayerProfiler
from tdc_deploy.profiling.store import Store
from tdc_deploy.samples import Samples
from tdc_deploy.source import read_source
from tdc_deploy.types import Candidate, ConvLayer, Ranks, Timing
from tests.builders import LAYERS, images, save_model, small_cnn
from tests.fakes import FakeTime, macs_of

LAYER = ConvLayer("c", 32, 48, (3, 3), (2, 1), (1, 1, 1, 1), (1, 1), 1, "float32", 2, (14, 13))
POINTWISE = ConvLayer("p", 32, 48, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1, "float32", 1, (9, 8))
DENSE = Candidate("dense", precision="int8")
TUCKER = Candidate("tucker2", Ranks(16, 8), precision="int8")
SVD = Candidate("svd", Ranks(8, 8), precision="int8")


@pytest.mark.parametrize(
    ("layer", "candidate", "convs"),
    [(LAYER, DENSE, 1), (LAYER, TUCKER, 3), (POINTWISE, SVD, 2)],
    ids=str,
)
def test_a_layer_is_all_8_bits_from_end_to_end(
    layer: ConvLayer, candidate: Candidate, convs: int
) -> None:
    model = int8_layer_model(layer, candidate, Scheme())
    onnx.checker.check_model(model, full_check=True)
    operators = operators_run(model)
    assert operators["QLinearConv"] == convs
    assert not {"Conv", "QuantizeLinear", "DequantizeLinear"} & set(operators)
    (value,), (result,) = model.graph.input, model.graph.output
    for end, shape in (
        (value, (layer.batch, layer.c_in, *layer.in_hw)),
        (result, (layer.batch, layer.c_out, *layer.out_hw)),
    ):
        tensor = end.type.tensor_type
        assert tensor.elem_type == onnx.TensorProto.UINT8
        assert tuple(dim.dim_value for dim in tensor.shape.dim) == shape


def test_such_a_layer_is_measured(tmp_path: Path) -> None:
    with Store(tmp_path / "store.sqlite3") as store:
        backend = OnnxRuntimeBackend(1, "int8")
        profiler = LayerProfiler(backend, store, Int8Choices(Scheme()).model)
        assert profiler.latency(LAYER, TUCKER) > 0
        assert profiler.measured == 1
        # In float32 it is another measurement.
        plain = LayerProfiler(OnnxRuntimeBackend(1), store)
        plain.latency(LAYER, Candidate("tucker2", Ranks(16, 8)))
        assert plain.measured == 1
        again = LayerProfiler(backend, store, Int8Choices(Scheme()).model)
        again.latency(LAYER, TUCKER)
        assert again.measured == 0


def test_the_same_ranks_are_offered_in_8_bits_and_unfused() -> None:
    offered = Int8Choices(Scheme()).offered(LAYER)
    assert offered
    assert {c.precision for c in offered} == {"int8"}
    assert {c.implementation for c in offered} == {"native"}


@pytest.mark.parametrize("faster", ["uint8", "int8"])
def test_the_types_that_are_faster_here_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faster: str
) -> None:
    FakeTime(monkeypatch)
    original = OnnxRuntimeBackend.measure

    def measure(backend: OnnxRuntimeBackend, model: onnx.ModelProto, *rest: Any) -> Timing:
        timing = original(backend, model, *rest)
        unsigned = model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
        kind = "uint8" if unsigned else "int8"
        return replace(timing, median=timing.median * (0.5 if kind == faster else 1.0))

    monkeypatch.setattr(OnnxRuntimeBackend, "measure", measure)
    source = read_source(save_model(small_cnn(), tmp_path / "model.onnx"))
    with Store(tmp_path / "store.sqlite3") as store:
        assert fastest_scheme(source, OnnxRuntimeBackend(1), store).activations == faster


def test_trials_are_timed_against_dense_int8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeTime(monkeypatch)
    fake.int8_speed = 4.0
    source = read_source(save_model(small_cnn(), tmp_path / "model.onnx"))
    samples = Samples({"image": images(16)}, 1)
    with Store(tmp_path / "store.sqlite3") as store:
        backend = OnnxRuntimeBackend(1)
        plain = Evaluator(source, samples, backend, store)
        made = Int8Evaluator(plain, backend, store, Scheme(), "minmax", plain.repair_samples, [])
        assert made.dense_ms == plain.dense_ms / 4
        selection = {LAYERS[2]: Candidate("tucker2", Ranks(16, 16), precision="int8")}
        trial, exact = made.trial(selection), plain.trial(selection)
        assert trial.ratio == pytest.approx(exact.ratio)
        # It rounds too; but what low ranks lose is told alone.
        assert trial.error > exact.error
        assert made.error(selection) == exact.error
        feeds = {"image": images(1)}
        assert (
            macs_of(made.model(selection), feeds, 4.0) == macs_of(plain.model(selection), feeds) / 4
        )


def test_layers_that_stay_float32_do_so_when_decomposed(tmp_path: Path) -> None:
    source = read_source(save_model(small_cnn(), tmp_path / "model.onnx"))
    samples = Samples({"image": images(16)}, 1)
    with Store(tmp_path / "store.sqlite3") as store:
        backend = OnnxRuntimeBackend(1)
        plain = Evaluator(source, samples, backend, store)
        options = (plain, backend, store, Scheme(), "minmax", plain.repair_samples)
        made = Int8Evaluator(*options, ["conv2"])  # type: ignore[arg-type]
        selection = {"conv2": Candidate("tucker2", Ranks(8, 8), precision="int8")}
        counts = operators_run(made.model(selection))
        assert counts["QLinearConv"] == 2
        assert counts["Conv"] + counts["FusedConv"] == 3
