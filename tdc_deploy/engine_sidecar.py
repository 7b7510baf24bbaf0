"""Write an engine with its sidecar: what is in it, what it takes, and what it was built with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdc_deploy.artifact import Artifact, Beside, describe, write_with_sidecar
from tdc_deploy.backends.tensorrt.engine import Engine
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.backends.tensorrt.profiles import Ranges
from tdc_deploy.graph.functions import OPERATORS
from tdc_deploy.plugin.library import Library
from tdc_deploy.profiling.analytical.devices import Device
from tdc_deploy.source import Source
from tdc_deploy.versions import installed_version

if TYPE_CHECKING:
    from tdc_deploy.engine_forms import Built


def write_engine(
    artifact: Artifact,
    chosen: Built,
    built: Mapping[str, Built],
    chains: Mapping[str, str],
    source: Source,
    ranges: Ranges,
    options: EngineOptions,
    device: Device,
    plugin: Path | None,
    beside: Beside | None = None,
) -> None:
    """Write the chosen engine, its sidecar and what belongs beside them, all or nothing.

    `chains` says of each chain whether it is fused, native or dense; `plugin` is the library that the
    engine needs when it is loaded, None if it needs none.
    """
    description = describe(artifact, source, backend_of(device, chosen.engine))
    description |= engine_fields(chosen.engine, ranges, options)
    description["plugin"] = None if plugin is None else plugin_fields(plugin)
    description["engine"]["form"] = chosen.form
    description["engine"]["ptx"] = chosen.prepared.ptx
    description["engine"]["chains"] = dict(chains)
    description["engine"]["forms"] = {
        form: {
            "time_ms": entry.ratio.after.median,
            "ratio": entry.ratio.value,
            "error": entry.comparison.error,
            "precision": entry.engine.precision.name,
            "int8_layers": list(entry.int8),
            "float32_nodes": list(entry.prepared.exact),
        }
        for form, entry in built.items()
    }
    write_with_sidecar(artifact, chosen.engine.plan, description, beside)


def engine_fields(engine: Engine, ranges: Ranges, options: EngineOptions) -> dict[str, Any]:
    """Precision as built, inputs and outputs, and how the engine was built."""
    return {
        "precision": sorted(engine.precision.layers),
        "inputs": [
            {
                "name": name,
                "dtype": dtype,
                "min": list(ranges[name].min),
                "opt": list(ranges[name].opt),
                "max": list(ranges[name].max),
            }
            for name, (dtype, _) in engine.inputs.items()
        ],
        "outputs": [
            {"name": name, "dtype": dtype, "shape": list(shape)}
            for name, (dtype, shape) in engine.outputs.items()
        ],
        "engine": {
            "precision_asked": options.asked,
            "io_precision": options.io_precision,
            "precision_built": engine.precision.name,
            "layers_by_type": engine.precision.layers,
            "workspace_mib": options.workspace_mib,
            "builder_optimization_level": options.optimization_level,
            "version_compatible": options.version_compatible,
            "hardware_compatibility_level": options.hardware_compatibility,
            "refit": options.refit,
            "sparsity": options.sparsity,
            "plugin_mode": options.plugin_mode,
        },
    }


def backend_of(device: Device, engine: Engine) -> dict[str, str]:
    """What the engine was built by and for."""
    return {
        "backend": "tensorrt",
        "version": engine.tensorrt,
        "cuda-python": installed_version("cuda-python"),
        "device": device.name,
        "compute_capability": f"{device.compute_capability // 10}.{device.compute_capability % 10}",
        "precision": engine.precision.name,
    }


def plugin_fields(library: Path) -> dict[str, Any]:
    """Which plugin library the engine needs."""
    return {
        "name": library.name,
        "operators": list(OPERATORS),
        "version": str(Library(library).build_info()["version"]),
        "sha256": hashlib.sha256(library.read_bytes()).hexdigest(),
    }
