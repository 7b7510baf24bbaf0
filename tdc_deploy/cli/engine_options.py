"""Options of TensorRT engines, with trtexec's spellings as aliases, and what they parse to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from tdc_deploy.cli.options import parse_shapes
from tdc_deploy.errors import TdcError

if TYPE_CHECKING:
    from tdc_deploy.backends.tensorrt.options import EngineOptions

PANEL = "TensorRT engines"
MIB_OF = {"": 1.0, "K": 2.0**-10, "M": 1.0, "G": 2.0**10, "B": 2.0**-20}

PrecisionOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="Of an engine fp32 (default), tf32, fp16 or int8 (beside fp16). Of an ONNX file fp16 or int8, "
        "beside fp32. What is beside ships if it is faster within the limits.",
        rich_help_panel=PANEL,
    ),
]

PlanPrecisionOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="fp32 (default), tf32, fp16 or int8 (beside fp16), with --backend tensorrt.",
        rich_help_panel=PANEL,
    ),
]
IoPrecisionOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="Type of float inputs and outputs: fp32 (default), or fp16 with --precision fp16.",
        rich_help_panel=PANEL,
    ),
]


def _shapes(which: str, alias: str, text: str) -> Any:
    return typer.Option(f"--{which}", alias, help=text, rich_help_panel=PANEL)


MinShapesOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    _shapes("min-shapes", "--minShapes", "Least input shapes, as name:1x3x224x224[,name:...]."),
]
OptShapesOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    _shapes("opt-shapes", "--optShapes", "Input shapes to be fastest at."),
]
MaxShapesOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    _shapes("max-shapes", "--maxShapes", "Largest input shapes."),
]
WorkspaceOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--workspace",
        "--memPoolSize",
        help="Limit of scratch memory in MiB, as 4096 or workspace:4096.",
        rich_help_panel=PANEL,
    ),
]
LevelOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        "--builder-optimization-level",
        "--builderOptimizationLevel",
        help="0 (fast build) to 5 (fast engine).",
        rich_help_panel=PANEL,
    ),
]
TimingCacheOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--timing-cache",
        "--timing-cache-file",
        "--timingCacheFile",
        help="File that keeps TensorRT's timings between builds.",
        rich_help_panel=PANEL,
    ),
]
VersionCompatibleOption = Annotated[
    bool,
    typer.Option(
        "--version-compatible",
        "--versionCompatible",
        help="The engine loads in later TensorRT versions of the same major.",
        rich_help_panel=PANEL,
    ),
]
HardwareCompatibilityOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--hardware-compatibility-level",
        "--hardwareCompatibilityLevel",
        help="none, ampere+ or same_compute_capability.",
        rich_help_panel=PANEL,
    ),
]
RefitOption = Annotated[
    bool, typer.Option("--refit", help="Its weights can be replaced.", rich_help_panel=PANEL)
]
SparsityOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="disable (default), or enable: sparse kernels for 2:4 sparse weights where faster.",
        rich_help_panel=PANEL,
    ),
]
NoLibraryTacticsOption = Annotated[
    bool,
    typer.Option(
        "--no-library-tactics", help="Do without cuBLAS and cuDNN.", rich_help_panel=PANEL
    ),
]
PluginModeOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--plugin-mode",
        help="library (default), or embedded: small fused kernels travel in the engine, which then "
        "needs no library (TensorRT 10.9 and newer, nvcc).",
        rich_help_panel=PANEL,
    ),
]


def parse(
    *,
    precision: str | None,
    io_precision: str | None,
    min_shapes: list[str] | None,
    opt_shapes: list[str] | None,
    max_shapes: list[str] | None,
    workspace: str | None,
    level: int | None,
    timing_cache: Path | None,
    version_compatible: bool,
    hardware_compatibility: str | None,
    refit: bool,
    library_tactics: bool,
    plugin_mode: str | None,
    sparsity: str | None,
) -> EngineOptions | None:
    """The options, or None if none of them was given."""
    from tdc_deploy.backends.tensorrt.options import EngineOptions

    given = EngineOptions(
        precision="fp16" if precision == "int8" else precision or "fp32",  # type: ignore[arg-type]  # checked
        io_precision=io_precision or "fp32",  # type: ignore[arg-type]
        min_shapes=parse_shapes(min_shapes),
        opt_shapes=parse_shapes(opt_shapes),
        max_shapes=parse_shapes(max_shapes),
        workspace_mib=parse_workspace(workspace),
        optimization_level=level,
        timing_cache=timing_cache,
        version_compatible=version_compatible,
        hardware_compatibility=_level(hardware_compatibility),  # type: ignore[arg-type]
        refit=refit,
        library_tactics=library_tactics,
        plugin_mode=plugin_mode or "library",  # type: ignore[arg-type]
        sparsity=sparsity or "disable",  # type: ignore[arg-type]
    )
    given = given if precision is None else given.with_precision(precision)
    untouched = precision is None and plugin_mode is None and given == EngineOptions()
    return None if untouched else given


def for_backend(backend: str, given: EngineOptions | None) -> EngineOptions | None:
    """The engine options of a plan's backend: None on ONNX Runtime.

    Raises:
        TdcError: no such backend, or options of engines without engines.
    """
    from tdc_deploy.backends.tensorrt.options import EngineOptions

    if backend == "tensorrt":
        return given or EngineOptions()
    if backend != "onnxruntime":
        raise TdcError(f"--backend is {backend!r}", expected="onnxruntime or tensorrt")
    if given is not None:
        raise TdcError(
            "options of TensorRT engines for a plan on ONNX Runtime",
            fix="add --backend tensorrt, or leave them out",
        )
    return None


def parse_workspace(value: str | None) -> float | None:
    """MiB of `"4096"`, `"workspace:4096"` or, as trtexec takes it, `"workspace:4G"`."""
    if value is None:
        return None
    found = re.fullmatch(r"(?:workspace:)?(\d+(?:\.\d+)?)([KMGB]?)(?:iB)?", value)
    if found is None:
        raise TdcError(f"--workspace is {value!r}", expected="MiB, as 4096 or workspace:4096")
    return float(found[1]) * MIB_OF[found[2]]


def _level(value: str | None) -> str:
    """Trtexec writes ampere+ and sameComputeCapability."""
    known = {"ampere+": "ampere_plus", "sameComputeCapability": "same_compute_capability"}
    return "none" if value is None else known.get(value, value)
