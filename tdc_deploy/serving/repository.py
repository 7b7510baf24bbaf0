"""Add a version of a model to a Triton model repository, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from tdc_deploy.errors import TdcError
from tdc_deploy.serving.config import CONFIG_NAME, config_text, model_config, read_config
from tdc_deploy.serving.existing import check_place, free_version, new_config
from tdc_deploy.serving.gather import file_name, read_artifacts
from tdc_deploy.serving.model import ServedModel
from tdc_deploy.serving.options import KeepOrReplace, ServingOptions
from tdc_deploy.serving.plugin_files import (
    PluginFile,
    check_plugin_fits,
    plugin_for,
    write_plugin,
)
from tdc_deploy.serving.python_backend import MODEL_PY
from tdc_deploy.serving.record import RECORD_NAME, other_tensorrts, record_text
from tdc_deploy.serving.write import existing, write_version


@dataclass(frozen=True)
class Added:
    """What was written: a version of the model in `folder`, served by config.pbtxt's text `config`;
    `script` starts Triton where a plugin is needed.
    """

    folder: Path
    version: int
    files: tuple[str, ...]
    max_batch_size: int
    config: str
    script: Path | None
    warnings: tuple[str, ...]


def add_model(
    artifact: Path | None,
    repository: Path,
    name: str,
    *,
    engines: Mapping[str, Path] | None = None,
    options: ServingOptions | None = None,
    version: int | None = None,
    plugin: Path | None = None,
    config: KeepOrReplace | None = None,
    replace_plugin: bool = False,
) -> Added:
    """Write config.pbtxt and a version folder; what is in the repository stays.

    Args:
        artifact: an .onnx, .engine or .plan file; for the GPUs that `engines` does not name.
        repository: a folder, made if its parent exists.
        name: the model's; one that is there gets another version.
        engines: an engine for each compute capability, such as {"8.0": path}.
        options: how to serve it.
        version: its number; by default one more than the highest there.
        plugin: the plugin library, where an engine needs one; by default this machine's.
        config: what to do with a config.pbtxt that says something else; None: fail.
        replace_plugin: the repository's plugin library may be replaced by another build.

    Raises:
        TdcError: a bad file or value; nothing was written.
    """
    options = options or ServingOptions()
    if config not in (None, *get_args(KeepOrReplace)):
        raise TdcError(f"config is {config!r}", expected="keep or replace")
    models = read_artifacts(artifact, dict(engines or {}), options)
    files = {key: file_name(key, model, options) for key, model in models.items()}
    first = next(iter(models.values()))
    library = _plugin(models, plugin)
    served = list(models.values())
    message = model_config(name, served, options, files, library.name if library else None)
    check_place(repository, name)
    folder = repository / name
    number = free_version(folder, version)
    text = new_config(folder / CONFIG_NAME, message, config, served)
    if library is not None:
        check_plugin_fits(repository, library, replace_plugin)
    by_file = {files[key]: model for key, model in models.items()}
    warnings = _warnings(repository, first)
    with existing(repository):
        script = write_plugin(repository, library, str(first.tensorrt)) if library else None
        texts = {RECORD_NAME: record_text(by_file, library)}
        if options.variant == "python":
            texts["model.py"] = MODEL_PY
        write_version(folder, number, by_file, texts, text)
    kept = read_config(folder / CONFIG_NAME)
    return Added(
        folder, number, tuple(by_file), kept.max_batch_size, config_text(kept), script, warnings
    )


def _plugin(models: Mapping[str, ServedModel], given: Path | None) -> PluginFile | None:
    model = next(iter(models.values()))
    if model.plugin is None:
        if given is not None:
            raise TdcError(f"plugin {given}, which {model.path} does not need", fix="leave it out")
        return None
    return plugin_for(model.plugin, str(model.tensorrt), given)


def _warnings(repository: Path, model: ServedModel) -> tuple[str, ...]:
    if model.tensorrt is None:
        return ()
    others = other_tensorrts(repository, model.tensorrt)
    return tuple(
        f"{where} was built by TensorRT {other}, this engine by {model.tensorrt}: a server with one of "
        "them may refuse the other"
        for where, other in others.items()
    )
