"""`tdc-deploy triton`; what it writes is tested in tests/serving."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import save_model, small_cnn
from tests.cli.conftest import Run
from tests.cli.test_errors import contents

pytest.importorskip("tritonclient.grpc")

Words = list[object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(small_cnn(batch="N"), tmp_path / "model.onnx")
    save_model(small_cnn(), tmp_path / "one.onnx")
    return tmp_path


def triton(folder: Path, *more: object, model: str = "model.onnx") -> Words:
    """A call that works, and `more`."""
    return ["triton", folder / model, "-o", folder / "models", "--name", "net", *more]


def test_it_says_what_it_wrote_and_how_to_start(folder: Path, run: Run) -> None:
    result = run(*triton(folder))
    assert result.code == 0, result.err
    assert "version 1, model.onnx, batches up to 8" in result.out
    assert f"tritonserver --model-repository={folder / 'models'}" in result.out
    assert "fixed batch" in run(*triton(folder, "--name", "one", model="one.onnx")).out
    assert run(*triton(folder, "--quiet")).out == ""
    assert "platform:" in run(*triton(folder, "--verbose")).out


def test_as_json(folder: Path, run: Run) -> None:
    found = run(*triton(folder, "--json", "--max-batch", 4)).json
    assert found == {
        "folder": str(folder / "models" / "net"),
        "version": 1,
        "files": ["model.onnx"],
        "max_batch_size": 4,
        "start": None,
        "warnings": [],
    }


def test_every_option_reaches_the_configuration(folder: Path, run: Run) -> None:
    options = ["--max-batch", 16, "--preferred", "4,8", "--queue-delay", 100, "--instances", 2]
    options += ["--device", "gpu", "--gpus", "0,1", "--warmup", "--threads", 3]
    assert run(*triton(folder, *options)).code == 0
    text = (folder / "models" / "net" / "config.pbtxt").read_text()
    for line in (
        *("max_batch_size: 16", "preferred_batch_size: 8", "max_queue_delay_microseconds: 100"),
        *("count: 2", "kind: KIND_GPU", "gpus: 1", "model_warmup", 'string_value: "3"'),
    ):
        assert line in text
    assert run(*triton(folder, "--name", "py", "--variant", "python")).code == 0
    assert 'backend: "python"' in (folder / "models" / "py" / "config.pbtxt").read_text()
    plain = triton(folder, "--name", "plain", "--no-dynamic-batching", "--version", 7)
    assert run(*plain).code == 0
    assert "dynamic" not in (folder / "models" / "plain" / "config.pbtxt").read_text()
    assert (folder / "models" / "plain" / "7").is_dir()


CASES: list[tuple[str, Callable[[Path], Words], str]] = [
    ("no artifact", lambda f: triton(f, model="none.onnx"), "no artifact at"),
    ("another file", lambda f: triton(f, model="a.pt"), "no artifact"),
    ("nothing", lambda f: ["triton", "-o", f / "models", "--name", "n"], "no artifact"),
    ("no name", lambda f: ["triton", f / "model.onnx", "-o", f / "models"], "--name"),
    ("no repository", lambda f: ["triton", f / "model.onnx", "--name", "n"], "--output"),
    ("a bad name", lambda f: triton(f, "--name", "a/b"), "name 'a/b'"),
    ("repository a file", lambda f: triton(f, "-o", f / "one.onnx"), "is a file"),
    ("no such folder", lambda f: triton(f, "-o", f / "a" / "b"), "does not exist"),
    ("version 0", lambda f: triton(f, "--version", 0), "version is 0"),
    ("variant", lambda f: triton(f, "--variant", "c"), "variant is 'c'"),
    ("device", lambda f: triton(f, "--device", "tpu"), "device is 'tpu'"),
    ("GPUs of no GPU", lambda f: triton(f, "--gpus", "0"), "gpus (0,) on device auto"),
    ("GPUs no numbers", lambda f: triton(f, "--gpus", "a"), "--gpus is 'a'"),
    ("preferred", lambda f: triton(f, "--preferred", "4,"), "--preferred is '4,'"),
    ("preferred too large", lambda f: triton(f, "--preferred", "9"), "preferred batch sizes"),
    ("preferred 0", lambda f: triton(f, "--preferred", "0"), "preferred is 0"),
    (
        "preferred without batching",
        lambda f: triton(f, "--preferred", "4", "--no-dynamic-batching"),
        "without dynamic batching",
    ),
    ("delay", lambda f: triton(f, "--queue-delay", -1), "queue_delay is -1"),
    ("instances", lambda f: triton(f, "--instances", 0), "instances is 0"),
    ("threads", lambda f: triton(f, "--threads", -1), "threads is -1"),
    ("batch", lambda f: triton(f, "--max-batch", -1), "max_batch is -1"),
    ("fixed batch", lambda f: triton(f, "--max-batch", 4, model="one.onnx"), "one fixed batch"),
    ("graphs of ONNX", lambda f: triton(f, "--cuda-graphs"), "CUDA graphs"),
    ("graphs of Python", lambda f: triton(f, "--cuda-graphs", "--variant", "python"), "CUDA"),
    ("shapes for nothing", lambda f: triton(f, "--shapes", "image:1x32x24x24"), "with --warmup"),
    ("shape", lambda f: triton(f, "--shapes", "image", "--warmup"), "shape 'image'"),
    ("engine without file", lambda f: triton(f, "--engine", "8.0"), "--engine '8.0'"),
    ("no such engine", lambda f: triton(f, "--engine", "8.0=a.engine"), "no artifact at"),
    ("engine for ONNX", lambda f: triton(f, "--engine", f"8.0={f / 'one.onnx'}"), "no engine"),
    ("plugin for ONNX", lambda f: triton(f, "--plugin", f / "model.onnx"), "does not need"),
    ("config", lambda f: triton(f, "--config", "drop"), "config is 'drop'"),
]


@pytest.mark.parametrize(("name", "words", "message"), CASES, ids=[case[0] for case in CASES])
def test_a_mistake_is_said_and_nothing_is_written(
    folder: Path, run: Run, name: str, words: Callable[[Path], Words], message: str
) -> None:
    before = contents(folder)
    result = run(*words(folder))
    assert result.code == 2, f"{name}: {result}"
    said = " ".join((result.out + result.err).split())
    assert message in said, said
    assert contents(folder) == before
    assert not (folder / "models").exists()
