"""What a server must know of an artifact: its inputs and outputs with their ranges, and its versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tdc_deploy.errors import TdcError
from tdc_deploy.files import files_sha256
from tdc_deploy.graph.read import load_checked, model_files
from tdc_deploy.runtime.session import ENGINE_SUFFIXES
from tdc_deploy.sidecar import read_sidecar

Dim = int | str | None
Sizes = tuple[int, ...]

ONNX_SUFFIXES = (".onnx",)


@dataclass(frozen=True)
class ServedTensor:
    """An input or output. Open sizes are None or a name; `least`, `usual` and `most` are the shapes
    that an engine was built for, None where there is no such range.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    least: Sizes | None = None
    usual: Sizes | None = None
    most: Sizes | None = None

    def takes(self, sizes: Sizes) -> bool:
        """Whether these sizes agree with the shape; the range is not looked at."""
        return len(sizes) == len(self.shape) and all(
            size == dim or not isinstance(dim, int)
            for size, dim in zip(sizes, self.shape, strict=True)
        )


@dataclass(frozen=True)
class ServedModel:
    """An artifact and the files beside it that it needs.

    Of an engine: `tensorrt` is the version that built it, `capability` the GPU's that it is bound to
    ("9.0"; None if not known, or if it runs on several), `plugin` what the sidecar says of the plugin
    library that it needs, None if it needs none.
    """

    path: Path
    inputs: tuple[ServedTensor, ...]
    outputs: tuple[ServedTensor, ...]
    weights: tuple[Path, ...] = ()
    tensorrt: str | None = None
    capability: str | None = None
    plugin: Mapping[str, Any] | None = None

    @property
    def is_engine(self) -> bool:
        """True for a TensorRT engine, false for ONNX."""
        return self.path.suffix in ENGINE_SUFFIXES

    @property
    def signature(self) -> tuple[Any, ...]:
        """What a client sees; engines of one model must agree in it."""
        return tuple((t.name, t.dtype, _open_as_none(t.shape)) for t in self.inputs + self.outputs)


def read_served(path: Path) -> ServedModel:
    """Read an artifact: ONNX says itself what it takes, an engine's sidecar says it.

    Raises:
        TdcError: no such file, another kind of file, or a sidecar that does not say it.
    """
    if path.suffix not in ONNX_SUFFIXES + ENGINE_SUFFIXES:
        raise TdcError(
            f"{path} is no artifact", expected="a file ending in .onnx, .engine or .plan"
        )
    if not path.is_file():
        raise TdcError(f"no artifact at {path}", fix="check the path")
    return _read_onnx(path) if path.suffix in ONNX_SUFFIXES else _read_engine(path)


def _read_onnx(path: Path) -> ServedModel:
    graph = load_checked(path).graph
    constants = {tensor.name for tensor in graph.initializer}
    return ServedModel(
        path,
        tuple(_onnx_tensor(value) for value in graph.input if value.name not in constants),
        tuple(_onnx_tensor(value) for value in graph.output),
        weights=_weights(path),
    )


def _weights(path: Path) -> tuple[Path, ...]:
    found = tuple(model_files(path)[1:])
    for file in found:
        if not file.resolve().is_relative_to(path.parent.resolve()):
            raise TdcError(f"the weights {file} are not in the folder of {path}", fix="move them")
    return found


def _onnx_tensor(value: onnx.ValueInfoProto) -> ServedTensor:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise TdcError(f"{value.name!r} is no tensor", expected="tensors in and out")
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in tensor.shape.dim
    )
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    return ServedTensor(value.name, dtype, shape)


def _read_engine(path: Path) -> ServedModel:
    sidecar = read_sidecar(path)
    if sidecar is None:
        raise TdcError(
            f"{path} has no sidecar",
            expected=f"{path.name}.json beside it, which says what the engine takes",
            fix="copy it there, or build the engine with tdc-deploy build",
        )
    try:
        inputs = tuple(_engine_input(entry) for entry in sidecar["inputs"])
        outputs = tuple(_engine_output(entry) for entry in sidecar["outputs"])
        version, plugin = sidecar["backend"]["version"], sidecar["plugin"]
        capability = _capability(sidecar)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TdcError(
            f"the sidecar of {path} does not say what the engine takes: {error!r}",
            expected="inputs with name, dtype, min, opt and max; outputs with name, dtype and shape; "
            "backend.version; plugin",
            fix="build the engine again with this version of tdc-deploy",
        ) from None
    return ServedModel(
        path, inputs, outputs, tensorrt=str(version), capability=capability, plugin=plugin
    )


def _capability(sidecar: Mapping[str, Any]) -> str | None:
    if sidecar.get("engine", {}).get("hardware_compatibility_level") == "ampere_plus":
        return None
    found = sidecar["backend"].get("compute_capability")
    return None if found is None else str(found)


def _engine_input(entry: Mapping[str, Any]) -> ServedTensor:
    least, usual, most = (tuple(map(int, entry[key])) for key in ("min", "opt", "max"))
    shape = tuple(low if low == high else None for low, high in zip(least, most, strict=True))
    return ServedTensor(_name(entry), _dtype(entry), shape, least, usual, most)


def _engine_output(entry: Mapping[str, Any]) -> ServedTensor:
    # TensorRT writes an open size as -1.
    shape = tuple(None if size == -1 else int(size) for size in entry["shape"])
    return ServedTensor(_name(entry), _dtype(entry), shape)


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry["name"])


def _dtype(entry: Mapping[str, Any]) -> str:
    return str(np.dtype(entry["dtype"]).name)


def _open_as_none(shape: tuple[Dim, ...]) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in shape)


def artifact_sha256(model: ServedModel) -> str:
    """Hex digest of the artifact and its weights."""
    return files_sha256([model.path, *model.weights])
