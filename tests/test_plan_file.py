from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.plan_file import (
    LayerChoice,
    Plan,
    PlanFigures,
    check_layers,
    plan_from_json,
    plan_to_json,
    read_plan,
    write_plan,
)
from tdc_deploy.types import DENSE, Candidate, ConvLayer, Ranks

PLAN = Plan(
    layers={
        "a": LayerChoice(Candidate("tucker2", Ranks(8, 16), "fused", "fp32", 0.125, 0.5), 1.5),
        "b": LayerChoice(Candidate("tucker2", Ranks(8, 16), "native", "fp32", 0.25, 0.75), 1.25),
        "c/ü": LayerChoice(Candidate("svd", Ranks(4, 4), error=0.1), 0.3),
        "d": LayerChoice(Candidate("tucker_in", Ranks(4, 48)), None),
        "e": LayerChoice(Candidate("tucker_out", Ranks(32, 16)), None),
        "f": LayerChoice(DENSE, 0.1),
    },
    model_sha256="ab" * 32,
    solver="milp",
    backend={"backend": "onnxruntime", "threads": "2"},
    network=PlanFigures(4.0, 2.25, 2.0, 0.05, True),
    measurements=7,
    warnings=("the latency budget was not met",),
)


def write_json(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def plan_of(**layer: Any) -> Any:
    return {"layers": {"conv1": layer}}


def test_a_plan_comes_back_from_its_file(tmp_path: Path) -> None:
    write_plan(PLAN, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == PLAN


def test_a_plan_comes_back_from_its_json_values() -> None:
    text = json.dumps(plan_to_json(PLAN), allow_nan=False)
    assert plan_from_json(json.loads(text), "here") == PLAN


def test_the_file_can_be_read_and_edited_by_a_person(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_plan(PLAN, path)
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data["format"] == "tdc-deploy plan"
    assert data["layers"]["a"]["r_in"] == 8
    data["layers"]["a"]["r_in"] = 12
    del data["layers"]["b"]
    edited = read_plan(write_json(path, data))
    assert edited.layers["a"].candidate.ranks == Ranks(12, 16)
    assert "b" not in edited.layers


def test_the_selection_leaves_dense_layers_out() -> None:
    assert sorted(PLAN.selection) == ["a", "b", "c/ü", "d", "e"]
    assert PLAN.selection["a"] == PLAN.layers["a"].candidate


def test_a_ratio_is_measured_over_dense() -> None:
    assert PLAN.network is not None
    assert PLAN.network.ratio == 0.5


def test_a_plan_by_hand_needs_only_forms_and_ranks(tmp_path: Path) -> None:
    by_hand = {
        "layers": {
            "a": {"form": "tucker2", "r_in": 32, "r_out": 16},
            "b": {"form": "svd", "r_in": 8, "r_out": 8},
            "c": {"form": "dense"},
        }
    }
    plan = read_plan(write_json(tmp_path / "plan.json", by_hand))
    assert plan.selection == {
        "a": Candidate("tucker2", Ranks(32, 16), "fused"),
        "b": Candidate("svd", Ranks(8, 8)),
    }
    assert plan.network is None
    assert plan.warnings == ()


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(TdcError, match="no plan at") as caught:
        read_plan(tmp_path / "missing.json")
    assert "tdc-deploy plan" in caught.value.fix


@pytest.mark.parametrize("content", [b"", b"layers: {}", b'{"layers": {', b"\xff\xfe\x00\x80"])
def test_what_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(TdcError, match=r"plan\.json is not a plan"):
        read_plan(tmp_path / "plan.json")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TdcError, match="is not a plan"):
        read_plan(tmp_path)


@pytest.mark.parametrize("data", [[], 3, None, "plan", {}, {"layers": []}, {"layers": None}])
def test_json_that_is_no_plan_is_refused(data: Any) -> None:
    with pytest.raises(TdcError, match="here is not a plan") as caught:
        plan_from_json(data, "here")
    assert "layers" in caught.value.expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"layers": {}, "format": "other"}, "format 'other'"),
        ({"layers": {}, "version": 99}, "version 99"),
        ({"layers": {}, "layer": {}}, "here has unknown field 'layer'"),
        ({"layers": {}, "network": {"speed": 1}}, "unknown field 'speed'"),
        ({"layers": {}, "network": {"dense_ms": 1.0}}, "network of here"),
        ({"layers": {}, "network": [1]}, "network of here is list"),
        ({"layers": {"conv1": "dense"}}, "layer 'conv1' of here is str"),
        (plan_of(), "layer 'conv1' of here"),
        (plan_of(r_in=8, r_out=8), "layer 'conv1' of here"),
        (plan_of(form="tucker3", r_in=8, r_out=8), "form is 'tucker3'"),
        (plan_of(form=None), "form is None"),
        (plan_of(form="tucker2", r_in=8, rout=8), "unknown field 'rout'"),
        (plan_of(form="tucker2", r_in=8), "layer 'conv1' of here"),
        (plan_of(form="tucker2"), "form tucker2 with ranks None"),
        (plan_of(form="dense", r_in=8, r_out=8), "form dense with ranks"),
        (plan_of(form="svd", r_in=8, r_out=4), "svd with ranks"),
        (plan_of(form="tucker2", r_in=0, r_out=8), "r_in is 0"),
        (plan_of(form="tucker2", r_in=8, r_out=-8), "r_out is -8"),
        (plan_of(form="tucker2", r_in=8.0, r_out=8), "r_in is 8.0"),
        (plan_of(form="tucker2", r_in="8", r_out=8), "r_in is '8'"),
        (plan_of(form="tucker_in", r_in=8, r_out=8, implementation="fused"), "marked fused"),
        (plan_of(form="tucker2", r_in=8, r_out=8, precision="fp8"), "precision is 'fp8'"),
        (plan_of(form="tucker2", r_in=8, r_out=8, error=-1), "error is -1"),
        (plan_of(form="tucker2", r_in=8, r_out=8, error="small"), "layer 'conv1' of here"),
    ],
)
def test_mistakes_are_named_with_their_place(data: Any, message: str) -> None:
    with pytest.raises(TdcError) as caught:
        plan_from_json(data, "here")
    assert message in str(caught.value)
    assert "here" in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        plan_of(form="tucker2", ranks={"r_in": 8, "r_out": 8}),
        plan_of(form="svd", ranks={"r_in": 8, "r_out": 8}),
        plan_of(form="tucker2", ranks=[8, 8]),
        {"layers": {}, "warnings": 3},
        plan_of(form=["tucker2"], r_in=8, r_out=8),
    ],
)
def test_values_of_another_type_are_refused(data: Any) -> None:
    with pytest.raises(TdcError):
        plan_from_json(data, "here")


