"""The benchmarks' networks, and the plans that ours are compared with."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch

from benchmarks.baselines import TOLERANCE, Rule, at_ratio, energy, uniform
from benchmarks.models import decaying_, settle_batch_norm
from benchmarks.networks import registry
from benchmarks.networks.registry import NETWORKS, prepare
from benchmarks.networks.unet import UNet
from benchmarks.plans import conv_macs, plan_from, tdc_selection, tucker
from tdc_deploy.backends.onnxruntime import make_session
from tdc_deploy.compress import Selection
from tdc_deploy.plan_file import check_layers
from tdc_deploy.source import Source, read_source
from tdc_deploy.tucker import chain_cost, dense_cost
from tdc_deploy.types import Candidate, ConvLayer, Ranks
from tests.benchmarks.tiny import RANKS, tiny_networks
from tests.builders import save_model, small_cnn

# Of the published networks, as their authors and torchvision count them (convolutions and linear layers).
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "vgg16_bn": 138_365_992,
    "densenet121": 7_978_856,
    "densenet201": 20_013_928,
    "mobilenet_v2": 3_504_872,
}


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_network_runs_on_images_of_its_size(name: str) -> None:
    network = NETWORKS[name]
    with torch.device("meta"):  # shapes and sizes, without the arithmetic
        model = network.make()
        found = model(torch.empty(2, 3, network.size, network.size))
    outputs = found if isinstance(found, tuple) else (found,)
    assert len(outputs) == len(network.outputs)
    assert all(len(output) == 2 for output in outputs)
    if name in PARAMETERS:
        assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


def test_the_detector_sees_three_scales_and_the_unet_every_pixel() -> None:
    with torch.device("meta"):
        scales = NETWORKS["yolo"].make()(torch.empty(1, 3, 256, 256))
        scores = NETWORKS["unet"].make()(torch.empty(1, 3, 256, 256))
    assert [tuple(scale.shape) for scale in scales] == [(1, 255, s, s) for s in (32, 16, 8)]
    assert scores.shape == (1, 2, 256, 256)


def test_asymmetric_kernels_are_among_the_inceptions() -> None:
    with torch.device("meta"):
        model = NETWORKS["inception"].make()
    kernels = {m.kernel_size for m in model.modules() if isinstance(m, torch.nn.Conv2d)}
    assert {(1, 7), (7, 1), (1, 3), (3, 1), (5, 5), (3, 3), (1, 1)} == kernels


def test_kernels_decay_but_those_of_groups() -> None:
    plain, depthwise = torch.nn.Conv2d(32, 32, 3), torch.nn.Conv2d(32, 32, 3, groups=32)
    before = depthwise.weight.clone()
    decaying_(torch.nn.Sequential(plain, depthwise), 1.0, 0)
    assert torch.equal(depthwise.weight, before)
    values = torch.linalg.svdvals(plain.weight.detach().flatten(1)).numpy()
    assert values[-1] <= 0.1 * values[0]


def test_batch_norm_settles_on_the_images() -> None:
    model = UNet(width=8)
    images = np.random.default_rng(0).standard_normal((8, 3, 32, 32), np.float32)
    settle_batch_norm(model, images)
    assert not model.training
    conv = next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d))
    norm = next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    seen = conv(torch.from_numpy(images)).mean((0, 2, 3)).detach()
    # One batch of eight: the average over it, in float32.
    assert norm.running_mean is not None
    assert (norm.running_mean - seen).abs().max() <= 1e-5


def test_what_is_prepared_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_networks(tmp_path, monkeypatch)
    files = prepare(tmp_path, "plain", 2)
    session = make_session(files.model)
    assert session.get_inputs()[0].shape == [2, 3, 24, 24]
    assert [output.name for output in session.get_outputs()] == ["logits"]
    images = np.load(files.inputs)["image"]
    assert images.shape == (registry.SAMPLES, 3, 24, 24)
    assert set(files.module_paths()) == set(read_source(files.model).plannable)
    before = files.model.stat().st_mtime_ns
    assert prepare(tmp_path, "plain", 2) == files
    assert files.model.stat().st_mtime_ns == before


def test_the_rank_table_as_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_networks(tmp_path, monkeypatch)
    files = prepare(tmp_path, "resnet18", 1)
    source = read_source(files.model)
    selection = tdc_selection("resnet18", source, files.module_paths())
    check_layers(plan_from(selection), source.plannable)
    paths = files.module_paths()
    found = {f"{paths[name]}.weight": candidate for name, candidate in selection.items()}
    assert found == {
        # Its 16 input channels stay: a 1x1 in front would only cost time.
        "conv2.weight": Candidate("tucker_out", Ranks(16, 8)),
        "conv3.weight": Candidate("tucker2", Ranks(24, 16), "fused"),
    }
    assert len(RANKS) == 1 + len(found)
    saved = conv_macs(source, {}) - conv_macs(source, selection)
    layers = source.plannable
    assert saved == sum(
        dense_cost(layers[name]).macs - chain_cost(layers[name], c).macs
        for name, c in selection.items()
    )


def test_every_convolution_of_the_real_tables_is_one_of_its_network() -> None:
    import json

    from benchmarks.gpu.layers import RANK_FILE

    tables = json.loads(RANK_FILE.read_text())["models"]
    for network in NETWORKS.values():
        if network.table is None:
            continue
        with torch.device("meta"):
            model = network.make()
        weights = dict(model.named_parameters())
        convolutions = [name for name in tables[network.table] if "logits" not in name]
        assert len(convolutions) >= 12
        for name in convolutions:
            (r_out, r_in), (m, c) = tables[network.table][name], weights[name].shape[:2]
            assert r_out <= m and r_in <= c


def layer(c_in: int, c_out: int) -> ConvLayer:
    return ConvLayer(
        "x", c_in, c_out, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, "float32", 1, (8, 8)
    )


@pytest.mark.parametrize(
    ("ranks", "form"),
    [((8, 8), "tucker2"), ((8, 24), "tucker_in"), ((16, 8), "tucker_out"), ((16, 24), "dense")],
)
def test_ranks_of_all_channels_decompose_nothing(ranks: tuple[int, int], form: str) -> None:
    assert tucker(layer(16, 24), *ranks).form == form


@pytest.fixture(name="source")
def _source(tmp_path: Path) -> Source:
    return read_source(save_model(small_cnn(), tmp_path / "small.onnx"))


def test_uniform_takes_the_same_share_everywhere(source: Source) -> None:
    assert {n: c.ranks for n, c in uniform(source, 0.5).items()} == {
        "conv1": Ranks(16, 24),
        "conv2": Ranks(24, 24),
        "conv3": Ranks(24, 24),
    }
    assert uniform(source, 1.0) == {}


def test_energy_takes_the_least_arithmetic_that_keeps_the_share(source: Source) -> None:

    share = 0.9
    for name, chosen in energy(source, share).items():
        ranks, shape = chosen.ranks, source.plannable[name]
        assert ranks is not None
        assert source.decompositions.errors(name, [chosen])[0] <= 1 - share
        # Of all pairs in the grid none with less arithmetic keeps as much.
        grid = itertools.product(range(4, shape.c_in + 1, 4), range(8, shape.c_out + 1, 8))
        for pair in grid:
            other = tucker(shape, *pair)
            if chain_cost(shape, other).macs < chain_cost(shape, chosen).macs:
                assert source.decompositions.errors(name, [other])[0] > 1 - share


@pytest.mark.parametrize("rule", [uniform, energy])
def test_a_smaller_share_has_less_arithmetic(source: Source, rule: Rule) -> None:
    macs = [conv_macs(source, rule(source, share)) for share in (0.2, 0.4, 0.6, 0.8, 1.0)]
    assert macs == sorted(macs)
    assert macs[0] < macs[-1]


def _named(share: float) -> Selection:
    """A selection that tells its share."""
    return {"x": Candidate("svd", Ranks(round(share * 1000), round(share * 1000)))}


def _share(selection: Selection) -> float:
    ranks = selection["x"].ranks
    assert ranks is not None
    return ranks.r_in / 1000


def test_a_share_is_found_for_the_time() -> None:
    found = at_ratio(_named, lambda selection: 0.2 + 0.7 * _share(selection), 0.5)
    assert found.reached
    assert abs(found.ratio - 0.5) <= TOLERANCE * 0.5
    assert found.ratio == 0.2 + 0.7 * _share(found.selection)


def test_a_time_that_no_share_gives_is_said_not_to_be_reached() -> None:
    found = at_ratio(_named, lambda selection: 0.4 if _share(selection) < 0.5 else 0.7, 0.5)
    assert not found.reached
    assert found.ratio == 0.4
