"""What an engine may use that is to run on other GPUs than the one it is built on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tdc_deploy.backends.tensorrt.options import HardwareCompatibility
from tdc_deploy.errors import TdcError
from tdc_deploy.plugin.library import Library
from tdc_deploy.plugin.locate import build_command, has_code_for
from tdc_deploy.profiling.analytical.devices import (
    ARCHITECTURES,
    KIB,
    RESERVED_SHARED_BYTES,
    Device,
)

AMPERE = 80

# Of a block, with what the driver keeps of it: TensorRT's own rule (NvInferRuntime.h,
# HardwareCompatibilityLevel). No GPU from Ampere on has less.
AMPERE_PLUS_SHARED_BYTES = 48 * KIB


def least_device(device: Device, level: HardwareCompatibility) -> Device:
    """The device, with no more than every GPU has that may run the engine.

    GPUs of the same compute capability all have what this one has.
    """
    if level != "ampere_plus":
        return device
    least = replace(
        device.architecture,
        compute_capability=AMPERE,
        shared_bytes_per_block=AMPERE_PLUS_SHARED_BYTES - RESERVED_SHARED_BYTES,
    )
    return replace(device, name="every GPU from Ampere on", architecture=least)


def other_gpus(level: HardwareCompatibility) -> tuple[int, ...]:
    """The compute capabilities, as far as they are known, that an engine of this level may meet."""
    return tuple(c for c in ARCHITECTURES if c >= AMPERE) if level == "ampere_plus" else ()


def check_library(library: Path, device: Device, level: HardwareCompatibility) -> None:
    """Raise TdcError if the plugin library lacks code for a GPU that may run the engine."""
    if not other_gpus(level):
        return
    text = str(Library(library).build_info().get("architectures", ""))
    built = [int(part) for part in text.split(",") if part.isdigit()]
    missing = [gpu for gpu in other_gpus(level) if not has_code_for(built, gpu)]
    if missing:
        listed = ", ".join(f"{gpu / 10}" for gpu in missing)
        raise TdcError(
            f"{library} is built for {text or 'no architecture'}, and does not run on GPUs of compute "
            f"capability {listed}",
            expected=f"code for every GPU that --hardware-compatibility-level {level} is for",
            fix=f"build it: {build_command([device.compute_capability], other_gpus(level))}",
        )