def one_layer(**layer: Any) -> Plan:
    return plan_from_json(plan_of(**layer), "here")


def known(*names: str, kernel: int = 3) -> dict[str, ConvLayer]:
    """Layers of 32 to 48 channels."""
    return {
        name: ConvLayer(
            name, 32, 48, (kernel, kernel), (1, 1), (1, 1, 1, 1), (1, 1), 1, "float32", 1, (8, 8)
        )
        for name in names
    }


def test_an_unknown_layer_gets_a_suggestion() -> None:
    plan = one_layer(form="tucker2", r_in=8, r_out=8)
    check_layers(plan, known("conv1", "conv2"))
    with pytest.raises(TdcError, match="'conv1'") as caught:
        check_layers(plan, known("/layer/Conv_1", "conv_1"))
    assert caught.value.fix == "did you mean 'conv_1'?"


def test_an_unknown_layer_unlike_any_other_gets_none() -> None:
    with pytest.raises(TdcError, match="'conv1'") as caught:
        check_layers(one_layer(form="tucker2", r_in=8, r_out=8), known("x", "y"))
    assert caught.value.fix == ""


def test_a_dense_layer_may_be_one_that_must_stay_dense() -> None:
    check_layers(one_layer(form="dense"), {})


@pytest.mark.parametrize(
    "layer",
    [
        {"form": "tucker2", "r_in": 32, "r_out": 48},
        {"form": "tucker2", "r_in": 1, "r_out": 1},
        {"form": "tucker_in", "r_in": 8, "r_out": 48},
        {"form": "tucker_out", "r_in": 32, "r_out": 8},
    ],
    ids=str,
)
def test_ranks_that_fit_the_layer(layer: dict[str, Any]) -> None:
    check_layers(one_layer(**layer), known("conv1"))


@pytest.mark.parametrize(
    "layer",
    [
        {"form": "tucker2", "r_in": 33, "r_out": 8},
        {"form": "tucker2", "r_in": 8, "r_out": 49},
        {"form": "tucker_in", "r_in": 33, "r_out": 48},
        {"form": "svd", "r_in": 8, "r_out": 8},
        # The output has no rank in the one form, the input none in the other: neither is ignored.
        {"form": "tucker_in", "r_in": 8, "r_out": 8},
        {"form": "tucker_out", "r_in": 8, "r_out": 8},
    ],
    ids=str,
)
def test_ranks_and_forms_that_do_not_fit_the_layer(layer: dict[str, Any]) -> None:
    with pytest.raises(TdcError, match="'conv1'") as caught:
        check_layers(one_layer(**layer), known("conv1"))
    assert caught.value.expected


def test_svd_is_for_pointwise_layers() -> None:
    check_layers(one_layer(form="svd", r_in=8, r_out=8), known("conv1", kernel=1))
    with pytest.raises(TdcError, match="'conv1'"):
        check_layers(one_layer(form="svd", r_in=33, r_out=33), known("conv1", kernel=1))
