from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from numpy.typing import NDArray

from tdc_deploy.errors import TdcError
from tdc_deploy.graph.shapes import Shapes
from tdc_deploy.samples import (
    MIN_SAMPLES,
    RANDOM_SAMPLES,
    SPLIT_FROM,
    Samples,
    input_types,
    random_samples,
    read_samples,
)
from tests.builders import images, save_npz

IMAGE = (2, 3, 4, 5)
ONE: Shapes = {"image": IMAGE}
TWO: Shapes = {"image": IMAGE, "scale": (2, 7)}


def graph_of(shapes: Shapes, **dtypes: Any) -> gs.Graph:
    """A graph with these inputs, float32 unless given."""
    inputs = [gs.Variable(n, dtypes.get(n, np.float32), shape) for n, shape in shapes.items()]
    return gs.Graph(inputs=inputs)


def rows(count: int, *shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


def pictures(count: int = 9) -> NDArray[np.float32]:
    return rows(count, *IMAGE[1:])


def read(path: Path, shapes: Shapes = ONE, **dtypes: Any) -> Samples:
    return read_samples(path, input_types(graph_of(shapes, **dtypes)), shapes)


def save_npy(folder: Path, **arrays: NDArray[Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def numbered(count: int, batch: int = 1, **others: Any) -> Samples:
    return Samples({"x": np.arange(count, dtype=np.float32)[:, None]}, batch, **others)


def test_npz_by_the_inputs_names(tmp_path: Path) -> None:
    scale = rows(9, 7)
    path = save_npz(tmp_path / "in.npz", scale=scale, image=pictures())
    samples = read(path, TWO)
    assert set(samples.arrays) == {"image", "scale"}
    assert np.array_equal(samples.arrays["image"], pictures())
    assert np.array_equal(samples.arrays["scale"], scale)
    assert len(samples) == 9
    assert samples.batch == 2
    assert samples.labels is None
    assert samples.real


def test_a_single_input_may_have_any_name(tmp_path: Path) -> None:
    samples = read(save_npz(tmp_path / "in.npz", arr_0=pictures()))
    assert np.array_equal(samples.arrays["image"], pictures())


def test_labels_are_no_input(tmp_path: Path) -> None:
    labels = np.arange(9, dtype=np.uint8)
    samples = read(save_npz(tmp_path / "in.npz", x=pictures(), labels=labels))
    assert list(samples.arrays) == ["image"]
    assert samples.labels is not None
    assert samples.labels.dtype == np.int64
    assert np.array_equal(samples.labels, labels)


def test_a_folder_by_the_inputs_names(tmp_path: Path) -> None:
    labels = np.arange(9)
    folder = save_npy(tmp_path / "in", image=pictures(), scale=rows(9, 7), labels=labels)
    (folder / "notes.txt").write_text("not an input")
    samples = read(folder, TWO)
    assert np.array_equal(samples.arrays["image"], pictures())
    assert np.array_equal(samples.arrays["scale"], rows(9, 7))
    assert samples.labels is not None
    assert np.array_equal(samples.labels, labels)


def test_a_folder_with_a_file_per_sample_in_the_order_of_their_names(tmp_path: Path) -> None:
    # Half of them with a batch dimension of their own, written last to first.
    for i in reversed(range(9)):
        save_npy(tmp_path / "in", **{f"{i:03}": pictures()[i : i + 1] if i % 2 else pictures()[i]})
    save_npy(tmp_path / "in", labels=np.arange(9))
    samples = read(tmp_path / "in")
    assert np.array_equal(samples.arrays["image"], pictures())
    assert samples.labels is not None
    assert np.array_equal(samples.labels, np.arange(9))


def test_whole_numbers_where_the_model_takes_them(tmp_path: Path) -> None:
    tokens = np.arange(18, dtype=np.int64).reshape(9, 2)
    path = save_npz(tmp_path / "in.npz", tokens=tokens)
    assert np.array_equal(read(path, {"tokens": (1, 2)}, tokens=np.int64).arrays["tokens"], tokens)


def refused(path: Path, message: str, shapes: Shapes = ONE, **dtypes: Any) -> TdcError:
    with pytest.raises(TdcError, match=message) as caught:
        read(path, shapes, **dtypes)
    assert caught.value.expected
    return caught.value


def test_a_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.npz", "no inputs at")


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut short"])
def test_a_file_that_is_no_npz(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in.npz").write_bytes(content)
    refused(tmp_path / "in.npz", "cannot be read")


def test_an_npz_cut_short(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "in.npz", image=pictures())
    path.write_bytes(path.read_bytes()[:-200])
    refused(path, "cannot be read")


def test_an_npz_with_a_damaged_member(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "in.npz", image=pictures())
    content = bytearray(path.read_bytes())
    content[400] ^= 0xFF  # within the numbers: the archive's checksum tells
    path.write_bytes(content)
    refused(path, "cannot be read")


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "in.npz", image=np.array([{"a": 1}] * 9, dtype=object))
    refused(path, "cannot be read")
    folder = save_npy(tmp_path / "in", image=np.array([{"a": 1}] * 9, dtype=object))
    refused(folder, "cannot be read")


def test_a_single_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", pictures())
    refused(tmp_path / "in.npy", r"single \.npy")


def test_a_folder_without_arrays(tmp_path: Path) -> None:
    refused(tmp_path, r"no \.npy file")


def test_a_folder_with_labels_only(tmp_path: Path) -> None:
    refused(save_npy(tmp_path / "in", labels=np.arange(9)), "in")


def test_a_folder_that_lacks_one_of_two_inputs(tmp_path: Path) -> None:
    error = refused(save_npy(tmp_path / "in", image=pictures()), "holds image", TWO)
    assert "image, scale" in error.expected


def test_a_folder_with_one_odd_sample(tmp_path: Path) -> None:
    folder = save_npy(tmp_path / "in", a=pictures()[0], b=pictures()[0, :2], c=pictures()[1])
    refused(folder, r"b\.npy has another shape")


@pytest.mark.parametrize("arrays", [{"image": pictures()}, {"image": pictures(), "size": rows(9)}])
def test_other_names_than_the_inputs(tmp_path: Path, arrays: dict[str, Any]) -> None:
    error = refused(save_npz(tmp_path / "in.npz", **arrays), "holds arrays image", TWO)
    assert "image, scale" in error.expected


def test_one_array_too_many(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "in.npz", image=pictures(), mask=pictures())
    refused(path, "holds arrays image, mask")


def test_an_npz_with_labels_only(tmp_path: Path) -> None:
    refused(save_npz(tmp_path / "in.npz", labels=np.arange(9)), "holds arrays none")


def test_another_type(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "in.npz", image=pictures().astype(np.float64))
    assert "astype(numpy.float32)" in refused(path, "is float64").fix


@pytest.mark.parametrize("shape", [(9, 3, 4), (9, 3, 4, 6), (9, 4, 5, 3), (9,), (9, 3, 4, 5, 1)])
def test_another_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = save_npz(tmp_path / "in.npz", image=np.zeros(shape, np.float32))
    refused(path, "has shape")


def test_a_single_number_where_rows_are_wanted(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "in.npz", image=np.float32(3))
    refused(path, "image", {"image": (2,)})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(tmp_path: Path, bad: float) -> None:
    array = pictures()
    array[3, 1, 2, 0] = bad
    refused(save_npz(tmp_path / "in.npz", image=array), "NaN or infinity")


def test_different_numbers_of_samples(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "in.npz", image=pictures(9), scale=rows(8, 7))
    refused(path, "different numbers", TWO)


def test_another_number_of_labels(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "in.npz", image=pictures(9), labels=np.arange(8))
    refused(path, "different numbers")


@pytest.mark.parametrize("labels", [np.zeros(9, np.float32), np.eye(9, dtype=np.int64)])
def test_labels_that_are_no_class_numbers(tmp_path: Path, labels: NDArray[Any]) -> None:
    refused(save_npz(tmp_path / "in.npz", image=pictures(), labels=labels), "labels")


def test_too_few_samples(tmp_path: Path) -> None:
    few = save_npz(tmp_path / "few.npz", image=pictures(MIN_SAMPLES - 1))
    error = refused(few, f"holds {MIN_SAMPLES - 1} samples")
    assert str(MIN_SAMPLES) in error.expected
    enough = save_npz(tmp_path / "enough.npz", image=pictures(MIN_SAMPLES))
    assert len(read(enough)) == MIN_SAMPLES


def test_no_samples_at_all(tmp_path: Path) -> None:
    refused(save_npz(tmp_path / "in.npz", image=pictures(0)), "holds 0 samples")


def test_inputs_of_different_batches(tmp_path: Path) -> None:
    shapes: Shapes = {"image": IMAGE, "scale": (4, 7)}
    path = save_npz(tmp_path / "in.npz", image=pictures(), scale=rows(9, 7))
    refused(path, "different first dimensions", shapes)
    with pytest.raises(TdcError, match="different first dimensions"):
        random_samples(graph_of(shapes), shapes)


def test_an_input_without_a_batch(tmp_path: Path) -> None:
    # There is no row of a single number that could be a sample.
    shapes: Shapes = {"image": IMAGE, "threshold": ()}
    path = save_npz(tmp_path / "in.npz", image=pictures(), threshold=rows(9))
    with pytest.raises(TdcError, match="first"):
        read(path, shapes)
    with pytest.raises(TdcError, match="first"):
        random_samples(graph_of(shapes), shapes)


def test_batches_repeat_the_last_sample_and_say_how_many_count() -> None:
    batches = list(numbered(10, batch=4).batches())
    assert [count for _, count in batches] == [4, 4, 2]
    assert [feeds["x"].ravel().tolist() for feeds, _ in batches] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 9, 9],
    ]
    assert all(feeds["x"].flags.c_contiguous for feeds, _ in batches)


def test_batches_without_a_remainder() -> None:
    assert [count for _, count in numbered(8, batch=4).batches()] == [4, 4]
    assert [count for _, count in numbered(3, batch=8).batches()] == [3]


def test_batches_of_strided_arrays_are_contiguous() -> None:
    array = np.arange(80, dtype=np.float32).reshape(10, 4, 2).transpose(0, 2, 1)
    for feeds, _ in Samples({"x": array}, 4).batches():
        assert feeds["x"].flags.c_contiguous


def test_the_first_batch() -> None:
    assert numbered(10, batch=4).first_batch()["x"].ravel().tolist() == [0, 1, 2, 3]


def test_many_samples_are_halved_between_repair_and_verification() -> None:
    labels = np.arange(SPLIT_FROM + 1) + 100
    repair, verify = numbered(SPLIT_FROM + 1, batch=2, labels=labels).split()
    assert repair.arrays["x"].ravel().tolist() == list(range(0, SPLIT_FROM + 1, 2))
    assert verify.arrays["x"].ravel().tolist() == list(range(1, SPLIT_FROM + 1, 2))
    assert repair.labels is not None
    assert verify.labels is not None
    assert np.array_equal(repair.labels, repair.arrays["x"].ravel() + 100)
    assert np.array_equal(verify.labels, verify.arrays["x"].ravel() + 100)
    assert repair.batch == verify.batch == 2
    assert len(verify) >= MIN_SAMPLES


def test_few_samples_serve_both() -> None:
    samples = numbered(SPLIT_FROM - 1)
    assert samples.split() == (samples, samples)


def test_random_samples_are_not_split() -> None:
    samples = numbered(SPLIT_FROM + 4, real=False)
    assert samples.split() == (samples, samples)


def test_the_digest_is_of_the_content() -> None:
    base = Samples({"a": pictures(), "b": rows(9, 7)}, 2)
    changed = pictures()
    changed[8, 2, 3, 4] += 1
    assert Samples({"b": rows(9, 7), "a": pictures()}, 2).sha256 == base.sha256
    assert Samples({"a": changed, "b": rows(9, 7)}, 2).sha256 != base.sha256
    assert Samples({"a": pictures(), "c": rows(9, 7)}, 2).sha256 != base.sha256
    assert Samples({"a": pictures(), "b": rows(9, 7)}, 3).sha256 != base.sha256
    strided = np.asfortranarray(pictures())
    assert Samples({"a": strided, "b": rows(9, 7)}, 2).sha256 == base.sha256


def test_random_samples_are_the_same_again_and_marked() -> None:
    first, second = (random_samples(graph_of(TWO), TWO) for _ in range(2))
    assert first.sha256 == second.sha256
    assert not first.real
    assert first.labels is None
    assert first.sha256 != random_samples(graph_of(TWO), TWO, seed=1).sha256


@pytest.mark.parametrize("batch", [1, 3, 16, 20])
def test_random_samples_fill_whole_batches(batch: int) -> None:
    shapes: Shapes = {"image": (batch, 3, 20, 33), "scale": (batch, 7)}
    samples = random_samples(graph_of(shapes, scale=np.float16), shapes)
    assert len(samples) >= RANDOM_SAMPLES
    assert len(samples) % batch == 0
    assert samples.arrays["image"].shape[1:] == (3, 20, 33)
    assert samples.arrays["image"].dtype == np.float32
    assert samples.arrays["scale"].shape == (len(samples), 7)
    assert samples.arrays["scale"].dtype == np.float16


def test_random_images_are_not_white_noise() -> None:
    shapes: Shapes = {"image": (1, 3, 32, 32)}
    arrays = random_samples(graph_of(shapes), shapes).arrays["image"]
    # White noise has means of 1/32 over an image and of 1/8 over 8x8 pixels.
    assert arrays.mean((2, 3)).std(0).min() >= 5 / 32
    within = arrays - arrays.mean((2, 3), keepdims=True)
    cells = within.reshape(-1, 3, 4, 8, 4, 8).mean((3, 5))
    assert cells.std() >= 4 * within.std() / 8


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_random_samples_of_whole_numbers_make_no_sense(dtype: Any) -> None:
    with pytest.raises(TdcError, match="would not make sense") as caught:
        random_samples(graph_of(ONE, image=dtype), ONE)
    assert "--inputs" in caught.value.fix


def test_the_builders_images_vary() -> None:
    means = images(16).mean((2, 3))
    assert means.std(0).min() >= 0.1  # white noise: 1/24


def test_a_spread_takes_from_everywhere() -> None:
    many = Samples({"x": np.arange(100.0, dtype=np.float32)[:, None]}, 1, np.arange(100))
    few = many.spread(12)
    assert len(few) == 12
    assert few.labels is not None
    assert (few.labels[0], few.labels[-1]) == (0, 99)
    # Steps of 9: 99 over 11 gaps.
    assert set(np.diff(few.labels).tolist()) == {9}
    assert many.spread(100) is many
