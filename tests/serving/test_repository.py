"""A repository is changed whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.serving import write
from tdc_deploy.serving.config import read_config
from tdc_deploy.serving.options import ServingOptions
from tdc_deploy.serving.repository import add_model
from tdc_deploy.sidecar import sidecar_path
from tests.builders import save_model, small_cnn
from tests.serving.conftest import IMAGE, MakeEngine

pytest.importorskip("tritonclient.grpc")

PLUGIN = {"name": "TuckerConv"}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "libtdc_plugins_trt10.so"
    path.write_bytes(b"a library")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, and the empty folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def refused(message: str, repository: Path, *arguments: Any, **named: Any) -> None:
    """add_model raises, and changes nothing."""
    before = contents(repository.parent)
    with pytest.raises(TdcError, match=message):
        add_model(*arguments, **named)
    assert contents(repository.parent) == before


def test_beside_the_repository_may_not_be_ours(
    model: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, _: path != repository.parent)
    repository.mkdir()
    assert write._scratch(repository) == repository
    add_model(model, repository, "net")
    assert sorted(path.name for path in repository.iterdir()) == ["net"]


def test_a_new_repository(model: Path, repository: Path) -> None:
    added = add_model(model, repository, "net")
    assert (added.folder, added.version, added.files) == (repository / "net", 1, ("model.onnx",))
    assert added.max_batch_size == 8
    assert added.script is None
    assert sorted(contents(repository)) == [
        *("net", "net/1", "net/1/model.onnx", "net/1/tdc-deploy.json", "net/config.pbtxt")
    ]
    assert (repository / "net" / "1" / "model.onnx").read_bytes() == model.read_bytes()
    assert (repository / "net").stat().st_mode == repository.stat().st_mode


def test_a_version_more_leaves_the_old_ones(model: Path, repository: Path, tmp_path: Path) -> None:
    add_model(model, repository, "net", version=3)
    before = contents(repository)
    other = save_model(small_cnn(batch="N", seed=1), tmp_path / "other.onnx")
    assert add_model(other, repository, "net").version == 4
    assert add_model(other, repository, "net", version=1).version == 1
    after = contents(repository)
    assert before.items() <= after.items()
    assert after["net/4/model.onnx"] == after["net/1/model.onnx"] == other.read_bytes()


def test_sidecar_and_weights_come_along(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(
        small_cnn(), str(path), save_as_external_data=True, location="m.bin", size_threshold=0
    )
    add_model(path, repository, "net")
    version = repository / "net" / "1"
    assert (version / "m.bin").read_bytes() == (tmp_path / "m.bin").read_bytes()
    onnx.checker.check_model(str(version / "model.onnx"))


def test_an_engine_and_its_plugin(engine: MakeEngine, repository: Path, library: Path) -> None:
    path = engine(plugin=PLUGIN)
    added = add_model(path, repository, "net", plugin=library)
    assert added.script == repository / "start-triton.sh"
    assert added.script.stat().st_mode & 0o111
    assert (repository / library.name).read_bytes() == b"a library"
    version = repository / "net" / "1"
    assert (version / "model.plan").read_bytes() == path.read_bytes()
    assert sidecar_path(version / "model.plan").read_bytes() == sidecar_path(path).read_bytes()
    record = json.loads((version / "tdc-deploy.json").read_text())
    digest = hashlib.sha256(b"a library").hexdigest()
    assert record["plugin"] == {"file": library.name, "sha256": digest}
    assert record["files"]["model.plan"]["tensorrt"] == "10.9.0.34"


def test_a_changed_script_stays(engine: MakeEngine, repository: Path, library: Path) -> None:
    path = engine(plugin=PLUGIN)
    script = add_model(path, repository, "net", plugin=library).script
    assert script is not None
    script.write_text(script.read_text() + "# mine\n")
    add_model(path, repository, "net", plugin=library)
    assert script.read_text().endswith("# mine\n")


def test_engines_for_several_gpus(engine: MakeEngine, repository: Path) -> None:
    engines = {"8.0": engine("a.engine"), "9.0": engine("b.engine")}
    added = add_model(engine("c.engine"), repository, "net", engines=engines)
    assert added.files == ("model.plan", "model_8.0.plan", "model_9.0.plan")
    version = repository / "net" / "1"
    assert (version / "model_9.0.plan").read_bytes() == b"engine b.engine"
    config = read_config(repository / "net" / "config.pbtxt")
    assert dict(config.cc_model_filenames) == {"8.0": "model_8.0.plan", "9.0": "model_9.0.plan"}


def test_the_python_variant_of_an_engine(
    engine: MakeEngine, repository: Path, library: Path
) -> None:
    options = ServingOptions(variant="python")
    add_model(engine(plugin=PLUGIN), repository, "net", options=options, plugin=library)
    version = repository / "net" / "1"
    assert (version / "model.engine").is_file()
    compile((version / "model.py").read_text(), "model.py", "exec")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": [IMAGE | {"name": "picture"}]}, "inputs and outputs of .* differ"),
        ({"backend": {"version": "10.8.0"}}, "the TensorRT version of .* differ"),
        ({"plugin": PLUGIN}, "the plugin of .* differ"),
    ],
)
def test_engines_that_differ(
    engine: MakeEngine, repository: Path, changes: dict[str, Any], message: str
) -> None:
    engines = {"8.0": engine("a.engine"), "9.0": engine("b.engine", **changes)}
    refused(message, repository, None, repository, "net", engines=engines)


def test_mistakes_with_artifacts(engine: MakeEngine, model: Path, repository: Path) -> None:
    path = engine()
    python = ServingOptions(variant="python")
    refused("no artifact", repository, None, repository, "net")
    refused("the kinds of", repository, model, repository, "n", engines={"8.0": path})
    refused("no engine", repository, None, repository, "net", engines={"8.0": model})
    bound = engine("bound.engine", backend={"version": "10.9.0.34", "compute_capability": "9.0"})
    refused("9.0, which it was built", repository, None, repository, "n", engines={"8.0": bound})
    refused("capability '80'", repository, None, repository, "net", engines={"80": path})
    refused(
        "python variant", repository, None, repository, "n", engines={"8.0": path}, options=python
    )


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "-x", "a b", "ä", "a\n"])
def test_a_bad_name(model: Path, repository: Path, name: str) -> None:
    refused("name ", repository, model, repository, name)


def test_a_bad_place(model: Path, repository: Path, tmp_path: Path) -> None:
    refused("is a file", repository, model, model, "net")
    refused("does not exist", repository, model, tmp_path / "no" / "models", "net")
    repository.mkdir()
    (repository / "file").write_text("")
    refused("is a file", repository, model, repository, "file")
    (repository / "mine").mkdir()
    (repository / "mine" / "notes.txt").write_text("")
    refused("holds no config.pbtxt", repository, model, repository, "mine")


def test_a_version_that_is_taken_or_none(model: Path, repository: Path) -> None:
    add_model(model, repository, "net", version=2)
    refused("has a version 2", repository, model, repository, "net", version=2)
    refused("version is 0", repository, model, repository, "net", version=0)


def test_another_model_of_that_name(model: Path, repository: Path, tmp_path: Path) -> None:
    add_model(model, repository, "net")
    two = save_model(small_cnn(batch="N", two_outputs=True), tmp_path / "two.onnx")
    refused("differs in output", repository, two, repository, "net")
    python = ServingOptions(variant="python")
    refused("differs in .*backend", repository, model, repository, "net", options=python)
    shutil.move(repository / "net", repository / "other")
    refused("differs in name", repository, model, repository, "other")


def test_other_settings_are_kept_or_replaced(model: Path, repository: Path) -> None:
    add_model(model, repository, "net")
    path = repository / "net" / "config.pbtxt"
    mine = path.read_text() + "# mine\nresponse_cache { enable: true }\n"
    path.write_text(mine)
    refused("other settings: response_cache", repository, model, repository, "net")
    refused("config is 'drop'", repository, model, repository, "net", config="drop")
    assert add_model(model, repository, "net", config="keep").version == 2
    assert path.read_text() == mine
    options = ServingOptions(instances=3)
    assert add_model(model, repository, "net", config="replace", options=options).version == 3
    config = read_config(path)
    assert config.instance_group[0].count == 3
    assert not config.response_cache.enable


def test_a_smaller_engine_does_not_fit_the_old_batch(engine: MakeEngine, repository: Path) -> None:
    add_model(engine(), repository, "net")
    smaller = engine("small.engine", inputs=[IMAGE | {"max": [8, 3, 32, 32]}])
    refused("max_batch_size 16", repository, smaller, repository, "net", config="keep")
    assert add_model(smaller, repository, "net", config="replace").max_batch_size == 8


def test_a_configuration_that_cannot_be_read(model: Path, repository: Path) -> None:
    add_model(model, repository, "net")
    (repository / "net" / "config.pbtxt").write_text("nonsense")
    refused("no Triton configuration", repository, model, repository, "net", config="replace")


def test_mistakes_with_plugins(
    engine: MakeEngine, repository: Path, library: Path, tmp_path: Path
) -> None:
    plain, needy = engine("a.engine"), engine("b.engine", plugin=PLUGIN)
    refused("does not need", repository, plain, repository, "net", plugin=library)
    refused("no plugin library at", repository, needy, repository, "net", plugin=tmp_path / "no")
    other = tmp_path / "libtdc_plugins_trt8.so"
    other.write_bytes(b"")
    refused("with an engine of TensorRT 10", repository, needy, repository, "n", plugin=other)
    strict = engine("c.engine", plugin=PLUGIN | {"sha256": "0" * 64})
    refused("another library than", repository, strict, repository, "net", plugin=library)


def test_a_plugin_that_another_model_needs(
    engine: MakeEngine, repository: Path, library: Path
) -> None:
    path = engine(plugin=PLUGIN)
    add_model(path, repository, "net", plugin=library)
    library.write_bytes(b"another build")
    refused("another build of the plugin", repository, path, repository, "net", plugin=library)
    add_model(path, repository, "net", plugin=library, replace_plugin=True)
    assert (repository / library.name).read_bytes() == b"another build"
    older = engine("older.engine", plugin=PLUGIN, backend={"version": "8.5.3"})
    eight = library.rename(library.with_name("libtdc_plugins_trt8.so"))
    refused("a server has one", repository, older, repository, "older", plugin=eight)


def test_engines_of_two_tensorrts_are_warned_of(engine: MakeEngine, repository: Path) -> None:
    assert add_model(engine(), repository, "net").warnings == ()
    newer = engine("newer.engine", backend={"version": "10.16.1"})
    (warning,) = add_model(newer, repository, "newer").warnings
    assert "net/1 was built by TensorRT 10.9.0.34" in warning


@pytest.mark.parametrize("new", [True, False])
def test_a_full_disk_leaves_nothing(
    model: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, new: bool
) -> None:
    if not new:
        add_model(model, repository, "net")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tdc_deploy.serving.write.shutil.copyfile", full)
    refused("No space left", repository, model, repository, "net")


def test_a_polling_server_never_sees_an_unfinished_folder(
    model: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    real = shutil.copyfile

    def spy(source: Path, target: Path) -> None:
        seen.append(sorted(contents(repository)))
        real(source, target)

    monkeypatch.setattr("tdc_deploy.serving.write.shutil.copyfile", spy)
    add_model(model, repository, "net")
    whole = sorted(contents(repository))
    add_model(model, repository, "net")
    assert seen == [[], whole]


def test_a_configuration_that_cannot_be_written_leaves_no_version(
    model: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_model(model, repository, "net")

    def full(*_: object) -> None:
        raise TdcError("no room")

    monkeypatch.setattr("tdc_deploy.serving.write.write_whole", full)
    options = ServingOptions(instances=2)
    refused("no room", repository, model, repository, "net", options=options, config="replace")
