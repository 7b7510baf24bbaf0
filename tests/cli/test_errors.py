"""Every mistake a user can make with a command: exit code 2, one clear message, nothing written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.broken_models import BROKEN
from tests.builders import images, linear_model, save_model, save_npz, small_cnn
from tests.cli.conftest import Run

Words = list[object]
Case = tuple[str, Callable[[Path], Words], str]


def build(folder: Path, *more: object, inputs: bool = True) -> Words:
    """A build that works, and `more`."""
    words: Words = ["build", folder / "model.onnx", "-o", folder / "out.onnx"]
    return [*words, *(["--inputs", folder / "inputs.npz"] if inputs else []), *more]


def on(make: Callable[[Path], object], *more: object) -> Callable[[Path], Words]:
    """A build of another model file, which `make` writes to the path that it is given."""

    def words(folder: Path) -> Words:
        path = folder / "bad.onnx"
        make(path)
        return ["build", path, "-o", folder / "out.onnx", "--max-error", 1, *more]

    return words


def broken(make: Callable[[Path], object]) -> Callable[[Path], Words]:
    """The same with the folder's inputs."""
    return lambda folder: [*on(make)(folder), "--inputs", folder / "inputs.npz"]


def with_inputs(**arrays: Any) -> Callable[[Path], Words]:
    """A build with other inputs."""

    def words(folder: Path) -> Words:
        path = save_npz(folder / "bad.npz", **arrays)
        return build(folder, "--inputs", path, inputs=False)

    return words


def with_plan(content: str | dict[str, Any]) -> Callable[[Path], Words]:
    """A build with a plan of this content."""

    def words(folder: Path) -> Words:
        path = folder / "plan.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return build(folder, "--plan", path)

    return words


def onto(name: str) -> Callable[[Path], Words]:
    return lambda folder: [*build(folder), "-o", folder / name]


def named_plan(folder: Path) -> Path:
    path = folder / "q.onnx.json"
    path.write_text(json.dumps(layers(form="tucker2", r_in=16, r_out=16)))
    return path


def layers(**layer: object) -> dict[str, Any]:
    return {"layers": {"conv2": layer}}


def on_backend(backend: str, *more: object) -> Callable[[Path], list[object]]:
    words = ("--max-error", 1, "--backend", backend, *more)
    return lambda f: ["plan", f / "model.onnx", *words]


X = images(16)
GOOD = {"form": "tucker2", "r_in": 16, "r_out": 16}

