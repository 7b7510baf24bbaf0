"""The networks against torchvision's names, shapes and sizes, written down by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tdc_train.models.registry import MODELS, make_model
from tdc_train.models.weights import load_weights
from tdc_train.training.evaluate import macs, parameters
from torch import nn

from tdc_deploy.errors import TdcError

# torchvision's documentation lists these ("num_params").
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "densenet121": 7_978_856,
    "densenet201": 20_013_928,
    "vgg16_bn": 138_365_992,
}

SHAPES = {
    "resnet18": {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_mean": (64,),
        "layer1.1.conv2.weight": (64, 64, 3, 3),
        "layer2.0.conv1.weight": (128, 64, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer2.0.downsample.1.weight": (128,),
        "layer4.1.bn2.num_batches_tracked": (),
        "fc.weight": (1000, 512),
        "fc.bias": (1000,),
    },
    "resnet34": {"layer3.5.conv2.weight": (256, 256, 3, 3), "fc.weight": (1000, 512)},
    "resnet50": {
        "layer1.0.conv1.weight": (64, 64, 1, 1),
        "layer1.0.conv3.weight": (256, 64, 1, 1),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer3.5.bn3.bias": (1024,),
        "layer4.0.conv2.weight": (512, 512, 3, 3),
        "fc.weight": (1000, 2048),
    },
    "vgg16_bn": {
        "features.0.weight": (64, 3, 3, 3),
        "features.0.bias": (64,),
        "features.1.running_var": (64,),
        "features.7.weight": (128, 64, 3, 3),
        "features.14.weight": (256, 128, 3, 3),
        "features.24.weight": (512, 256, 3, 3),
        "features.40.weight": (512, 512, 3, 3),
        "features.41.weight": (512,),
        "classifier.0.weight": (4096, 25088),
        "classifier.3.weight": (4096, 4096),
        "classifier.6.weight": (1000, 4096),
    },
    "densenet121": {
        "features.conv0.weight": (64, 3, 7, 7),
        "features.norm0.weight": (64,),
        "features.denseblock1.denselayer1.norm1.weight": (64,),
        "features.denseblock1.denselayer1.conv1.weight": (128, 64, 1, 1),
        "features.denseblock1.denselayer6.norm1.running_mean": (224,),
        "features.denseblock1.denselayer6.conv2.weight": (32, 128, 3, 3),
        "features.transition1.norm.weight": (256,),
        "features.transition1.conv.weight": (128, 256, 1, 1),
        "features.denseblock4.denselayer16.conv1.weight": (128, 992, 1, 1),
        "features.norm5.bias": (1024,),
        "classifier.weight": (1000, 1024),
    },
    "densenet201": {
        "features.denseblock3.denselayer48.conv1.weight": (128, 1760, 1, 1),
        "classifier.weight": (1000, 1920),
    },
}

# Entries of the state dicts: a BatchNorm has 5, a convolution 1 (2 in VGG), a linear layer 2.
ENTRIES = {"resnet18": 122, "resnet34": 218, "resnet50": 320, "vgg16_bn": 97, "densenet121": 727}


def on_paper(name: str) -> nn.Module:
    """Shapes without memory."""
    with torch.device("meta"):
        return make_model(name)


@pytest.mark.parametrize("name", PARAMETERS)
def test_names_shapes_and_sizes_are_torchvisions(name: str) -> None:
    model = on_paper(name)
    assert parameters(model) == PARAMETERS[name]
    state = model.state_dict()
    assert len(state) == ENTRIES.get(name, len(state))
    assert {key: tuple(state[key].shape) for key in SHAPES[name]} == SHAPES[name]


@pytest.mark.parametrize(
    ("name", "millions"), [("resnet20", 0.27), ("resnet32", 0.46), ("resnet56", 0.85)]
)
def test_cifar_resnets_have_the_papers_sizes(name: str, millions: float) -> None:
    assert round(parameters(make_model(name)) / 1e6, 2) == millions


def test_resnet20_has_the_known_arithmetic() -> None:
    # 3x3 convolutions at 32x32: one of 3→16 and six of 16→16; at 16x16: 16→32 and five of 32→32; at 8x8:
    # 32→64 and five of 64→64; the last layer 64→10.
    expected = 1024 * 9 * (3 * 16 + 6 * 256) + 256 * 9 * (512 + 5 * 1024)
    expected += 64 * 9 * (2048 + 5 * 4096) + 640
    assert macs(make_model("resnet20"), (3, 32, 32)) == expected


@pytest.mark.parametrize("name", MODELS)
def test_all_take_images_of_their_size(name: str) -> None:
    options = {"width": 0.0625} if name == "vgg16_bn" else {}
    side = 32 if name in ("resnet20", "resnet32", "resnet56") else 64
    model = make_model(name, num_classes=7, **options).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, side, side)).shape == (1, 7)


def test_small_images_keep_their_resolution() -> None:
    for name in ("resnet18", "vgg16_bn"):
        options = {"width": 0.25} if name == "vgg16_bn" else {}
        model = make_model(name, num_classes=10, small_images=True, **options).eval()
        with torch.no_grad():
            assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_group_norm_leaves_no_statistics() -> None:
    model = make_model("resnet20", norm="group")
    assert not [name for name in model.state_dict() if "running" in name]
    assert parameters(model) == parameters(make_model("resnet20"))


def test_a_block_by_hand() -> None:
    torch.manual_seed(0)
    model = make_model("resnet20").eval()
    block = model.get_submodule("layer2.0")
    conv1, bn1, conv2, bn2 = (block.get_submodule(n) for n in ("conv1", "bn1", "conv2", "bn2"))
    x = torch.randn(1, 16, 8, 8)
    y = bn2(conv2(torch.relu(bn1(conv1(x)))))
    y[:, :16] += x[:, :, ::2, ::2]
    with torch.no_grad():
        assert torch.equal(block(x), torch.relu(y))


def test_weights_load_with_the_prefix_of_several_gpus_and_old_densenet_names(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    model = make_model("densenet121", num_classes=3)
    old = {
        name.replace("norm1", "norm.1").replace("conv2", "conv.2"): value
        for name, value in model.state_dict().items()
        if "num_batches" not in name
    }
    old = {n.replace("features.norm.1", "features.norm1"): v for n, v in old.items()}
    torch.save({"state_dict": {f"module.{n}": v for n, v in old.items()}}, tmp_path / "old.pth")
    torch.manual_seed(1)
    other = make_model("densenet121", num_classes=3)
    load_weights(other, tmp_path / "old.pth")
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(make_model("resnet20").state_dict(), path)
    with pytest.raises(TdcError, match=r"the model has no layer1\.3"):
        load_weights(make_model("resnet20"), saved(tmp_path, make_model("resnet32")))
    with pytest.raises(TdcError, match=r"fc\.bias is \(10,\)"):
        load_weights(make_model("resnet20", num_classes=5), path)
    with pytest.raises(TdcError, match="no weights at"):
        load_weights(make_model("resnet20"), tmp_path / "none.pth")
    path.write_bytes(b"no weights")
    with pytest.raises(TdcError, match="cannot be read"):
        load_weights(make_model("resnet20"), path)


def saved(folder: Path, model: nn.Module) -> Path:
    torch.save(model.state_dict(), folder / "other.pth")
    return folder / "other.pth"


def test_unknown_networks_and_options_are_refused() -> None:
    with pytest.raises(TdcError, match="model 'resnet19'"):
        make_model("resnet19")
    with pytest.raises(TdcError, match="unexpected keyword argument 'depth'"):
        make_model("resnet20", depth=3)
    with pytest.raises(TdcError, match="norm is 'layer'"):
        make_model("resnet20", norm="layer")
    with pytest.raises(TdcError, match="no_such_module"):
        make_model("no_such_module:net")
    with pytest.raises(TdcError, match="has no attribute 'Nothing'"):
        make_model("tests.train.tiny:Nothing")
    with pytest.raises(TdcError, match=r"expected: a torch\.nn\.Module"):
        make_model("tests.train.tiny:tiny")
    with pytest.raises(TdcError, match="leaves no channels"):
        make_model("vgg16_bn", width=0.001)


def test_a_factory_of_the_users_own() -> None:
    assert type(make_model("tests.train.tiny:TinyNet", norm="group")).__name__ == "TinyNet"
