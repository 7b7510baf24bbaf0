from __future__ import annotations

import errno
import hashlib
import json
import math
import platform
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import tdc_deploy
from tdc_deploy.artifact import Artifact, write_artifact
from tdc_deploy.errors import TdcError
from tdc_deploy.files import files_sha256
from tdc_deploy.graph.read import model_files
from tdc_deploy.plan_file import LayerChoice, Plan, plan_from_json
from tdc_deploy.sidecar import read_sidecar, sidecar_path
from tdc_deploy.source import Source, read_source
from tdc_deploy.types import Candidate, Ranks, Ratio
from tdc_deploy.verify import Comparison
from tdc_deploy.versions import library_versions
from tests.builders import save_model, small_cnn
from tests.fakes import constant_timing

COMPARISON = Comparison(0.05, 0.99, 0.9, 0.8, 0.7, samples=12, verified=True)
RATIO = Ratio(0.5, 0.49, 0.51, constant_timing(4.0), constant_timing(2.0))
PLAN = Plan({"conv2": LayerChoice(Candidate("tucker2", Ranks(8, 16), "fused"), 1.0)})
BACKEND = {"backend": "onnxruntime", "device": "some CPU"}

Write = Callable[..., Artifact]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    path = tmp_path_factory.mktemp("model") / "small.onnx"
    save_model(small_cnn(batch="N", two_inputs=True, two_outputs=True), path)
    return read_source(path)


@pytest.fixture
def write(tmp_path: Path, source: Source) -> Write:
    """Writes an artifact of the source model, with some fields changed; returns it."""

    def write(**changes: Any) -> Artifact:
        path = tmp_path / "fast.onnx"
        made = Artifact(
            path,
            sidecar_path(path),
            "compressed",
            "it is faster",
            PLAN,
            COMPARISON,
            RATIO,
            ("a warning",),
        )
        artifact = replace(made, **changes)
        write_artifact(artifact, onnx.load(str(source.path)), source, BACKEND)
        return artifact

    return write


def sidecar_of(artifact: Artifact) -> dict[str, Any]:
    content = read_sidecar(artifact.path)
    assert content is not None
    return content


def test_the_sidecar_is_named_after_the_whole_file() -> None:
    assert sidecar_path(Path("a/model.onnx")) == Path("a/model.onnx.json")
    assert sidecar_path(Path("model.v2.onnx")) == Path("model.v2.onnx.json")


