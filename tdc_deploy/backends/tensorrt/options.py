"""What a user may ask of an engine's build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal, get_args

from tdc_deploy.backends.tensorrt.api import (
    COMPATIBILITY,
    EMBEDDED,
    OPTIMIZATION_LEVEL,
    Version,
)
from tdc_deploy.errors import TdcError
from tdc_deploy.graph.shapes import Shape
from tdc_deploy.profiling.analytical.model import PRECISIONS, PrecisionName

HardwareCompatibility = Literal["none", "ampere_plus", "same_compute_capability"]
IoPrecision = Literal["fp32", "fp16"]
PluginMode = Literal["library", "embedded"]
Sparsity = Literal["disable", "enable"]
LEVELS = range(6)


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is built; what is None is left to TensorRT.

    Attributes:
        precision: fp32 (TF32 off), tf32 or fp16.
        int8: whether layers may be in INT8, beside `precision`; see `with_precision`.
        io_precision: of inputs and outputs that are float32 in the model; fp16 is for engines of fp16.
        min_shapes, opt_shapes, max_shapes: of inputs with open dimensions.
        workspace_mib: limit of the scratch memory of a layer.
        timing_cache: a file that keeps TensorRT's kernel timings between builds.
        plugin_mode: whether fused layers run from the plugin library, or from kernels in the engine.
        sparsity: enable lets TensorRT choose sparse kernels, where they are faster, for weights that are
            2:4 sparse along their input channels (Ampere and newer).
        library_tactics: whether cuBLAS and cuDNN may be used (TensorRT 8 and 10).

    Raises:
        TdcError: a value that does not exist.
    """

    precision: PrecisionName = "fp32"
    min_shapes: Mapping[str, Shape] = field(default_factory=dict)
    opt_shapes: Mapping[str, Shape] = field(default_factory=dict)
    max_shapes: Mapping[str, Shape] = field(default_factory=dict)
    workspace_mib: float | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware_compatibility: HardwareCompatibility = "none"
    refit: bool = False
    library_tactics: bool = True
    io_precision: IoPrecision = "fp32"
    plugin_mode: PluginMode = "library"
    int8: bool = False
    sparsity: Sparsity = "disable"

    def __post_init__(self) -> None:
        _check_in("--precision", self.precision, tuple(PRECISIONS))
        _check_in("--io-precision", self.io_precision, get_args(IoPrecision))
        if self.io_precision == "fp16" and self.precision != "fp16":
            raise TdcError(
                f"--io-precision fp16 with --precision {self.precision}",
                expected="inputs and outputs no less exact than what is computed",
                fix="add --precision fp16",
            )
        levels = get_args(HardwareCompatibility)
        _check_in("--hardware-compatibility-level", self.hardware_compatibility, levels)
        _check_in("--plugin-mode", self.plugin_mode, get_args(PluginMode))
        _check_in("--sparsity", self.sparsity, get_args(Sparsity))
        if self.workspace_mib is not None and not self.workspace_mib > 0:
            raise TdcError(f"--workspace is {self.workspace_mib}", expected="MiB, above 0")
        if self.optimization_level is not None and self.optimization_level not in LEVELS:
            raise TdcError(
                f"--builder-optimization-level is {self.optimization_level}", expected="0 to 5"
            )

    def with_precision(self, asked: str) -> EngineOptions:
        """These options for a precision that a user asks for: int8 stands beside fp16.

        Raises:
            TdcError: there is no such precision.
        """
        if asked != "int8":
            return replace(self, precision=asked, int8=False)  # type: ignore[arg-type]  # it checks
        return replace(self, precision="fp16", int8=True)

    @property
    def asked(self) -> str:
        """The precision, as a user says it."""
        return "int8" if self.int8 else self.precision

    def given(self) -> dict[str, object]:
        """The precision, and what is not as it is by default."""
        usual = EngineOptions()
        changed = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            name: value
            for name, value in changed.items()
            if name == "precision" or value != getattr(usual, name)
        }

    def check_version(self, version: Version) -> None:
        """Raise TdcError if that TensorRT lacks something that is asked for."""
        wanted = {
            "--builder-optimization-level": (self.optimization_level, OPTIMIZATION_LEVEL),
            "--version-compatible": (self.version_compatible or None, COMPATIBILITY),
            "--hardware-compatibility-level": (
                None if self.hardware_compatibility == "none" else 1,
                COMPATIBILITY,
            ),
            "--plugin-mode embedded": (
                True if self.plugin_mode == "embedded" else None,
                EMBEDDED,
            ),
        }
        for flag, (value, first) in wanted.items():
            if value is not None and version < first:
                found = ".".join(map(str, version))
                raise TdcError(
                    f"{flag} with TensorRT {found}",
                    expected=f"TensorRT {first[0]}.{first[1]} or newer",
                    fix=f"leave {flag} out",
                )


def _check_in(flag: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise TdcError(f"{flag} is {value!r}", expected=f"one of {', '.join(known)}")
