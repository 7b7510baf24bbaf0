"""The GPU of this machine, as its driver describes it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tdc_deploy.plugin.driver import MAJOR, MINOR, Driver
from tdc_deploy.profiling.analytical.devices import Architecture, Device, architecture_of

# CUdevice_attribute, CUDA Driver API.
MULTIPROCESSORS, CLOCK_KHZ, MEMORY_CLOCK_KHZ, BUS_BITS, L2_BYTES = 16, 13, 36, 37, 38
THREADS, SHARED_BYTES, REGISTERS, SHARED_BYTES_PER_BLOCK, BLOCKS = 39, 81, 82, 97, 106

# GeForce boards multiply fp16 with fp32 sums, and tf32, at half of the architecture's rate from
# Ampere on (NVIDIA GA102 and Ada white papers).
GEFORCE = "GeForce"

# L2 bandwidth is not to be asked: so many bytes a cycle and multiprocessor are taken, about the
# A100's.
L2_BYTES_PER_CYCLE = 32

Ask = Callable[[int], int]


def this_device(load: Callable[[str], Any] | None = None) -> Device:
    """The first GPU of this machine; `load` gives the driver's library.

    Raises:
        TdcError: there is no driver or no GPU.
    """
    driver = Driver(load)
    return _device(driver.name(0), partial(driver.attribute, 0))


def _device(name: str, ask: Ask) -> Device:
    architecture = _architecture(ask)
    multiprocessors, clock_mhz = ask(MULTIPROCESSORS), ask(CLOCK_KHZ) / 1e3
    half = 0.5 if GEFORCE in name and architecture.compute_capability >= 80 else 1.0
    scale = multiprocessors * clock_mhz * 1e-6
    return Device(
        name,
        architecture,
        multiprocessors,
        clock_mhz,
        # Two transfers in a cycle of the memory's clock.
        dram_gb_s=2 * ask(MEMORY_CLOCK_KHZ) * ask(BUS_BITS) / 8 * 1e-6,
        l2_bytes=ask(L2_BYTES),
        l2_gb_s=L2_BYTES_PER_CYCLE * multiprocessors * clock_mhz * 1e-3,
        f16_tflops=half * architecture.f16_flops * scale,
        tf32_tflops=half * architecture.tf32_flops * scale,
        f32_tflops=architecture.f32_flops * scale,
        source="CUDA Driver API",
        origin="driver",
        guessed=("l2_gb_s", "f16_tflops", "tf32_tflops", "f32_tflops"),
    )


def _architecture(ask: Ask) -> Architecture:
    """The architecture's rates with this GPU's own limits."""
    known = architecture_of(10 * ask(MAJOR) + ask(MINOR))
    return Architecture(
        known.compute_capability,
        ask(SHARED_BYTES),
        ask(SHARED_BYTES_PER_BLOCK),
        ask(THREADS),
        ask(BLOCKS),
        known.f16_flops,
        known.tf32_flops,
        known.f32_flops,
        ask(REGISTERS),
    )
