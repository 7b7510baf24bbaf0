from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from tests.builders import images, save_model, save_npz, small_cnn
from tests.cli.conftest import Run


def reference(model: Path, array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each sample on its own, by ONNX Runtime."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: row[None]})[0] for row in array])


@pytest.mark.parametrize("batch", ["N", 1, 4])
@pytest.mark.parametrize("count", [1, 4, 7])
def test_one_row_per_sample(run: Run, tmp_path: Path, batch: int | str, count: int) -> None:
    model = save_model(small_cnn(batch=batch), tmp_path / "model.onnx")
    alone = save_model(small_cnn(batch=1), tmp_path / "alone.onnx")
    array = images(count)
    expected = reference(alone, array)
    labels = expected.argmax(1)
    labels[0] = (labels[0] + 1) % 10
    save_npz(tmp_path / "in.npz", image=array, labels=labels)
    done = run(
        "infer", model, "--inputs", tmp_path / "in.npz", "-o", tmp_path / "out.npz", "--json"
    )
    assert done.code == 0, done.err
    with np.load(tmp_path / "out.npz") as written:
        # Another batch size sums in another order: a few units in the last place of the largest.
        np.testing.assert_allclose(written["logits"], expected, atol=2e-5, rtol=0)
    assert done.json["accuracy"] == pytest.approx(1 - 1 / count)
    assert done.json["samples"] == count
    assert done.json["outputs"] == {"logits": {"shape": [count, 10], "dtype": "float32"}}


def test_a_folder_of_samples_and_a_batch(run: Run, tmp_path: Path) -> None:
    model = save_model(small_cnn(batch="N"), tmp_path / "model.onnx")
    folder = tmp_path / "samples"
    folder.mkdir()
    array = images(5)
    for number, image in enumerate(array):
        np.save(folder / f"{number}.npy", image)
    words = ("infer", model, "--inputs", folder, "-o", tmp_path / "out.npz", "--batch", 2)
    done = run(*words, "--json")
    assert done.json["batch"] == 2
    with np.load(tmp_path / "out.npz") as written:
        np.testing.assert_allclose(written["logits"], reference(model, array), atol=2e-5, rtol=0)


def test_several_inputs_and_outputs(run: Run, tmp_path: Path) -> None:
    model = save_model(
        small_cnn(batch="N", two_inputs=True, two_outputs=True), tmp_path / "model.onnx"
    )
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    shift = np.random.default_rng(0).standard_normal((3, 48, 1, 1), np.float32)
    feeds = {"image": images(3), "shift": shift}
    save_npz(tmp_path / "in.npz", **feeds)
    done = run("infer", model, "--inputs", tmp_path / "in.npz", "-o", tmp_path / "out.npz")
    assert done.code == 0, done.err
    with np.load(tmp_path / "out.npz") as written:
        names = [node.name for node in session.get_outputs()]
        assert sorted(written.files) == sorted(names)
        for name, value in zip(names, session.run(None, feeds), strict=True):
            np.testing.assert_array_equal(written[name], value)


def nothing(folder: Path) -> None:
    save_npz(folder / "in.npz", image=images(1)[:0])


def nan(folder: Path) -> None:
    array = images(2)
    array[1, 0, 0, 0] = np.nan
    save_npz(folder / "in.npz", image=array)


def other_size(folder: Path) -> None:
    save_npz(folder / "in.npz", image=images(2)[:, :, :8])


def other_type(folder: Path) -> None:
    save_npz(folder / "in.npz", image=images(2).astype(np.float64))


def fine(folder: Path) -> None:
    save_npz(folder / "in.npz", image=images(2))


@pytest.mark.parametrize(
    ("prepare", "output", "more", "message"),
    [
        (nothing, "out.npz", [], "holds no samples"),
        (nan, "out.npz", [], "NaN"),
        (other_size, "out.npz", [], "has shape"),
        (other_type, "out.npz", [], "float64"),
        (fine, "out.txt", [], "ends in .npz"),
        (fine, "none/out.npz", [], "does not exist"),
        (fine, "in.npz", [], "would be overwritten"),
        (fine, "out.npz", ["--batch", 3], "which the artifact fixes"),
        (fine, "out.npz", ["--batch", 0], "1 or more"),
    ],
)
def test_mistakes_write_nothing(
    run: Run,
    tmp_path: Path,
    prepare: Callable[[Path], None],
    output: str,
    more: list[object],
    message: str,
) -> None:
    model = save_model(small_cnn(), tmp_path / "model.onnx")
    prepare(tmp_path)
    before = (tmp_path / "in.npz").read_bytes()
    done = run("infer", model, "--inputs", tmp_path / "in.npz", "-o", tmp_path / output, *more)
    assert done.code == 2
    assert message in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.npz", "model.onnx"]
    assert (tmp_path / "in.npz").read_bytes() == before
