"""GPUs by name, from their documents."""

from __future__ import annotations

from tdc_deploy.errors import TdcError
from tdc_deploy.profiling.analytical.devices import ARCHITECTURES, Device

MIB = 1 << 20

A100 = "NVIDIA A100 architecture white paper, SXM; L2: 5120 bytes a cycle"
H100 = "NVIDIA H100 architecture white paper, SXM5; tensor rates at 1830 MHz"
H200 = f"NVIDIA H200 data sheet; {H100}"
L4 = "NVIDIA L4 data sheet, its rates with sparsity halved"
T4 = "NVIDIA T4 data sheet, NVIDIA Turing architecture white paper"
RTX_4090 = "NVIDIA Ada GPU architecture white paper"
ORIN = "NVIDIA Jetson AGX Orin series technical brief, 64 GB"


def _chip(
    name: str,
    compute_capability: int,
    multiprocessors: int,
    clock_mhz: float,
    memory: tuple[float, int, float],
    tflops: tuple[float, float, float],
    source: str,
    guessed: tuple[str, ...] = ("l2_gb_s",),
) -> Device:
    """memory: DRAM GB/s, L2 MiB, L2 GB/s. tflops: f16, tf32, f32."""
    dram_gb_s, l2_mib, l2_gb_s = memory
    architecture = ARCHITECTURES[compute_capability]
    chip = (name, architecture, multiprocessors, clock_mhz, dram_gb_s, l2_mib * MIB, l2_gb_s)
    return Device(*chip, *tflops, source, guessed=guessed)


DEVICES = (
    _chip("A100", 80, 108, 1410, (2039, 40, 7219), (312, 156, 19.5), f"{A100}, 80 GB", ()),
    _chip("A100-40GB", 80, 108, 1410, (1555, 40, 7219), (312, 156, 19.5), f"{A100}, 40 GB", ()),
    _chip("H100", 90, 132, 1980, (3352, 50, 7500), (989.4, 494.7, 66.9), H100),
    _chip("H200", 90, 132, 1980, (4800, 50, 7500), (989.4, 494.7, 66.9), H200),
    _chip("L4", 89, 58, 2040, (300, 48, 2500), (121, 60, 30.3), L4),
    _chip("T4", 75, 40, 1590, (320, 4, 1270), (65, 0, 8.1), T4),
    _chip("RTX 4090", 89, 128, 2520, (1008, 72, 5000), (165.2, 82.6, 82.6), RTX_4090),
    _chip(
        *("Jetson AGX Orin", 87, 16, 1300, (204.8, 4, 600), (42.6, 21.3, 5.3), ORIN),
        guessed=("l2_gb_s", "f16_tflops", "tf32_tflops"),
    ),
)


def find_device(name: str) -> Device:
    """The device of that name; case, blanks and dashes do not count.

    Raises:
        TdcError: it is not listed.
    """
    for device in DEVICES:
        if _plain(device.name) == _plain(name):
            return device
    names = ", ".join(device.name for device in DEVICES)
    raise TdcError(f"unknown device {name!r}", expected=f"one of {names}; or this, for this GPU")


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