def test_the_sidecar_tells_what_was_built_from_what(write: Write, source: Source) -> None:
    artifact = write()
    content = artifact.path.read_bytes()
    sidecar = sidecar_of(artifact)
    assert sidecar["format"] == "tdc-deploy artifact"
    assert sidecar["artifact"] == {
        "file": "fast.onnx",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    assert sidecar["source"] == {"file": "small.onnx", "sha256": files_sha256([source.path])}
    assert sidecar["decision"] == "compressed"
    assert sidecar["reason"] == "it is faster"
    assert sidecar["warnings"] == ["a warning"]
    assert sidecar["backend"] == BACKEND
    assert sidecar["precision"] == ["float32"]


def test_the_sidecar_holds_the_figures(write: Write) -> None:
    sidecar = sidecar_of(write())
    assert sidecar["accuracy"] == "VERIFIED"
    assert sidecar["verification"]["error"] == 0.05
    assert sidecar["verification"]["samples"] == 12
    assert sidecar["verification"]["accuracy_after"] == 0.7
    assert sidecar["network"]["value"] == 0.5
    assert sidecar["network"]["before"]["median"] == 4.0
    assert sidecar["network"]["after"]["median"] == 2.0


def test_the_sidecar_holds_the_plan_as_a_plan_file_does(write: Write) -> None:
    assert plan_from_json(sidecar_of(write())["plan"], "sidecar") == PLAN
    assert sidecar_of(write(plan=None))["plan"] is None


def test_the_sidecar_lists_inputs_and_outputs_with_open_sizes(write: Write) -> None:
    sidecar = sidecar_of(write())
    assert sidecar["inputs"] == [
        {"name": "image", "dtype": "float32", "shape": ["N", 32, 24, 24]},
        {"name": "shift", "dtype": "float32", "shape": ["N", 48, 1, 1]},
    ]
    assert [value["name"] for value in sidecar["outputs"]] == ["logits", "features"]
    assert sidecar["planned_shapes"] == {"image": [1, 32, 24, 24], "shift": [1, 48, 1, 1]}


def test_random_inputs_do_not_verify(write: Write) -> None:
    artifact = write(comparison=replace(COMPARISON, verified=False))
    assert not artifact.verified
    assert sidecar_of(artifact)["accuracy"] == "UNVERIFIED"


def test_the_sidecar_names_versions(write: Write) -> None:
    libraries = sidecar_of(write())["libraries"]
    assert libraries["python"] == platform.python_version()
    assert libraries["onnxruntime"] == onnxruntime.__version__
    assert libraries["onnx"] == onnx.__version__
    assert libraries["tdc-deploy"] == tdc_deploy.__version__


def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tdc_deploy.versions.LIBRARIES", ("onnx", "tdc-no-such-library"))
    assert library_versions() == {
        "onnx": onnx.__version__,
        "tdc-no-such-library": "not installed",
    }


def test_every_json_reader_can_read_the_sidecar(write: Write) -> None:
    # A network that puts out NaN is infinitely wrong, and JSON has no infinity.
    broken = replace(COMPARISON, error=math.inf, cosine=math.nan)
    artifact = write(decision="source", comparison=broken)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads(artifact.sidecar.read_text(encoding="utf-8"), parse_constant=refuse)


def test_the_artifact_is_the_model(write: Write) -> None:
    onnx.checker.check_model(str(write().path), full_check=True)


def test_a_file_without_a_sidecar_has_none(write: Write) -> None:
    artifact = write()
    artifact.sidecar.unlink()
    assert read_sidecar(artifact.path) is None


def test_a_sidecar_of_another_file_is_refused(write: Write) -> None:
    artifact = write()
    artifact.path.write_bytes(artifact.path.read_bytes() + b"\x00")
    with pytest.raises(TdcError, match="belongs to another file") as caught:
        read_sidecar(artifact.path)
    assert caught.value.fix


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"format": "tdc-deploy artifact", "version": 99}',
        b'{"format": "tdc-deploy plan", "version": 1}',
        b'{"format": "tdc-deploy artifact", "version": 1}',
        b'{"format": "tdc-deploy artifact", "version": 1, "artifact": null}',
    ],
)
def test_what_is_no_sidecar_is_refused(write: Write, content: bytes) -> None:
    artifact = write()
    artifact.sidecar.write_bytes(content)
    with pytest.raises(TdcError, match="no sidecar") as caught:
        read_sidecar(artifact.path)
    assert "build" in caught.value.fix


@pytest.fixture
def _small_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protobuf's limit at 1000 bytes."""
    monkeypatch.setattr("tdc_deploy.graph.large.MAX_INLINE_BYTES", 1000)


@pytest.mark.usefixtures("_small_messages")
def test_what_one_message_cannot_hold_has_its_weights_beside_it(
    tmp_path: Path, write: Write, source: Source
) -> None:
    artifact = write()
    (data,) = tmp_path.glob("*.data")
    weights = sidecar_of(artifact)["weights"]
    assert weights == {
        "file": data.name,
        "sha256": files_sha256([data]),
        "bytes": data.stat().st_size,
    }
    assert model_files(artifact.path) == [artifact.path, data]
    assert len(list(tmp_path.iterdir())) == 3
    onnx.checker.check_model(str(artifact.path), full_check=True)
    written, original = onnx.load(str(artifact.path)), onnx.load(str(source.path))
    for after, before in zip(written.graph.initializer, original.graph.initializer, strict=True):
        assert after.name == before.name
        assert np.array_equal(numpy_helper.to_array(after), numpy_helper.to_array(before))
    del written.graph.initializer[:], original.graph.initializer[:]
    assert written == original
    # The same once more is the same file; weights that are another's are found out.
    write()
    assert list(tmp_path.glob("*.data")) == [data]
    data.write_bytes(bytes(data.stat().st_size))
    with pytest.raises(TdcError, match="missing or another file"):
        read_sidecar(artifact.path)


@pytest.mark.usefixtures("_small_messages")
def test_a_full_disk_while_weights_are_written_keeps_the_old_artifact(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = write()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_: object) -> Iterator[bytes]:
        yield b"some"
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tdc_deploy.artifact.file_content", full)
    with pytest.raises(TdcError, match="No space left"):
        write(warnings=("another",))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert read_sidecar(artifact.path) is not None
