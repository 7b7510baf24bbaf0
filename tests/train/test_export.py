"""Exported files: the same function, named by module, with chains that a build fuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch
from tdc_train.conversion import apply_plan, factorised
from tdc_train.export import export_onnx
from torch import nn

import tdc_deploy
from tdc_deploy.errors import TdcError
from tdc_deploy.plan_file import LayerChoice, Plan, plan_from_json, read_plan, write_plan
from tdc_deploy.source import read_source
from tdc_deploy.types import Candidate, Ranks
from tests.fakes import FakeTime
from tests.train.small_models import TUCKER2, every_form, images, plan, relative, small_net

SHAPE = (1, 3, 16, 16)

# float32 in another order, through a dozen layers with BatchNorm folded into their weights.
SAME = 1e-5

NAMES = {
    *("stem.0", "grouped", "heads.twice", "heads.twice_1", "blocks.0", "blocks.1", "fc"),
    *(f"layer1.{i}.{part}" for i in (0, 1) for part in ("conv1", "conv2", "downsample.0")),
}

# Most of the arithmetic, so that a build has nothing left to plan.
MOSTLY = Candidate("tucker2", Ranks(8, 8), "fused")


def run(path: Path, x: Any) -> Any:
    """The file's logits, one image at a time."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rows = [session.run(None, {"image": row[None].numpy()})[0] for row in x]
    return torch.from_numpy(np.concatenate(rows))


def layer_names(path: Path) -> set[str]:
    return {n.name for n in onnx.load(path).graph.node if n.op_type in ("Conv", "Gemm")}


