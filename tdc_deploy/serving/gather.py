"""The artifacts of one version: one for every GPU, or an engine for each compute capability."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tdc_deploy.errors import TdcError
from tdc_deploy.serving.model import ServedModel, read_served
from tdc_deploy.serving.options import ServingOptions

_CAPABILITY = re.compile(r"\d+\.\d+")


def read_artifacts(
    artifact: Path | None, engines: dict[str, Path], options: ServingOptions
) -> dict[str, ServedModel]:
    """The artifacts by compute capability, "" for the one for all others.

    Raises:
        TdcError: there is none, one cannot be read, or they are not of one model.
    """
    paths = ({} if artifact is None else {"": artifact}) | engines
    if not paths:
        raise TdcError("no artifact", expected="an .onnx, .engine or .plan file, or --engine")
    if engines and options.variant == "python":
        raise TdcError("engines per GPU in the python variant", expected="one artifact")
    models = {key: read_served(path) for key, path in paths.items()}
    if engines:
        for capability in engines:
            _check_capability(capability, models[capability])
        by_path = {str(model.path): model for model in models.values()}
        _check_alike(by_path, lambda model: "engine" if model.is_engine else "ONNX", "the kinds")
        _check_alike(by_path, lambda model: model.signature, "inputs and outputs")
        _check_alike(by_path, lambda model: model.tensorrt, "the TensorRT version")
        _check_alike(by_path, lambda model: model.plugin, "the plugin")
    return models


def _check_capability(capability: str, model: ServedModel) -> None:
    if not _CAPABILITY.fullmatch(capability):
        raise TdcError(f"compute capability {capability!r}", expected="such as 8.0 or 9.0")
    if not model.is_engine:
        raise TdcError(f"{model.path} is no engine", expected="a TensorRT engine for each GPU")
    if model.capability not in (None, capability):
        raise TdcError(
            f"{model.path} for compute capability {capability}",
            expected=f"{model.capability}, which it was built for",
        )


def file_name(capability: str, model: ServedModel, options: ServingOptions) -> str:
    """model.onnx or model.plan, as Triton expects it; our Session knows engines by .engine."""
    if not model.is_engine:
        return "model.onnx"
    if options.variant == "python":
        return "model.engine"
    return f"model_{capability}.plan" if capability else "model.plan"


def _check_alike(
    models: Mapping[str, ServedModel], key: Callable[[ServedModel], Any], what: str
) -> None:
    (first, value), *others = ((name, key(model)) for name, model in models.items())
    for name, other in others:
        if other != value:
            raise TdcError(
                f"{what} of {first} and {name} differ: {value} and {other}",
                expected="engines of one model, built alike for each GPU",
            )
