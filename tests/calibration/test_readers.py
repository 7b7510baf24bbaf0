from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tdc_calibration.readers import InputSpec, Reader, open_data, sample_digests

from tdc_deploy.errors import TdcError

Array = NDArray[Any]
COUNT = 11


def spec(batch: int = 4) -> InputSpec:
    return InputSpec({"x": np.dtype(np.float32)}, {"x": (batch, 3, 6, 5)})


def images(count: int = COUNT) -> Array:
    return np.random.default_rng(0).standard_normal((count, 3, 6, 5), np.float32)


def labels() -> Array:
    return np.arange(COUNT) % 3


def read(reader: Reader) -> Array:
    return np.concatenate([feeds["x"][:count] for feeds, count in reader.batches()])


def stored(folder: Path) -> Any:
    np.savez(folder / "a.npz", x=images(), labels=labels())
    return folder / "a.npz"


def compressed(folder: Path) -> Any:
    np.savez_compressed(folder / "a.npz", anything=images(), labels=labels())
    return folder / "a.npz"


def column_major(folder: Path) -> Any:
    np.savez(folder / "a.npz", x=np.asfortranarray(images()), labels=labels())
    return folder / "a.npz"


def column_major_compressed(folder: Path) -> Any:
    np.savez_compressed(folder / "a.npz", x=np.asfortranarray(images()), labels=labels())
    return folder / "a.npz"


def by_input(folder: Path) -> Any:
    np.save(folder / "x.npy", images())
    np.save(folder / "labels.npy", labels())
    return folder


def by_sample(folder: Path) -> Any:
    for i, image in enumerate(images()):
        np.save(folder / f"{i:03}.npy", image[None] if i % 2 else image)
    np.save(folder / "labels.npy", labels())
    return folder


def pairs(_: Path) -> Any:
    return [(images()[:5], labels()[:5]), *zip(images()[5:], labels()[5:], strict=True)]


def mappings(_: Path) -> Any:
    return lambda: iter([({"x": images()}, labels())])


KINDS = [
    stored,
    compressed,
    column_major,
    column_major_compressed,
    by_input,
    by_sample,
    pairs,
    mappings,
]


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_give_the_same(kind: Callable[[Path], Any], tmp_path: Path) -> None:
    reader = open_data(kind(tmp_path), spec())
    sizes = []
    for feeds, count in reader.batches():
        assert feeds["x"].shape == (4, 3, 6, 5)
        assert feeds["x"].flags.c_contiguous
        sizes.append(count)
    assert sizes == [4, 4, 3]
    np.testing.assert_array_equal(feeds["x"][3], images()[-1])  # the last one, again
    assert reader.repeatable
    assert len(reader) == COUNT
    for _ in range(2):
        np.testing.assert_array_equal(read(reader), images())
    np.testing.assert_array_equal(reader.labels, labels())
    assert reader.sha256 == open_data([images()], spec(3)).sha256


def test_samples_have_the_digest_of_their_reader(tmp_path: Path) -> None:
    for data in (stored(tmp_path), pairs(tmp_path)):
        reader = open_data(data, spec())
        assert sample_digests(reader.samples(), spec(1)) == reader.digests


def test_a_single_array_is_no_data_set(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", images())
    with pytest.raises(TdcError, match=r"single \.npy array"):
        open_data(tmp_path / "x.npy", spec())


@pytest.mark.parametrize("kind", KINDS)
def test_some_of_them(kind: Callable[[Path], Any], tmp_path: Path) -> None:
    data = kind(tmp_path)
    few = open_data(data, spec(), most=3)
    # Of an iterable, whose number is not known, the first.
    numbers = [0, 5, 10] if isinstance(data, Path) else [0, 1, 2]
    np.testing.assert_array_equal(read(few), images()[numbers])
    np.testing.assert_array_equal(few.labels, labels()[numbers])
    assert len(few) == 3
    assert few.sha256 == open_data([images()[numbers]], spec()).sha256
    assert len(few.limited(None)) == COUNT
    samples = few.limited(9).samples()
    assert (len(samples), samples.batch) == (9, 4)
    assert samples.labels is not None
    assert open_data(data, spec()).samples(8).arrays["x"].shape == (8, 3, 6, 5)
    # Nothing but what the reader gives, if that is less than all.
    nine = open_data(data, spec(), most=9)
    chosen = {image.tobytes() for image in read(nine)}
    assert {image.tobytes() for image in nine.samples(8).arrays["x"]} < chosen
    with pytest.raises(TdcError, match="holds 3 samples"):
        few.samples()


def test_the_digest_is_of_the_content() -> None:
    one = open_data([images()], spec()).sha256
    changed = images()
    changed[7, 2, 5, 4] += 1e-6
    assert open_data([changed], spec()).sha256 != one
    assert open_data([images()[::-1]], spec()).sha256 != one
    assert open_data([images()[:-1]], spec()).sha256 != one


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, None])
def test_memory_does_not_grow_with_the_set(save: Any, tmp_path: Path) -> None:
    count, one = 400, 3 * 64 * 64 * 4
    wide = InputSpec({"x": np.dtype(np.float32)}, {"x": (4, 3, 64, 64)})
    if save is None:
        rng = np.random.default_rng(0)
        data: Any = lambda: (rng.random((3, 64, 64), np.float32) for _ in range(count))  # noqa: E731
    else:
        data = tmp_path / "a.npz"
        save(data, x=np.ones((count, 3, 64, 64), np.float32))
    reader = open_data(data, wide)
    tracemalloc.start()
    try:
        assert sum(n for _, n in reader.batches()) == count
        # Two batches of 4, the row in hand and what unpacking takes; all would be 400.
        assert tracemalloc.get_traced_memory()[1] < 20 * one
    finally:
        tracemalloc.stop()


