"""The kernels that may travel in an engine, and which of them a layer can use.

TensorRT launches such a kernel itself: once per layer, without a workspace, and with the shared memory
that every kernel gets. That leaves the fused family without splits, in the small configurations of
plugins/embedded/configs.def.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from tdc_deploy.plugin.sources import source_root
from tdc_deploy.profiling.analytical.devices import KIB, Device
from tdc_deploy.profiling.analytical.model import (
    PRECISIONS,
    PrecisionName,
    is_legal,
    predict,
    rank,
    shared_bytes,
)
from tdc_deploy.profiling.analytical.shapes import TuckerShape
from tdc_deploy.profiling.analytical.tactics import Arithmetic, FusedConfig, Tactic, parse_configs

# What a kernel gets without cudaFuncSetAttribute, which TensorRT is not known to call for it.
SHARED_BYTES = 48 * KIB

# Each takes seconds to compile, and TensorRT times each.
MOST_KERNELS = 4

ENTRY = "tdc_tucker_conv"

Slopes = tuple[float, float, float]

_ARITHMETIC_CLASSES: Mapping[Arithmetic, str] = {"f16": "F16", "tf32": "Tf32", "f32": "F32"}


@dataclass(frozen=True)
class EmbeddedKernel:
    """A kernel of one layer: its number as a tactic, how it is launched, and its CUDA source.

    `number` means something only within the layer's engine; `tile` is output pixels (height, width).
    """

    number: int
    tile: tuple[int, int]
    threads: int
    shared_bytes: int
    source: str


@cache
def embedded_tactics() -> tuple[Tactic, ...]:
    """The configurations of plugins/embedded/configs.def; their numbers are not the library's."""
    path = source_root() / "plugins" / "embedded" / "configs.def"
    tactics = parse_configs(path.read_text(encoding="utf-8").splitlines())
    return tuple(tactic for tactic in tactics if tactic.split == "none")


def fitting_tactics(
    shape: TuckerShape, device: Device, precision: PrecisionName, least: Device | None = None
) -> list[Tactic]:
    """The configurations that can run a layer, those first that should be fastest on `device`.

    Where `least` is given, they are those that it can run too.
    """
    fitting = [
        tactic
        for tactic in embedded_tactics()
        if tactic.arithmetic in PRECISIONS[precision]
        and is_legal(tactic, shape, device)
        and (least is None or is_legal(tactic, shape, least))
        and shared_bytes(tactic, shape) <= SHARED_BYTES
    ]
    return sorted(fitting, key=lambda tactic: predict(tactic, shape, device).us)


def why_not(
    shape: TuckerShape, device: Device, precision: PrecisionName, least: Device | None = None
) -> str | None:
    """Why a layer had better stay three convolutions, or None."""
    fitting = fitting_tactics(shape, device, precision, least)
    if not fitting:
        return f"no fused kernel of it fits in {SHARED_BYTES // KIB} KB of shared memory"
    best = predict(fitting[0], shape, device).us
    apart = [
        prediction.us
        for prediction in rank(shape, device, PRECISIONS[precision], limit=None)
        if prediction.tactic.family == "unfused"
    ]
    if apart and min(apart) < best:
        return (
            f"its fused kernel of at most {SHARED_BYTES // KIB} KB of shared memory is predicted to "
            f"take {best:.1f} us, three launches {min(apart):.1f} us"
        )
    return None


def embedded_kernels(
    shape: TuckerShape,
    slopes: Slopes,
    device: Device,
    precision: PrecisionName,
    least: Device | None = None,
) -> list[EmbeddedKernel]:
    """At most `MOST_KERNELS` kernels for a layer."""
    return [
        _kernel(tactic, tactic.config, shape, slopes)
        for tactic in fitting_tactics(shape, device, precision, least)[:MOST_KERNELS]
        if isinstance(tactic.config, FusedConfig)
    ]


def _kernel(
    tactic: Tactic, config: FusedConfig, shape: TuckerShape, slopes: Slopes
) -> EmbeddedKernel:
    return EmbeddedKernel(
        tactic.number,
        (config.tile_h, config.tile_w),
        config.threads,
        shared_bytes(tactic, shape),
        _source(tactic, config, shape, slopes),
    )


def _source(tactic: Tactic, config: FusedConfig, shape: TuckerShape, slopes: Slopes) -> str:
    """What plugins/embedded/tucker_conv.cuh wants defined, and the file itself."""
    sizes = (config.tile_h, config.tile_w, config.rows, config.warps_m, config.warps_n)
    window = (*shape.kernel, *shape.strides, *shape.pads[:2], *shape.dilations)
    defined = {
        "ENTRY": ENTRY,
        "ARITHMETIC": _ARITHMETIC_CLASSES[tactic.arithmetic],
        "CONFIG": ", ".join(map(str, (*sizes, config.columns, config.stages))),
        "RESIDUAL": str(int(shape.residual)),
        "WINDOW": ", ".join(map(str, window)),
        # In hexadecimal, which is exact.
        "SLOPES": ", ".join(f"{float(slope).hex()}f" for slope in slopes),
    }
    lines = [f"#define TDC_EMBEDDED_{name} {value}" for name, value in defined.items()]
    return "\n".join([*lines, '#include "embedded/tucker_conv.cuh"', ""])
