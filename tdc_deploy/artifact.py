"""The built file and its sidecar: what was built, from what, how fast and how close."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from tdc_deploy.files import write_whole
from tdc_deploy.graph.large import content_sha256, file_content, is_large, outside, shell
from tdc_deploy.plan_file import Plan, plan_to_json
from tdc_deploy.sidecar import FORMAT, VERSION
from tdc_deploy.source import Source
from tdc_deploy.strict_json import dumps
from tdc_deploy.types import Ratio
from tdc_deploy.verify import Comparison
from tdc_deploy.versions import library_versions

Decision = Literal["compressed", "fused", "converted", "source"]
"""compressed: by a plan; fused: it came in as chains; converted: to another precision, its layers as they
came; source: the model as it came in."""


@dataclass(frozen=True)
class Artifact:
    """What a build wrote and what was measured on it.

    `comparison` and `ratio` are those of the shipped file against the source; where that is `refused`,
    they are those of the network that was not shipped, and `reason` says why.
    """

    path: Path
    sidecar: Path
    decision: Decision
    reason: str
    plan: Plan | None
    comparison: Comparison
    ratio: Ratio
    warnings: tuple[str, ...]

    @property
    def verified(self) -> bool:
        """True if real inputs were compared."""
        return self.comparison.verified

    @property
    def refused(self) -> bool:
        """True if the file is the source's own. An engine never is, even if it is in the source's form."""
        return self.decision == "source" and self.path.suffix == ".onnx"


Beside = Callable[[Artifact, Mapping[str, Any]], Mapping[Path, bytes]]
"""What else to write with an artifact, given its sidecar's content."""


def write_artifact(
    artifact: Artifact,
    model: onnx.ModelProto,
    source: Source,
    backend: Mapping[str, str],
    beside: Beside | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write the model, its sidecar and what belongs beside them, all or nothing; of a model that protobuf
    cannot write in one piece, the weights in a file of their own. `details` go into the sidecar.
    """
    weights = outside(model) if is_large(model) else []
    description = describe(artifact, source, backend) | {
        "precision": sorted(_weight_types(model)),
        "inputs": [_value(value) for value in model.graph.input],
        "outputs": [_value(value) for value in model.graph.output],
        **(details or {}),
    }
    if not weights:
        write_with_sidecar(artifact, model.SerializeToString(), description, beside)
        return
    sha256 = content_sha256(weights)
    # Named after its content: an interrupted build leaves the weights of the artifact that was there.
    file = artifact.path.with_name(f"{artifact.path.name}.{sha256[:12]}.data")
    description["weights"] = {"file": file.name, "sha256": sha256, "bytes": weights[-1].end}
    content = shell(model, weights, file.name).SerializeToString()
    write_with_sidecar(artifact, content, description, beside, {file: file_content(weights)})


def write_with_sidecar(
    artifact: Artifact,
    content: bytes,
    description: dict[str, Any],
    beside: Beside | None = None,
    weights: Mapping[Path, Iterable[bytes]] | None = None,
) -> None:
    """Write the file, a sidecar of this content, to which the file's hash is added, what belongs beside
    them, and the file of its weights if it has one; all or nothing.
    """
    description["artifact"] = {
        "file": artifact.path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    text = dumps(description) + "\n"
    more = {} if beside is None else beside(artifact, description)
    files: dict[Path, bytes | Iterable[bytes]] = {**(weights or {}), artifact.path: content}
    files |= {artifact.sidecar: text.encode(), **more}
    write_whole(files)


def describe(artifact: Artifact, source: Source, backend: Mapping[str, str]) -> dict[str, Any]:
    """The sidecar's content that every backend has; precision, inputs and outputs are not in it."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "source": {"file": source.path.name, "sha256": source.sha256},
        "decision": artifact.decision,
        "reason": artifact.reason,
        "accuracy": "VERIFIED" if artifact.verified else "UNVERIFIED",
        "warnings": list(artifact.warnings),
        "network": asdict(artifact.ratio),
        "verification": asdict(artifact.comparison),
        "planned_shapes": {name: list(shape) for name, shape in source.inputs.items()},
        "plan": None if artifact.plan is None else plan_to_json(artifact.plan),
        "plugin": None,
        "backend": dict(backend),
        "libraries": {"python": platform.python_version(), **library_versions()},
    }


def _weight_types(model: onnx.ModelProto) -> set[str]:
    types = {t.data_type for t in model.graph.initializer if len(t.dims) >= 2}
    return {np.dtype(onnx.helper.tensor_dtype_to_np_dtype(t)).name for t in types}


def _value(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    dims = [
        d.dim_param or (d.dim_value if d.HasField("dim_value") else None) for d in tensor.shape.dim
    ]
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    return {"name": value.name, "dtype": dtype, "shape": dims}
