"""`tdc-deploy.json` in each version folder: what is served there, and what it was made with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tdc_deploy
from tdc_deploy.serving.model import ServedModel, artifact_sha256
from tdc_deploy.serving.plugin_files import PluginFile
from tdc_deploy.strict_json import dumps

RECORD_NAME = "tdc-deploy.json"


def record_text(models: Mapping[str, ServedModel], plugin: PluginFile | None) -> str:
    """The record of a version: `models` by the name of their file in its folder."""
    files = {
        name: {
            "artifact": model.path.name,
            "sha256": artifact_sha256(model),
            "tensorrt": model.tensorrt,
        }
        for name, model in models.items()
    }
    library = None if plugin is None else {"file": plugin.name, "sha256": plugin.sha256}
    content = {"tdc_deploy": tdc_deploy.__version__, "files": files, "plugin": library}
    return dumps(content) + "\n"


def other_tensorrts(repository: Path, tensorrt: str) -> dict[str, str]:
    """Versions in the repository whose engines another TensorRT built: {"name/1": "10.9.0"}."""
    found = {}
    for path in sorted(repository.glob(f"*/*/{RECORD_NAME}")):
        for version in _tensorrts(path):
            if version != tensorrt:
                found[f"{path.parent.parent.name}/{path.parent.name}"] = version
    return found


def _tensorrts(path: Path) -> list[str]:
    try:
        record: Any = json.loads(path.read_text(encoding="utf-8"))
        versions = [entry["tensorrt"] for entry in record["files"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []  # not ours
    return [version for version in versions if version is not None]