def opset(path: Path) -> int:
    return int(onnx.load(path).opset_import[0].version)


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("version", [17, 20])
def test_the_file_computes_what_the_model_does(tmp_path: Path, exporter: Any, version: int) -> None:
    model, path = small_net(), tmp_path / "net.onnx"
    export_onnx(model, path, SHAPE, version, exporter)
    assert opset(path) == version
    assert relative(run(path, images()), model(images())) <= SAME
    assert layer_names(path) == NAMES
    assert not any(node.op_type == "BatchNormalization" for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_every_form_of_chain_is_exported_by_name(tmp_path: Path, exporter: Any) -> None:
    model, path = apply_plan(small_net(), every_form()), tmp_path / "net.onnx"
    export_onnx(model, path, SHAPE, exporter=exporter)
    assert opset(path) == 17
    assert relative(run(path, images()), model(images())) <= SAME
    parts = {f"{path}.{part}" for path, layer in factorised(model).items() for part in layer.parts}
    # TorchScript writes a Linear without a bias as a MatMul.
    assert parts - {"fc.first"} <= layer_names(path)


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_an_open_batch(tmp_path: Path, exporter: Any) -> None:
    model, path = small_net(), tmp_path / "net.onnx"
    export_onnx(model, path, SHAPE, exporter=exporter, open_batch=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 3):
        (logits,) = session.run(None, {"image": images(count).numpy()})
        assert relative(torch.from_numpy(logits), model(images(count))) <= SAME


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_a_build_fuses_the_chains(
    tmp_path: Path, exporter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeTime(monkeypatch)
    names = [f"layer1.{i}.conv{j}" for i in (0, 1) for j in (1, 2)]
    chosen = Plan({name: LayerChoice(MOSTLY) for name in [*names, "blocks.0", "heads.twice"]})
    # A rank as large as the layer's: no form tells that this is a decomposition, the metadata do.
    whole = LayerChoice(Candidate("tucker2", Ranks(16, 16), "fused"))
    chosen = Plan({**chosen.layers, "layer1.0.conv1": whole})
    model, path = apply_plan(small_net(), chosen), tmp_path / "net.onnx"
    export_onnx(model, path, SHAPE, exporter=exporter)
    x = images(16)
    np.savez(tmp_path / "in.npz", image=x.numpy())
    artifact = tdc_deploy.build(path, tmp_path / "fast.onnx", inputs=tmp_path / "in.npz")
    sidecar = json.loads((tmp_path / "fast.onnx.json").read_text())
    assert artifact.decision == sidecar["decision"] == "fused"
    built = onnx.load(tmp_path / "fast.onnx")
    fused = {node.name for node in built.graph.node if node.domain == "tdc"}
    cores = {f"{name}.last" for name in chosen.layers} | {"heads.twice.last_1"}
    assert fused == cores
    assert relative(run(tmp_path / "fast.onnx", x), model(x)) <= SAME


def test_a_plan_for_the_file_applies_to_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeTime(monkeypatch)
    model, path = small_net(), tmp_path / "net.onnx"
    export_onnx(model, path, SHAPE)
    np.savez(tmp_path / "in.npz", image=images(16).numpy())
    made = tdc_deploy.plan(path, inputs=tmp_path / "in.npz", speedup=1.1, max_error=5.0)
    assert made.selection
    write_plan(made, tmp_path / "plan.json")
    apply_plan(model, read_plan(tmp_path / "plan.json"))
    assert set(factorised(model)) == set(made.selection)


def test_names_are_those_that_planning_sees(tmp_path: Path) -> None:
    for exporter in ("torchscript", "dynamo"):
        path = tmp_path / f"{exporter}.onnx"
        export_onnx(small_net(), path, SHAPE, exporter=exporter)  # type: ignore[arg-type]
        assert set(read_source(path).plannable) == NAMES - {"grouped", "fc"}


def test_the_metadata_say_where_it_came_from(tmp_path: Path) -> None:
    model, path = apply_plan(small_net(), every_form()), tmp_path / "net.onnx"
    export_onnx(model, path, SHAPE, accuracy=0.91)
    found = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert found["tdc_train.version"] == tdc_deploy.__version__
    assert json.loads(found["tdc_train.accuracy"]) == 0.91
    again = plan_from_json(json.loads(found["tdc_train.plan"]), "metadata")
    assert again.selection == every_form().selection


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = small_net().train()
    model.layer1.eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export_onnx(model, tmp_path / "net.onnx", SHAPE)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_sharing_weights_does_not_confuse_the_names(tmp_path: Path) -> None:
    # The TorchScript exporter stores equal weights once.
    model = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(3)))
    for conv in model:
        nn.init.zeros_(conv.weight)  # type: ignore[arg-type]
    export_onnx(model, tmp_path / "net.onnx", (1, 4, 8, 8))
    assert layer_names(tmp_path / "net.onnx") == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (1, 4, 16, 16)}, "does not take an input of shape"),
        ({"input_shape": (1, 0, 16, 16)}, "input shape"),
        ({"exporter": "onnx"}, "exporter 'onnx'"),
        ({"opset": 9}, "opset 9"),
        ({"opset": 13, "exporter": "dynamo"}, "cannot be brought to opset 13"),
    ],
    ids=str,
)
def test_bad_arguments_leave_no_file(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"input_shape": SHAPE, **options}
    with pytest.raises(TdcError, match=message):
        export_onnx(small_net(), tmp_path / "net.onnx", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_told_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(TdcError, match="does not exist"):
        export_onnx(nn.Identity(), tmp_path / "none" / "net.onnx", SHAPE)


def test_other_types_and_outputs_are_refused(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, x: Any) -> Any:
            return x, x

    with pytest.raises(TdcError, match="puts out tuple"):
        export_onnx(Two(), tmp_path / "net.onnx", SHAPE)
    with pytest.raises(TdcError, match="expected: float32"):
        export_onnx(small_net().half(), tmp_path / "net.onnx", SHAPE)


def test_what_an_exporter_cannot_do_is_the_users_to_mend(tmp_path: Path) -> None:
    class Data(nn.Module):
        def forward(self, x: Any) -> Any:
            return x if x.sum() > 1 else x.flip(0) + x.nonzero().shape[0]

    with pytest.raises(TdcError, match="dynamo exporter does not take the model"):
        export_onnx(Data(), tmp_path / "net.onnx", SHAPE, exporter="dynamo")


def test_a_chain_of_ranks_that_are_not_marked(tmp_path: Path) -> None:
    model, path = apply_plan(small_net(), plan(blocks__0=TUCKER2)), tmp_path / "net.onnx"
    export_onnx(model, path, SHAPE)
    chains = read_source(path).compressed
    assert [(chain.core.name, chain.ranks) for chain in chains] == [("blocks.0.core", Ranks(6, 5))]


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_padding_same_with_dilation(tmp_path: Path, exporter: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, (3, 5), padding="same", dilation=(2, 3)), nn.Flatten(), nn.Linear(1024, 10)
    ).eval()
    export_onnx(model, tmp_path / "net.onnx", SHAPE, exporter=exporter)
    assert relative(run(tmp_path / "net.onnx", images()), model(images())) <= SAME
    assert model[0].padding == "same"


def test_what_an_exporter_writes_wrongly_is_said(tmp_path: Path) -> None:
    # An odd number of pixels in all, one more on one side.
    model = nn.Sequential(nn.Conv2d(3, 4, 2, padding="same", dilation=3), nn.Flatten())
    with pytest.raises(TdcError, match="torchscript exporter") as caught:
        export_onnx(model, tmp_path / "net.onnx", SHAPE)
    assert "other exporter" in caught.value.fix
    assert not (tmp_path / "net.onnx").exists()


class NamedAlike(nn.Module):
    """`conv` is used twice, and another module has the name of its second use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.conv_1 = nn.Conv2d(3, 3, 1)

    def forward(self, x: Any) -> Any:
        return self.conv_1(torch.relu(self.conv(torch.relu(self.conv(x)))))


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_a_second_use_takes_no_other_modules_name(tmp_path: Path, exporter: Any) -> None:
    export_onnx(NamedAlike(), tmp_path / "net.onnx", SHAPE, exporter=exporter)
    nodes = {n.name: n for n in onnx.load(tmp_path / "net.onnx").graph.node if n.op_type == "Conv"}
    kernels = {name: node.attribute for name, node in nodes.items()}
    sizes = {
        name: next(list(a.ints) for a in attributes if a.name == "kernel_shape")
        for name, attributes in kernels.items()
    }
    assert sizes == {"conv": [3, 3], "conv_2": [3, 3], "conv_1": [1, 1]}
