"""The JSON beside a built file: where it is, and reading it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tdc_deploy.errors import TdcError
from tdc_deploy.files import files_sha256

FORMAT = "tdc-deploy artifact"
VERSION = 1


def sidecar_path(artifact: Path) -> Path:
    """`model.onnx` has `model.onnx.json`."""
    return artifact.with_name(artifact.name + ".json")


def read_sidecar(artifact: Path, content: bytes | None = None) -> dict[str, Any] | None:
    """The sidecar's content, or None if the file has none. `content` is the file's, if it is read already.

    Raises:
        TdcError: it is not a sidecar, or belongs to another file of that name.
    """
    path = sidecar_path(artifact)
    if not path.is_file():
        return None
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TdcError(f"{path} is no sidecar: {error}", fix="build the artifact again") from None
    try:
        known = (data["format"], data["version"]) == (FORMAT, VERSION)
        sha256 = data["artifact"]["sha256"]
        known &= not (weights := data.get("weights")) or {"file", "sha256"} <= weights.keys()
    except (AttributeError, TypeError, KeyError):
        known, sha256 = False, ""
    if not known:
        raise TdcError(f"{path} is no sidecar of this version", fix="build the artifact again")
    found = files_sha256([artifact]) if content is None else hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise TdcError(
            f"{path} belongs to another file than {artifact}", fix="remove it, or build again"
        )
    _check_weights(artifact, data.get("weights"))
    return data


def _check_weights(artifact: Path, weights: Any) -> None:
    """Raise TdcError unless the file beside a large artifact is the one that belongs to it."""
    if weights is None:
        return
    path = artifact.with_name(str(weights["file"]))
    if not path.is_file() or files_sha256([path]) != weights["sha256"]:
        raise TdcError(
            f"{path}, the weights of {artifact}, is missing or another file",
            fix="copy it beside the artifact, or build again",
        )