CASES: list[Case] = [
    ("no model", lambda f: ["build", f / "none.onnx", "-o", f / "o.onnx"], "no model file"),
    ("a folder as model", lambda f: ["build", f, "-o", f / "o.onnx"], "no model file"),
    ("garbage", on(lambda p: p.write_bytes(b"\x08garbage" * 99)), "not an ONNX file"),
    ("no convolution", on(lambda p: save_model(linear_model(), p)), "no convolution to decompose"),
    ("engine", lambda f: [*build(f), "-o", f / "o.engine"], "missing: the Python package tensorrt"),
    ("plan of TensorRT", lambda f: [*build(f), "-o", f / "o.plan"], "o.onnx"),
    ("engine options", lambda f: build(f, "--workspace", "64"), "options of TensorRT engines"),
    ("a plan on TensorRT", on_backend("tensorrt"), "leave out --backend tensorrt"),
    ("no such backend", on_backend("cudnn"), "--backend is 'cudnn'"),
    (
        "engine options of a plan",
        on_backend("onnxruntime", "--precision", "fp16"),
        "options of TensorRT engines for a plan",
    ),
    ("no such precision", lambda f: build(f, "--precision", "int4"), "--precision is 'int4'"),
    ("an engine's precision", lambda f: build(f, "--precision", "tf32"), "--precision is 'tf32'"),
    (
        "no such calibrator",
        lambda f: build(f, "--precision", "int8", "--calibrator", "best"),
        "--calibrator is 'best'",
    ),
    ("calibrator alone", lambda f: build(f, "--calibrator", "mse"), "--calibrator with"),
    ("accuracy", lambda f: build(f, "--max-accuracy-drop", "-1"), "max_accuracy_drop is -1"),
    ("workspace", lambda f: build(f, "--memPoolSize", "dla:1"), "--workspace is 'dla:1'"),
    ("min shapes", lambda f: build(f, "--minShapes", "image"), "shape 'image'"),
    ("other suffix", lambda f: [*build(f), "-o", f / "o.pt"], "ends in .onnx"),
    ("no suffix", lambda f: [*build(f), "-o", f / "o"], "ends in .onnx"),
    ("no such folder", lambda f: [*build(f), "-o", f / "no" / "o.onnx"], "does not exist"),
    ("output is a folder", lambda f: [*build(f), "-o", made(f / "d.onnx")], "is a folder"),
    ("output is the model", lambda f: [*build(f), "-o", f / "model.onnx"], "would be overwritten"),
    ("output is the inputs", onto("inputs.npz"), "ends in .onnx"),
    (
        "sidecar is the plan",
        lambda f: [*build(f), "--plan", named_plan(f), "-o", f / "q.onnx"],
        "would be overwritten",
    ),
    (
        "plan over the model",
        lambda f: ["plan", f / "model.onnx", "--max-error", 1, "-o", f / "model.onnx"],
        "would be overwritten",
    ),
    (
        "plan over the inputs",
        lambda f: [
            *("plan", f / "model.onnx", "--inputs", f / "inputs.npz"),
            *("-o", f / "inputs.npz"),
        ],
        "would be overwritten",
    ),
    ("neither inputs nor limit", lambda f: build(f, inputs=False), "neither inputs nor"),
    ("inputs missing", lambda f: build(f, "--inputs", f / "no.npz"), "no inputs at"),
    ("inputs not npz", lambda f: build(f, "--inputs", f / "model.onnx"), "cannot be read"),
    ("an empty folder", lambda f: build(f, "--inputs", made(f / "d")), "no .npy file"),
    ("only labels", lambda f: build(f, "--inputs", labels_only(f)), "nothing but labels"),
    ("two arrays", with_inputs(image=X, other=X), "holds arrays"),
    ("another type", with_inputs(image=X.astype(np.float64)), "float64"),
    ("another size", with_inputs(image=X[:, :, 1:]), "has shape"),
    ("NaN inputs", with_inputs(image=X * np.float32("nan")), "NaN"),
    ("too few", with_inputs(image=X[:7]), "7 samples"),
    ("all alike", with_inputs(image=np.repeat(X[:1], 9, 0)), "the same for every input"),
    ("labels too few", with_inputs(image=X, labels=np.arange(3)), "different numbers"),
    ("labels not whole", with_inputs(image=X, labels=X[:, 0, 0, 0]), "are float32 of shape (16,)"),
    ("pickled", with_inputs(image=np.array([{}] * 9, object)), "cannot be read"),
    ("budget 0", lambda f: build(f, "--latency-budget", 0), "latency_budget is 0"),
    ("budget over 1", lambda f: build(f, "--latency-budget", 1.5), "latency_budget is 1.5"),
    ("budget NaN", lambda f: build(f, "--latency-budget", "nan"), "latency_budget is nan"),
    ("budget no number", lambda f: build(f, "--latency-budget", "half"), "--latency-budget"),
    ("speedup under 1", lambda f: build(f, "--speedup", 0.5), "speedup is 0.5"),
    ("endless speedup", lambda f: build(f, "--speedup", "inf"), "latency_budget is 0"),
    ("both", lambda f: build(f, "--speedup", 2, "--latency-budget", 0.5), "both"),
    ("negative error", lambda f: build(f, "--max-error", -1), "max_error is -1"),
    ("NaN error", lambda f: build(f, "--max-error", "nan"), "max_error is nan"),
    ("unknown solver", lambda f: build(f, "--solver", "best"), "solver is 'best'"),
    ("FLOPs for milp", lambda f: build(f, "--flops-budget", 0.5), "without the tdc solver"),
    ("theta", lambda f: build(f, "--solver", "tdc", "--theta", 1), "theta is 1"),
    (
        "both budgets",
        lambda f: build(f, "--solver", "tdc", "--flops-budget", 0.5, "--latency-budget", 0.5),
        "both",
    ),
    ("no plan", lambda f: build(f, "--plan", f / "no.json"), "no plan at"),
    ("plan no JSON", with_plan("{"), "is not a plan"),
    ("plan a list", with_plan("[]"), "is not a plan"),
    ("plan without layers", with_plan({"network": None}), "is not a plan"),
    ("plan of another kind", with_plan({**layers(**GOOD), "format": "x"}), "format"),
    ("plan, unknown field", with_plan({**layers(**GOOD), "rank": 3}), "unknown field 'rank'"),
    ("layer, unknown field", with_plan(layers(**GOOD, rank=3)), "unknown field 'rank'"),
    ("layer, unknown form", with_plan(layers(form="cp", r_in=1, r_out=1)), "form is 'cp'"),
    ("layer, no form", with_plan(layers(r_in=1, r_out=1)), "does not fit"),
    ("layer, one rank", with_plan(layers(form="tucker2", r_in=4)), "does not fit"),
    ("layer, rank 0", with_plan(layers(form="tucker2", r_in=0, r_out=4)), "r_in is 0"),
    ("layer, rank half", with_plan(layers(form="tucker2", r_in=4.5, r_out=4)), "r_in is 4.5"),
    ("layer, rank too large", with_plan(layers(form="tucker2", r_in=999, r_out=4)), "999"),
    ("layer, svd of 3x3", with_plan(layers(form="svd", r_in=4, r_out=4)), "as svd, with a 3x3"),
    ("layer, text error", with_plan(layers(**GOOD, error="small")), "error is"),
    ("unknown layer", with_plan({"layers": {"conv9": GOOD}}), "did you mean"),
    (
        "plan and budget",
        lambda f: [*with_plan(layers(**GOOD))(f), "--latency-budget", 0.5],
        "both a plan and a budget",
    ),
    ("fail-above negative", lambda f: build(f, "--fail-above", -1), "fail_above is -1"),
    (
        "fail-above exceeded",
        lambda f: build(f, "--max-error", 0.9, "--latency-budget", 0.4, "--fail-above", 1e-9),
        "at most 1e-09",
    ),
    (
        "strict",
        lambda f: build(f, "--max-error", 1e-6, "--latency-budget", 0.1, "--strict"),
        "was not met",
    ),
    ("shapes without a name", lambda f: build(f, "--shapes", "1x32x24x24"), "shape '1x32x24x24'"),
    ("shapes with a 0", lambda f: build(f, "--shapes", "image:0x32x24x24"), "shape 'image"),
    ("shapes of no input", lambda f: build(f, "--shapes", "x:1x32x24x24"), "no input"),
    ("shapes that differ", lambda f: build(f, "--shapes", "image:1x32x25x24"), "1x32x25x24"),
    ("threads", lambda f: build(f, "--threads", -1), "threads is -1"),
    ("store", lambda f: build(f, "--store", f / "model.onnx" / "s"), "cannot be opened"),
    ("unknown flag", lambda f: build(f, "--fast"), "--fast"),
    ("no output", lambda f: ["build", f / "model.onnx"], "--output"),
    ("plan: no model", lambda f: ["plan", f / "none.onnx"], "neither inputs nor"),
    (
        "plan: no such folder",
        lambda f: ["plan", f / "model.onnx", "--max-error", 1, "-o", f / "no" / "p.json"],
        "does not exist",
    ),
    ("inspect: no model", lambda f: ["inspect", f / "none.onnx"], "no model file"),
    ("bench: no model", lambda f: ["bench", f / "none.onnx"], "no model file"),
    ("bench: no engine", lambda f: ["bench", f / "none.engine"], "no engine at"),
    ("bench: no second", lambda f: ["bench", f / "model.onnx", f / "no.onnx"], "no model file"),
    ("bench: other inputs", lambda f: ["bench", f / "model.onnx", other(f)], "the same inputs"),
    (
        "bench: no runs",
        lambda f: ["bench", f / "model.onnx", "--iterations", 0],
        "at least 1 iteration",
    ),
    ("doctor: store", lambda f: ["doctor", "--store", f / "model.onnx" / "s"], "cannot be opened"),
    *((f"model: {name}", broken(write), said) for name, (write, said) in BROKEN.items()),
]