def test_two_inputs(tmp_path: Path) -> None:
    two = InputSpec({"a": np.dtype(np.float32), "b": np.dtype(np.int64)}, {"a": (2, 4), "b": (2,)})
    a, b = np.ones((5, 4), np.float32), np.arange(5)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", a=a, b=b)
        got = list(open_data(tmp_path / "a.npz", two).batches())
        np.testing.assert_array_equal(np.concatenate([f["b"][:n] for f, n in got]), b)
    np.savez(tmp_path / "a.npz", a=a, b=b[:4])
    with pytest.raises(TdcError, match="different numbers of samples"):
        open_data(tmp_path / "a.npz", two)
    np.savez(tmp_path / "a.npz", a=a)
    with pytest.raises(TdcError, match="holds arrays a"):
        open_data(tmp_path / "a.npz", two)
    with pytest.raises(TdcError, match="is a ndarray"):
        read(open_data([a], two))


def test_an_iterator_can_be_read_once() -> None:
    reader = open_data(iter([images()]), spec())
    assert not reader.repeatable
    assert sum(n for _, n in reader.batches()) == COUNT
    assert (len(reader), len(reader.sha256)) == (COUNT, 64)  # known from that pass
    with pytest.raises(TdcError, match="iterator, which is empty after one pass"):
        next(reader.batches())


def test_other_samples_in_another_pass_are_refused() -> None:
    rng = np.random.default_rng(0)
    reader = open_data(lambda: [rng.permutation(images())], spec())
    read(reader)
    with pytest.raises(TdcError, match="gave other samples in another pass"):
        read(reader)


def nan(array: Array) -> Array:
    array[9, 1, 2, 3] = np.nan
    return array


WRONG: list[tuple[Callable[[Array], Array], str]] = [
    (nan, "sample 9 of .* holds NaN"),
    (lambda a: a[:, :2], r"shape \((11|1), 2, 6, 5\)"),
    (lambda a: a.astype(np.float64), "is float64"),
    (lambda a: a[:0], "holds no samples"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
@pytest.mark.parametrize("where", ["stored", "compressed", "npy", "python"])
def test_arrays_that_do_not_fit(
    where: str, change: Callable[[Array], Array], message: str, tmp_path: Path
) -> None:
    array = change(images())
    data: Any = tmp_path / "a.npz"
    if where == "npy":
        data = tmp_path
        np.save(tmp_path / "x.npy", array)
    elif where == "python":
        data = [array]
    else:
        (np.savez if where == "stored" else np.savez_compressed)(data, x=array)
    with pytest.raises(TdcError, match=message):
        read(open_data(data, spec()))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_broken_archives(save: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(TdcError, match="no data at"):
        open_data(path, spec())
    save(path, x=images())
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(TdcError, match="cannot be read"):
        open_data(path, spec())
    path.write_bytes(b"")
    with pytest.raises(TdcError, match="cannot be read"):
        open_data(path, spec())
    np.savez(path, x=np.array([{}]))
    with pytest.raises(TdcError, match="cannot be read"):
        open_data(path, spec())
    np.savez(path, x=images(), labels=labels() / 2)
    with pytest.raises(TdcError, match=r"labels in .* are float64"):
        open_data(path, spec())
    np.savez(path, x=images(), labels=labels()[:-1])
    with pytest.raises(TdcError, match="different numbers of samples"):
        open_data(path, spec())


def test_a_damaged_compressed_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=images())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(TdcError, match="cannot be read"):
        read(open_data(path, spec()))


def test_broken_folders(tmp_path: Path) -> None:
    with pytest.raises(TdcError, match="holds no samples"):
        open_data(tmp_path, spec())
    by_sample(tmp_path)
    np.save(tmp_path / "003.npy", images()[0, :2])
    with pytest.raises(TdcError, match=r"003.npy has shape \(2, 6, 5\)"):
        read(open_data(tmp_path, spec()))
    (tmp_path / "003.npy").write_bytes((tmp_path / "002.npy").read_bytes()[:-4])
    with pytest.raises(TdcError, match=r"003.npy cannot be read"):
        read(open_data(tmp_path, spec()))
    (tmp_path / "003.npy").unlink()
    with pytest.raises(TdcError, match="10 samples and 11 labels"):
        open_data(tmp_path, spec())


def mixed() -> Iterator[Any]:
    yield images()[:2], [0, 1]
    yield images()[2:]


def test_items_from_python_that_do_not_fit() -> None:
    wrong: list[tuple[Any, str]] = [
        ([images()[0, 0]], "has 2 dimensions"),
        ([{"y": images()}], "holds y"),
        ([(images(), labels() * 0.5)], "labels of .* float64"),
        ([(images(), labels()[:3])], "different numbers"),
        (mixed, "labels for 2 of its 11"),
    ]
    for data, message in wrong:
        with pytest.raises(TdcError, match=message):
            read(open_data(data, spec()))
    with pytest.raises(TdcError, match="0 samples"):
        open_data([images()], spec(), most=0)
    with pytest.raises(TdcError, match="no samples"):
        read(open_data([], spec()))
    with pytest.raises(TdcError, match="for samples from Python"):
        open_data([images()], spec(), labels=Path("labels.csv"))
