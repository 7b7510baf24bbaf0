"""What is in a TensorRT engine: its sidecar, and its layers where TensorRT can load it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tdc_deploy.errors import TdcError
from tdc_deploy.sidecar import read_sidecar


def inspect_engine(path: Path) -> dict[str, Any]:
    """`sidecar`, as it was written, or None; `layers` as TensorRT tells them, or None; `note` says why.

    Raises:
        TdcError: there is no such file, its sidecar is another's, or neither is to be had.
    """
    if not path.is_file():
        raise TdcError(f"no engine at {path}", fix="check the path")
    sidecar = read_sidecar(path)
    layers, note = None, ""
    try:
        layers = _layers(path, sidecar)
    except TdcError as error:
        note = error.received
    if sidecar is None and layers is None:
        raise TdcError(
            f"{path} has no sidecar, and its layers cannot be read: {note}",
            expected=f"{path}.json beside it, or a TensorRT that loads it",
        )
    return {"file": path.name, "sidecar": sidecar, "layers": layers, "note": note}


def _layers(path: Path, sidecar: dict[str, Any] | None) -> list[dict[str, str]]:
    if find_spec("tensorrt") is None:
        raise TdcError("the Python package tensorrt is not installed")
    from tdc_deploy.backends.tensorrt.api import tensorrt, version_of
    from tdc_deploy.backends.tensorrt.engine import load_engine, read_text
    from tdc_deploy.backends.tensorrt.inspector import read_layers
    from tdc_deploy.plugin.driver import compute_capabilities
    from tdc_deploy.plugin.locate import find_plugin
    from tdc_deploy.runtime.plugin_library import register_plugin

    # Without a GPU TensorRT hands out junk instead of an error.
    if not compute_capabilities():
        raise TdcError("no NVIDIA GPU to load the engine on")
    trt = tensorrt()
    if sidecar is None or sidecar["plugin"] is not None:
        register_plugin(trt, find_plugin(version_of(trt)[0]))
    shapes = {entry["name"]: tuple(entry["opt"]) for entry in (sidecar or {}).get("inputs", ())}
    found = read_layers(read_text(trt, load_engine(path.read_bytes()), shapes or None))
    return [
        {
            "name": layer.name,
            "kind": layer.kind,
            "inputs": ", ".join(tensor.dtype or "?" for tensor in layer.inputs),
            "outputs": ", ".join(tensor.dtype or "?" for tensor in layer.outputs),
            "tactic": layer.tactic,
        }
        for layer in found
    ]