def made(path: Path) -> Path:
    path.mkdir()
    return path


def labels_only(folder: Path) -> Path:
    np.save(made(folder / "d") / "labels.npy", np.arange(9))
    return folder / "d"


def other(folder: Path) -> Path:
    return save_model(small_cnn(two_inputs=True), folder / "other.onnx")


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_no_message_is_one_that_any_error_says(folder: Path, run: Run) -> None:
    result = run("calibrate", folder / "model.onnx", "--calib", folder / "no", "-o", folder / "s")
    said = " ".join((result.out + result.err).split())
    assert result.code == 2 and "no data at" in said
    assert [name for name, _, message in CASES if message in said] == []


@pytest.mark.parametrize(("name", "words", "message"), CASES, ids=[case[0] for case in CASES])
def test_a_mistake_is_said_and_nothing_is_written(
    folder: Path, run: Run, name: str, words: Callable[[Path], Words], message: str
) -> None:
    arguments = words(folder)
    before = contents(folder)
    result = run(*arguments)
    assert result.code == 2, f"{name}: {result}"
    said = " ".join((result.out + result.err).split())
    assert message in said, said
    assert "Traceback" not in said
    assert contents(folder) == before


def test_the_error_is_json_where_json_was_asked_for(folder: Path, run: Run) -> None:
    result = run("inspect", folder / "none.onnx", "--json")
    assert result.code == 2
    assert "no model file" in result.json["error"]["received"]
    assert result.json["error"]["fix"]


def test_a_bug_is_no_user_error(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("tdc_deploy.api.read_source", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run(*build(folder))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_the_old_artifact(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "out.onnx").write_bytes(b"old")
    full = os.open("/dev/full", os.O_WRONLY)
    real = os.fdopen

    def fdopen(handle: int, mode: str) -> Any:
        os.dup2(full, handle)
        return real(handle, mode)

    monkeypatch.setattr("tdc_deploy.files.os.fdopen", fdopen)
    result = run(*build(folder, "--max-error", 1))
    os.close(full)
    assert result.code == 2
    assert "No space left" in result.err
    assert (folder / "out.onnx").read_bytes() == b"old"
    assert not list(folder.glob(".*"))
