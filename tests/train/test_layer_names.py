"""Names of layers in exports, resolved to the modules that they came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch
from tdc_train.conversion import apply_plan, factorised
from tdc_train.layer_names import module_paths, path_of_scopes
from torch import nn

from tdc_deploy.errors import TdcError
from tdc_deploy.plan_file import LayerChoice, Plan
from tdc_deploy.source import read_source
from tests.train.small_models import TUCKER2, images, small_net

# Of `SmallNet`, in the order of the graph but for those that run beside each other.
CONVS = {
    "stem.0",
    *("layer1.0.conv1", "layer1.0.conv2", "layer1.0.downsample.0"),
    *("layer1.1.conv1", "layer1.1.conv2", "layer1.1.downsample.0"),
    *("blocks.0", "blocks.1", "heads.twice"),
}


def exported(path: Path, model: nn.Module, **options: Any) -> Path:
    """By torch.onnx.export itself, as any user would."""
    if options.get("dynamo"):
        torch.onnx.export(model, (images(1),), str(path), verbose=False, **options)
    else:
        torch.onnx.export(model, (images(1),), str(path), opset_version=17, **options)
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    "options",
    [
        {"dynamo": False},
        {"dynamo": False, "training": torch.onnx.TrainingMode.PRESERVE},
        {"dynamo": True},
        {"dynamo": True, "optimize": False},
    ],
    ids=str,
)
def test_every_name_that_planning_sees_in_torchs_own_exports_is_resolved(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    model = small_net()
    path = exported(tmp_path / "net.onnx", model, **options)
    source = read_source(path)
    paths = module_paths(source.plannable, model, path)
    assert set(paths.values()) == CONVS
    # One module is called twice: two layers of the file.
    assert len(paths) == len(CONVS) + 1
    for name, module in paths.items():
        wanted = model.get_submodule(module)
        layer = source.plannable[name]
        assert isinstance(wanted, nn.Conv2d)
        assert (layer.c_in, layer.c_out) == (wanted.in_channels, wanted.out_channels)
        assert layer.strides == wanted.stride


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_torchscript_names_need_no_file(tmp_path: Path) -> None:
    model = small_net()
    path = exported(tmp_path / "net.onnx", model, dynamo=False)
    nodes = [node.name for node in onnx.load(path).graph.node if node.op_type in ("Conv", "Gemm")]
    modules = dict(model.named_modules())
    found = [path_of_scopes(name, modules) for name in nodes]
    # "twice" is there for both of its calls.
    assert sorted(map(str, found)) == sorted([*CONVS, "heads.twice", "grouped", "fc"])
    assert path_of_scopes("/layer1/layer1.1/downsample/downsample.0/Conv", modules) == (
        "layer1.1.downsample.0"
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("dynamo", [False, True])
def test_a_plan_for_the_file_applies_to_the_model(tmp_path: Path, dynamo: bool) -> None:
    model = small_net()
    path = exported(tmp_path / "net.onnx", model, dynamo=dynamo)
    convs = read_source(path).convs
    wanted = ("blocks.0.weight", "heads.twice.weight")
    nodes = [name for name, conv in convs.items() if conv.node.inputs[1].name in wanted]
    assert len(nodes) == 3
    assert not set(nodes) & set(dict(model.named_modules()))
    chosen = Plan({name: LayerChoice(TUCKER2) for name in nodes})
    apply_plan(model, chosen, onnx_model=path)
    assert list(factorised(model)) == ["blocks.0", "heads.twice"]


@pytest.mark.parametrize(
    "name",
    ["node_conv2d_3", "/layer9/Conv", "/layer1/layer1.7/conv1/Conv", "/stem/Relu", "conv_x"],
)
def test_names_that_tell_nothing_are_refused(name: str) -> None:
    with pytest.raises(TdcError, match="no module of the model"):
        module_paths([name], small_net())


def test_a_file_that_does_not_help_is_named(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    with pytest.raises(TdcError, match="no model file"):
        module_paths(["node_conv2d_3"], small_net(), path)


def test_a_name_that_two_modules_could_have_is_refused() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left = nn.ModuleDict({"conv": nn.Conv2d(3, 3, 1)})
            self.right = nn.ModuleDict({"conv": nn.Conv2d(3, 3, 1)})

    modules = dict(Two().named_modules())
    assert path_of_scopes("/conv/Conv", modules) is None
    assert path_of_scopes("/left.conv/Conv", modules) == "left.conv"


def test_a_name_that_ends_in_a_number_is_not_taken_for_a_second_call() -> None:
    model = nn.ModuleDict({"conv": nn.Conv2d(3, 3, 1), "conv_1": nn.Conv2d(3, 3, 1)})
    modules = dict(model.named_modules())
    assert path_of_scopes("/conv_1/Conv", modules) == "conv_1"
    assert path_of_scopes("/conv_2/Conv", modules) == "conv"
