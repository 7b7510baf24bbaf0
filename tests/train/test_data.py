"""Data sets: what is read is what was written, and what is missing or damaged is said."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tdc_train.data.base import DRAWS, Data, ImageSet
from tdc_train.data.registry import make_data
from tdc_train.data.shapes import generate
from tdc_train.data.tensors import Augment, TensorSet

from tdc_deploy.errors import TdcError

# Of the first 600 images and classes of seed 0's training part: the same on every machine.
SHAPES_SHA256 = "893bc66b7e30366020e9b0d79327720954ca83ddae9af75dc0cd76df8d65cb57"


def everything(images: ImageSet) -> tuple[Any, Any]:
    return images.batch(torch.arange(len(images)))


def digest(*arrays: Any) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


# ------------------------------------------------------------------------------------ shapes


def test_shapes_are_the_same_on_every_machine() -> None:
    images, labels = generate(600, seed=0, split=0)
    assert images.shape == (600, 3, 32, 32)
    assert images.dtype == np.uint8
    assert digest(images, labels.astype("<i8")) == SHAPES_SHA256


def test_a_larger_set_begins_with_the_smaller_one() -> None:
    small, large = generate(30, 3, 1), generate(700, 3, 1)
    assert np.array_equal(small[0], large[0][:30])
    assert np.array_equal(small[1], large[1][:30])


def test_seeds_parts_and_blocks_share_no_image() -> None:
    images = [generate(20, seed, split)[0] for seed in (0, 1) for split in (0, 1, 2)]
    images.append(generate(520, 0, 0)[0][500:])
    kinds = {image.tobytes() for part in images for image in part}
    assert len(kinds) == 20 * len(images)


def test_shapes_have_all_classes_about_equally_often() -> None:
    counts = np.bincount(generate(2000, 5, 0)[1], minlength=10)
    # Binomial: 200 with a standard deviation of 13.4.
    assert counts.shape == (10,)
    assert np.abs(counts - 200).max() <= 5 * 13.4


def test_shapes_cover_their_areas() -> None:
    """Without clutter and noise, each covers its area."""
    from tdc_train.data import shapes

    draw = shapes._Draw(np.random.PCG64(1))
    areas = []
    for shape in range(shapes.SHAPES):
        look = shapes._look(draw, np.full(200, 2 * shape), (10.0, 10.0), room=0.0)
        # Where a pixel is wholly covered, what lay beneath is gone.
        black, white = np.zeros((200, 3, 32, 32), np.float32), np.ones((200, 3, 32, 32), np.float32)
        shapes._paint(black, look)
        shapes._paint(white, look)
        areas.append(float((1 - (white - black)).sum() / (200 * 3)))
    # Disc, square, triangle, cross, ring of radius 10: π·0.9², 1.6², 3√3·0.6², 2·1.6 − 0.8²,
    # π·(1 − 0.44²) hundred pixels. Edges are soft.
    for found, expected in zip(areas, (254, 256, 187, 256, 253), strict=True):
        assert abs(found / expected - 1) <= 0.03


# ------------------------------------------------------------------------------------ in memory


def numbered(count: int, side: int = 5) -> Any:
    pixels = torch.arange(count * 3 * side * side) % 251
    return pixels.byte().view(count, 3, side, side)


def test_batches_are_normalised() -> None:
    images = numbered(4)
    part = TensorSet(images, torch.arange(4), (0.5, 0.25, 0.0), (0.5, 1.0, 2.0))
    found, labels = part.batch(torch.tensor([2, 0]))
    assert labels.tolist() == [2, 0]
    wanted = images[[2, 0]].double() / 255
    for channel, (mean, std) in enumerate(((0.5, 0.5), (0.25, 1.0), (0.0, 2.0))):
        # Roundings of float32.
        apart = (found[:, channel].double() - (wanted[:, channel] - mean) / std).abs().max()
        assert apart <= 1e-6


def test_shifts_and_mirrors_are_those_drawn() -> None:
    images = numbered(3)
    part = TensorSet(images, torch.arange(3), (0.0,) * 3, (1 / 255,) * 3, Augment(2, flip=True))
    draws = torch.full((3, DRAWS), 0.5)
    draws[0, 1:3] = torch.tensor([0.0, 0.99])  # up by 2, right by 2
    draws[1, 0] = 0.1  # mirrored
    found = part.batch(torch.arange(3), draws)[0].round().byte()
    large = np.pad(images.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    assert np.array_equal(found[0].numpy(), large[0, :, 0:5, 4:9])
    assert np.array_equal(found[1].numpy(), images[1].numpy()[:, :, ::-1])
    assert np.array_equal(found[2].numpy(), images[2].numpy())


def test_digits_are_split_once() -> None:
    pytest.importorskip("sklearn")
    data = make_data("digits", options={"val": 100, "test": 200})
    assert (len(data.train), len(data.val), len(data.test)) == (1497, 100, 200)
    rows = {
        x.numpy().tobytes() for p in (data.train, data.val, data.test) for x in everything(p)[0]
    }
    # Two of scikit-learn's digits may be alike, not many.
    assert len(rows) >= 1790
    with pytest.raises(TdcError, match="some left to train on"):
        make_data("digits", options={"val": 1000, "test": 1000})


# ------------------------------------------------------------------------------------ CIFAR


def write_cifar10(folder: Path, rows: int = 4) -> np.ndarray[Any, Any]:
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    parts = []
    for name in names:
        parts.append(random.integers(0, 256, (rows, 3072), dtype=np.uint8))
        labels = random.integers(0, 10, rows).tolist()
        content = {b"data": parts[-1], b"labels": labels, b"batch_label": b"some"}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return np.concatenate(parts[:5])


def test_cifar10_is_read_from_its_folder_or_the_one_above(tmp_path: Path) -> None:
    pixels = write_cifar10(tmp_path / "cifar-10-batches-py")
    for root in (tmp_path, tmp_path / "cifar-10-batches-py"):
        data = make_data("cifar10", str(root), {"val": 6})
        assert (len(data.train), len(data.val), len(data.test)) == (14, 6, 4)
        images = torch.cat([everything(data.train)[0], everything(data.val)[0]])
        back = images * torch.tensor([0.2470, 0.2435, 0.2616]).view(1, 3, 1, 1)
        back = (back + torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1)) * 255
        assert np.array_equal(back.round().byte().numpy().reshape(20, -1), pixels)


def test_cifar100_has_fine_classes(tmp_path: Path) -> None:
    for name in ("train", "test"):
        content = {
            b"data": np.zeros((5, 3072), np.uint8),
            b"fine_labels": [99] * 5,
            b"coarse_labels": [1] * 5,
        }
        (tmp_path / name).write_bytes(pickle.dumps(content))
    data = make_data("cifar100", str(tmp_path), {"val": 1})
    assert data.classes == 100
    assert everything(data.test)[1].tolist() == [99] * 5


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("run",))


def test_damaged_or_hostile_cifar_files_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar10(folder)
    file = folder / "data_batch_3"
    whole = file.read_bytes()
    no_pixels = pickle.dumps({b"data": np.zeros((2, 5), np.uint8), b"labels": [1, 2]})
    bad_class = pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]})
    cases = {
        whole[: len(whole) // 2]: "damaged",
        b"": "damaged",
        pickle.dumps({b"data": Evil(), b"labels": []}): r"it wants builtins\.print",
        pickle.dumps([1]): "damaged",
        no_pixels: r"uint8 \(2, 5\) for 2 labels",
        bad_class: "class 10",
    }
    for content, message in cases.items():
        file.write_bytes(content)
        with pytest.raises(TdcError, match=message):
            make_data("cifar10", str(tmp_path), {"val": 2})
    assert capsys.readouterr().out == ""
    file.unlink()
    with pytest.raises(TdcError, match="data_batch_3 is missing"):
        make_data("cifar10", str(tmp_path), {"val": 2})


# ------------------------------------------------------------------------------------ ImageNet


def write_imagenet(root: Path, classes: tuple[str, ...] = ("n01", "n02")) -> None:
    image_module = pytest.importorskip("PIL.Image")
    for part, count in (("train", 5), ("val", 2)):
        for number, name in enumerate(classes):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                colour = (100 * number, 10 * i, 50)
                image_module.new("RGB", (40 + i, 30), colour).save(root / part / name / f"{i}.png")


def test_imagenet_folders_are_read_in_order(tmp_path: Path) -> None:
    write_imagenet(tmp_path)
    data = make_data("imagenet", str(tmp_path), {"size": 24, "held_out": 2, "workers": 2})
    assert isinstance(data, Data)
    assert (len(data.train), len(data.val), len(data.test)) == (8, 2, 4)
    assert (data.classes, data.shape) == (2, (3, 24, 24))
    images, labels = everything(data.test)
    assert labels.tolist() == [0, 0, 1, 1]
    red = images[:, 0] * 0.229 + 0.485
    assert (red[2:] - 100 / 255).abs().max() <= 1e-6
    augmented, _ = data.train.batch(torch.arange(8), torch.rand(8, DRAWS))
    assert augmented.shape == (8, 3, 24, 24)


def test_a_random_crop_lies_in_the_image_and_has_its_area() -> None:
    from tdc_train.data.imagenet import _crop

    random = np.random.default_rng(0)
    for draws in random.random((200, DRAWS)).tolist():
        left, top, right, bottom = _crop((50, 40), draws)
        assert 0 <= left < right <= 50 + 1e-9
        assert 0 <= top < bottom <= 40 + 1e-9
        assert (right - left) * (bottom - top) <= 2000 * (0.08 + 0.92 * draws[1]) * (1 + 1e-9)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    write_imagenet(tmp_path)
    data = make_data("imagenet", str(tmp_path), {"size": 24, "held_out": 2})
    (tmp_path / "val" / "n02" / "1.png").write_bytes(b"no image")
    with pytest.raises(TdcError, match=r"n02/1\.png cannot be read"):
        everything(data.test)


def test_missing_parts_of_imagenet_are_named(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    with pytest.raises(TdcError, match=r"no folder .*train"):
        make_data("imagenet", str(tmp_path))
    (tmp_path / "train").mkdir()
    with pytest.raises(TdcError, match="no class folders"):
        make_data("imagenet", str(tmp_path))
    (tmp_path / "train" / "n01").mkdir()
    with pytest.raises(TdcError, match=r"no images in .*n01"):
        make_data("imagenet", str(tmp_path))
    write_imagenet(tmp_path / "other", ("n01", "n03"))
    write_imagenet(tmp_path / "good")
    (tmp_path / "other" / "val" / "n03").rename(tmp_path / "other" / "val" / "n04")
    with pytest.raises(TdcError, match="class 'n03' is in only one"):
        make_data("imagenet", str(tmp_path / "other"))
    with pytest.raises(TdcError, match="held_out is 10000"):
        make_data("imagenet", str(tmp_path / "good"))


# ------------------------------------------------------------------------------------ by name


def test_what_is_missing_is_said_with_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(TdcError, match="data 'mnist'"):
        make_data("mnist")
    with pytest.raises(TdcError, match="without a folder"):
        make_data("cifar10")
    with pytest.raises(TdcError, match="is no folder"):
        make_data("cifar10", str(tmp_path / "nowhere"))
    with pytest.raises(TdcError, match="cifar-10-batches-py/test_batch"):
        make_data("cifar10", str(tmp_path))
    with pytest.raises(TdcError, match="option 'size'"):
        make_data("shapes", options={"size": 64})
    with pytest.raises(TdcError, match="at least 1 in each part"):
        make_data("shapes", options={"val": 0})
