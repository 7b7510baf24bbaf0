"""Add a version of a model to a Triton model repository, whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from tdc_deploy.artifact import sidecar_path
from tdc_deploy.errors import TdcError
from tdc_deploy.files import whole_folder, write_whole
from tdc_deploy.serving.config import CONFIG_NAME, config_text, model_config, read_config
from tdc_deploy.serving.existing import check_place, free_version, new_config
from tdc_deploy.serving.model import ServedModel, common, read_served
from tdc_deploy.serving.options import KeepOrReplace, ServingOptions
from tdc_deploy.serving.plugin_files import (
    PluginFile,
    check_plugin_fits,
    plugin_for,
    write_plugin,
)
from tdc_deploy.serving.python_backend import MODEL_PY
from tdc_deploy.serving.record import RECORD_NAME, other_tensorrts, record_text

_CAPABILITY = re.compile(r"\d+\.\d+")


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
    models = _read(artifact, dict(engines or {}), options)
    files = {key: _file_name(key, model, options) for key, model in models.items()}
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
    with _existing(repository):
        script = write_plugin(repository, library, str(first.tensorrt)) if library else None
        record = record_text(by_file, library)
        _write(folder, number, by_file, text, record, options.variant == "python")
    kept = read_config(folder / CONFIG_NAME)
    return Added(
        folder, number, tuple(by_file), kept.max_batch_size, config_text(kept), script, warnings
    )


def _read(
    artifact: Path | None, engines: dict[str, Path], options: ServingOptions
) -> dict[str, ServedModel]:
    """The artifacts by compute capability, "" for the one for all others."""
    paths = ({} if artifact is None else {"": artifact}) | engines
    if not paths:
        raise TdcError("no artifact", expected="an .onnx, .engine or .plan file, or --engine")
    if engines and options.variant == "python":
        raise TdcError("engines per GPU in the python variant", expected="one artifact")
    models = {key: read_served(path) for key, path in paths.items()}
    if engines:
        for capability in engines:
            _check_capability(capability, models[capability])
        names = {str(model.path): model for model in models.values()}
        common(names, lambda model: model.is_engine, "being an engine")
        common(names, lambda model: model.signature, "inputs and outputs")
        common(names, lambda model: model.tensorrt, "the TensorRT version")
        common(names, lambda model: model.plugin, "the plugin")
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


def _file_name(capability: str, model: ServedModel, options: ServingOptions) -> str:
    """model.onnx or model.plan, as Triton expects it; our Session knows engines by .engine."""
    if not model.is_engine:
        return "model.onnx"
    if options.variant == "python":
        return "model.engine"
    return f"model_{capability}.plan" if capability else "model.plan"


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


@contextmanager
def _existing(repository: Path) -> Iterator[None]:
    """Make the repository if it is not there, and remove it again if the block fails."""
    new = not repository.exists()
    try:
        repository.mkdir(exist_ok=True)
    except OSError as error:
        raise TdcError(f"{repository} cannot be made: {error.strerror}") from None
    try:
        yield
    except BaseException:
        if new:
            with suppress(OSError):
                repository.rmdir()
        raise


def _write(
    folder: Path,
    number: int,
    models: Mapping[str, ServedModel],
    config: str | None,
    record: str,
    python: bool,
) -> None:
    new = not (folder / CONFIG_NAME).exists()
    with whole_folder(folder if new else folder / str(number)) as temporary:
        version = temporary / str(number) if new else temporary
        version.mkdir(exist_ok=True)
        for file, model in models.items():
            _copy(model, version / file)
        (version / RECORD_NAME).write_text(record, encoding="utf-8")
        if python:
            (version / "model.py").write_text(MODEL_PY, encoding="utf-8")
        if new and config is not None:
            (temporary / CONFIG_NAME).write_text(config, encoding="utf-8")
    if not new and config is not None:
        try:
            write_whole({folder / CONFIG_NAME: config.encode()})
        except TdcError:
            shutil.rmtree(folder / str(number))
            raise


def _copy(model: ServedModel, target: Path) -> None:
    """The artifact under Triton's name, its sidecar, and the files with its weights."""
    shutil.copyfile(model.path, target)
    sidecar = sidecar_path(model.path)
    if sidecar.is_file():
        shutil.copyfile(sidecar, sidecar_path(target))
    for weights in model.weights:
        place = target.parent / os.path.relpath(weights, model.path.parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights, place)
