from __future__ import annotations

import ctypes
from dataclasses import replace
from typing import Any

import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.profiling.analytical.chips import DEVICES, find_device
from tdc_deploy.profiling.analytical.constants import CONSTANTS
from tdc_deploy.profiling.analytical.devices import (
    ARCHITECTURES,
    Device,
    architecture_of,
    device_constants,
)
from tdc_deploy.profiling.analytical.driver import this_device
from tdc_deploy.profiling.analytical.tactics import ARITHMETICS

# What an H100 answers: CUdevice_attribute to value.
H100_ATTRIBUTES = {
    16: 132,
    13: 1_980_000,
    36: 2_619_000,
    37: 5120,
    38: 50 << 20,
    75: 9,
    76: 0,
    39: 2048,
    81: 228 << 10,
    82: 65536,
    97: 227 << 10,
    106: 32,
}


class Driver:
    """A libcuda with one GPU, or none."""

    def __init__(
        self, name: bytes = b"NVIDIA H100 80GB HBM3", count: int = 1, fails: int = 0
    ) -> None:
        self.name, self.count, self.fails = name, count, fails
        self.attributes = dict(H100_ATTRIBUTES)

    def cuInit(self, _flags: int) -> int:
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.count
        return 0

    def cuDeviceGet(self, handle: Any, number: int) -> int:
        handle._obj.value = number
        return 0

    def cuDeviceGetName(self, name: Any, _length: int, _handle: ctypes.c_int) -> int:
        name.value = self.name
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, _handle: ctypes.c_int) -> int:
        value._obj.value = self.attributes[attribute]
        return self.fails


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_documented_rates_are_the_architectures(device: Device) -> None:
    """TFLOPS = FLOPs per cycle x multiprocessors x clock, to the 3% that documents round by.

    Two that differ by design: Hopper's tensor cores are rated at 1830 MHz, and GeForce multiplies
    with fp32 sums at half the rate.
    """
    for arithmetic in ARITHMETICS:
        expected = float(getattr(device.architecture, f"{arithmetic}_flops"))
        if arithmetic != "f32" and device.name.startswith("H"):
            expected *= 1830 / 1980
        if arithmetic != "f32" and device.name.startswith("RTX"):
            expected /= 2
        assert abs(device.flops_per_cycle(arithmetic) - expected) <= 0.03 * expected


@pytest.mark.parametrize("name", ["h200", "H200", "RTX-4090", "rtx4090", "jetson agx orin"])
def test_names_are_found_however_they_are_written(name: str) -> None:
    assert find_device(name) in DEVICES


def test_an_unknown_name_is_said_with_those_there_are() -> None:
    with pytest.raises(TdcError, match=r"unknown device 'B9000'(.|\n)*H200"):
        find_device("B9000")


def test_the_newest_architecture_before_an_unknown_one_is_taken() -> None:
    assert architecture_of(91) == replace(ARCHITECTURES[90], compute_capability=91)
    assert architecture_of(80) == ARCHITECTURES[80]
    with pytest.raises(TdcError, match=r"7\.5 or newer"):
        architecture_of(61)


def test_every_constant_says_where_it_comes_from() -> None:
    for constant in (*CONSTANTS, *(c for device in DEVICES for c in device_constants(device))):
        assert constant.value >= 0
        assert constant.source or constant.origin == "guess", constant
    assert len({constant.name for constant in CONSTANTS}) == len(CONSTANTS) >= 15


def test_l2_bandwidth_is_a_guess_where_no_document_gives_it() -> None:
    origins = {
        device.name: {c.name: c.origin for c in device_constants(device)} for device in DEVICES
    }
    assert origins["H200"]["l2_gb_s"] == "guess"
    assert origins["A100"]["l2_gb_s"] == "document"
    assert origins["H200"]["dram_gb_s"] == "document"


def test_this_gpu_is_what_its_driver_says() -> None:
    device = this_device(lambda _name: Driver())
    h100 = find_device("H100")
    assert device.name == "NVIDIA H100 80GB HBM3"
    assert device.architecture == h100.architecture
    assert (device.multiprocessors, device.clock_mhz) == (132, 1980)
    # 2 * 2619 MHz * 640 bytes.
    assert abs(device.dram_gb_s - 3352.3) <= 0.1
    assert abs(device.f32_tflops - h100.f32_tflops) <= 0.01 * h100.f32_tflops
    assert {c.origin for c in device_constants(device)} == {"driver", "guess"}


def test_a_geforce_multiplies_with_fp32_sums_at_half_the_rate() -> None:
    full = this_device(lambda _name: Driver())
    half = this_device(lambda _name: Driver(b"NVIDIA GeForce RTX 9999"))
    assert half.f16_tflops == full.f16_tflops / 2
    assert half.tf32_tflops == full.tf32_tflops / 2
    assert half.f32_tflops == full.f32_tflops


def no_library(name: str) -> Any:
    raise OSError(name)


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (no_library, "no NVIDIA driver"),
        (lambda _name: Driver(count=0), "finds no GPU"),
        (lambda _name: Driver(fails=1), "error 1"),
    ],
)
def test_without_a_gpu_the_error_says_what_to_do(load: Any, message: str) -> None:
    with pytest.raises(TdcError, match=message) as caught:
        this_device(load)
    assert "--device H200" in caught.value.fix


def test_an_impossible_device_is_refused() -> None:
    with pytest.raises(TdcError, match="impossible device"):
        replace(find_device("H200"), multiprocessors=0)
    with pytest.raises(TdcError, match="impossible device"):
        replace(find_device("H200"), dram_gb_s=float("nan"))
