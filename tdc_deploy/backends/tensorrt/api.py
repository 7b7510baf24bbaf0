"""TensorRT's Python package: imported when it is used, and which of its names are in which version."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from tdc_deploy.errors import TdcError

Version = tuple[int, int]

OLDEST: Version = (8, 5)

# From here on networks are strongly typed: the precision is what the ONNX file says.
STRONGLY_TYPED: Version = (10, 0)
PROGRESS_MONITOR: Version = (10, 0)
OPTIMIZATION_LEVEL: Version = (8, 6)
COMPATIBILITY: Version = (8, 6)
# Ahead-of-time Python plugins.
EMBEDDED: Version = (10, 9)

NAMES: dict[str, tuple[Version, Version | None]] = {
    "Builder.create_network": (OLDEST, None),
    "Builder.create_builder_config": (OLDEST, None),
    "Builder.build_serialized_network": (OLDEST, None),
    "BuilderFlag.FP16": (OLDEST, (11, 0)),
    "BuilderFlag.INT8": (OLDEST, (11, 0)),
    "BuilderFlag.TF32": (OLDEST, None),
    "BuilderFlag.OBEY_PRECISION_CONSTRAINTS": (OLDEST, (11, 0)),
    "ILayer.precision": (OLDEST, (11, 0)),
    "ILayer.get_output_type": (OLDEST, None),
    "ILayer.set_output_type": (OLDEST, (11, 0)),
    "BuilderFlag.REFIT": (OLDEST, None),
    "BuilderFlag.SPARSE_WEIGHTS": (OLDEST, None),
    "BuilderFlag.VERSION_COMPATIBLE": (COMPATIBILITY, None),
    "HardwareCompatibilityLevel.AMPERE_PLUS": (COMPATIBILITY, None),
    "IBuilderConfig.hardware_compatibility_level": (COMPATIBILITY, None),
    "IBuilderConfig.builder_optimization_level": (OPTIMIZATION_LEVEL, None),
    "IBuilderConfig.add_optimization_profile": (OLDEST, None),
    "IBuilderConfig.set_memory_pool_limit": (OLDEST, None),
    "IBuilderConfig.set_tactic_sources": (OLDEST, None),
    "IBuilderConfig.create_timing_cache": (OLDEST, None),
    "IBuilderConfig.get_timing_cache": (OLDEST, None),
    "IBuilderConfig.set_timing_cache": (OLDEST, None),
    "IBuilderConfig.profiling_verbosity": (OLDEST, None),
    "IBuilderConfig.progress_monitor": (PROGRESS_MONITOR, None),
    "IProgressMonitor.phase_start": (PROGRESS_MONITOR, None),
    "IProgressMonitor.step_complete": (PROGRESS_MONITOR, None),
    "IProgressMonitor.phase_finish": (PROGRESS_MONITOR, None),
    "ICudaEngine.create_engine_inspector": (OLDEST, None),
    "ICudaEngine.num_io_tensors": (OLDEST, None),
    "ICudaEngine.get_tensor_name": (OLDEST, None),
    "ICudaEngine.get_tensor_mode": (OLDEST, None),
    "ICudaEngine.get_tensor_dtype": (OLDEST, None),
    "ICudaEngine.get_tensor_shape": (OLDEST, None),
    "EngineInspector.get_engine_information": (OLDEST, None),
    "EngineInspector.execution_context": (OLDEST, None),
    "ICudaEngine.create_execution_context": (OLDEST, None),
    "LayerInformationFormat.JSON": (OLDEST, None),
    "MemoryPoolType.WORKSPACE": (OLDEST, None),
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": (STRONGLY_TYPED, None),
    "INetworkDefinition.num_inputs": (OLDEST, None),
    "INetworkDefinition.get_input": (OLDEST, None),
    "INetworkDefinition.num_outputs": (OLDEST, None),
    "INetworkDefinition.num_layers": (OLDEST, None),
    "INetworkDefinition.get_layer": (OLDEST, None),
    "ILayer.num_outputs": (OLDEST, None),
    "INetworkDefinition.get_output": (OLDEST, None),
    "ITensor.allowed_formats": (OLDEST, None),
    "TensorFormat.LINEAR": (OLDEST, None),
    "TensorFormat.HWC": (OLDEST, None),
    "TensorFormat.HWC8": (OLDEST, None),
    "TensorFormat.CHW4": (OLDEST, None),
    "TensorFormat.CHW32": (OLDEST, None),
    "ITensor.dtype": (OLDEST, None),
    "OnnxParser.parse": (OLDEST, None),
    "ProfilingVerbosity.DETAILED": (OLDEST, None),
    "Runtime.deserialize_cuda_engine": (OLDEST, None),
    "TensorIOMode.INPUT": (OLDEST, None),
    "IExecutionContext.execute_async_v3": (OLDEST, None),
    "IExecutionContext.set_input_shape": (OLDEST, None),
    "IExecutionContext.set_tensor_address": (OLDEST, None),
    "IExecutionContext.get_tensor_shape": (OLDEST, None),
    "IPluginRegistry.load_library": (STRONGLY_TYPED, None),
    "IPluginRegistry.plugin_creator_list": (OLDEST, (11, 0)),
    "IPluginRegistry.all_creators": (STRONGLY_TYPED, None),
    "QuickPluginCreationRequest.STRICT_AOT": (EMBEDDED, None),
    "IPluginCreator.plugin_namespace": (OLDEST, None),
    "IPluginCreatorV3One.plugin_namespace": (STRONGLY_TYPED, None),
    "get_plugin_registry": (OLDEST, None),
    "init_libnvinfer_plugins": (OLDEST, None),
}
"""Every name that the package or Polygraphy on its behalf uses, with its first version and the first
that no longer has it. A test holds it against NVIDIA's packages."""


def tensorrt() -> Any:
    """The package `tensorrt`.

    Raises:
        TdcError: it cannot be imported, or is older than 8.5.
    """
    try:
        module = import_module("tensorrt")
    except (ImportError, OSError) as error:
        raise TdcError(
            f"the Python package tensorrt cannot be imported: {error}",
            expected="TensorRT 8.5 to 11 with its libraries",
            fix="pip install tensorrt, or build for ONNX Runtime: -o model.onnx",
        ) from None
    if version_of(module) < OLDEST:
        raise TdcError(f"TensorRT {module.__version__}", expected="8.5 to 11")
    return module


def version_of(module: Any) -> Version:
    """(major, minor) of the package."""
    found = re.match(r"(\d+)\.(\d+)", str(module.__version__))
    return (int(found[1]), int(found[2])) if found else (0, 0)
