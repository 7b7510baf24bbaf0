"""Engines for other GPUs than the one that builds them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tdc_deploy.backends.tensorrt import compatibility
from tdc_deploy.backends.tensorrt.compatibility import check_library, least_device, other_gpus
from tdc_deploy.backends.tensorrt.options import HardwareCompatibility
from tdc_deploy.errors import TdcError
from tdc_deploy.profiling.analytical.chips import DEVICES, find_device
from tdc_deploy.profiling.analytical.devices import ARCHITECTURES
from tdc_deploy.profiling.analytical.model import is_legal, shared_bytes, tactics_attribute
from tdc_deploy.profiling.analytical.shapes import TuckerShape
from tdc_deploy.profiling.analytical.tactics import decode

H200 = find_device("H200")
# A bottleneck block with large ranks, whose fused tactics take more than 48 KB.
SHAPE = TuckerShape(1, 14, 14, 256, 256, 96, 96)


def test_only_tactics_that_every_gpu_of_the_level_runs() -> None:
    freely = [decode(n) for n in tactics_attribute(SHAPE, H200, "fp16")]
    assert any(tactic.split == "cluster" for tactic in freely)
    assert any(shared_bytes(tactic, SHAPE) > 48 << 10 for tactic in freely)
    least = least_device(H200, "ampere_plus")
    restricted = [decode(n) for n in tactics_attribute(SHAPE, H200, "fp16", least)]
    assert restricted
    for tactic in restricted:
        assert tactic.split != "cluster"
        # 1 KB of a block is the driver's.
        assert shared_bytes(tactic, SHAPE) <= 47 << 10
        for device in DEVICES:
            assert device.compute_capability < 80 or is_legal(tactic, SHAPE, device)


def test_they_are_ranked_for_the_gpu_that_builds() -> None:
    least = least_device(H200, "ampere_plus")
    freely = tactics_attribute(SHAPE, H200, "tf32")
    restricted = tactics_attribute(SHAPE, H200, "tf32", least)
    kept = [n for n in freely if n in restricted]
    assert kept == [n for n in restricted if n in freely] != []


@pytest.mark.parametrize("level", ["none", "same_compute_capability"])
def test_gpus_of_one_compute_capability_are_alike(
    level: HardwareCompatibility,
) -> None:
    assert least_device(H200, level) is H200
    assert other_gpus(level) == ()


def test_every_known_gpu_from_ampere_on_is_meant() -> None:
    assert other_gpus("ampere_plus") == tuple(c for c in ARCHITECTURES if c >= 80)


def built_for(patch: pytest.MonkeyPatch, **info: str) -> None:
    library = SimpleNamespace(build_info=lambda: info)
    patch.setattr(compatibility, "Library", lambda _: library)


@pytest.mark.parametrize("architectures", ["80", "80,90", "80,86,90,100,120"])
def test_a_library_that_every_gpu_runs(monkeypatch: pytest.MonkeyPatch, architectures: str) -> None:
    built_for(monkeypatch, architectures=architectures)
    check_library(Path("plugin.so"), H200, "ampere_plus")


@pytest.mark.parametrize(
    ("info", "missing"),
    [
        ({"architectures": "90"}, "8.0, 8.6, 8.7, 8.9"),
        ({"architectures": "80,120"}, "9.0, 10.0"),
        ({"architectures": "native"}, "8.0, 8.6, 8.7, 8.9, 9.0, 10.0, 12.0"),
        ({}, "8.0, 8.6, 8.7, 8.9, 9.0, 10.0, 12.0"),
    ],
)
def test_a_library_that_some_gpus_do_not_run(
    monkeypatch: pytest.MonkeyPatch, info: dict[str, str], missing: str
) -> None:
    built_for(monkeypatch, **info)
    with pytest.raises(TdcError, match=rf"compute capability {missing}\n") as caught:
        check_library(Path("plugin.so"), H200, "ampere_plus")
    assert caught.value.fix.endswith("tdc-deploy plugin build --architectures 80,90")
    check_library(Path("plugin.so"), H200, "none")
