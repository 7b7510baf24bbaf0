from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tdc_calibration.readers import PRESETS, InputSpec, Preprocessing, open_data, preprocessing

from tdc_deploy.errors import TdcError

Image = pytest.importorskip("PIL.Image")
Array = NDArray[Any]
UNIT = PRESETS["unit"]


def spec(*shape: int, dtype: Any = np.float32) -> InputSpec:
    return InputSpec({"x": np.dtype(dtype)}, {"x": shape or (2, 3, 8, 8)})


def picture(seed: int = 0, height: int = 8, width: int = 8, channels: int = 3) -> Array:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, channels), np.uint8)
    return pixels[:, :, 0] if channels == 1 else pixels


def save(folder: Path, **images: Array) -> Path:
    for name, pixels in images.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def read(folder: Path, how: Preprocessing, to: InputSpec | None = None) -> Array:
    reader = open_data(folder, to or spec(), preprocessing=how)
    return np.concatenate([feeds["x"][:count] for feeds, count in reader.batches()])


def test_pixels_as_they_are(tmp_path: Path) -> None:
    save(tmp_path, a=picture(0), b=picture(1), c=picture(2))
    got = read(tmp_path, UNIT)
    assert got.shape == (3, 3, 8, 8)
    for i in range(3):
        np.testing.assert_array_equal(got[i], (picture(i) / np.float32(255)).transpose(2, 0, 1))


def test_mean_std_range_and_order_of_colours(tmp_path: Path) -> None:
    save(tmp_path, a=picture())
    pixels = picture().astype(np.float64)
    imagenet = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    got = read(tmp_path, preprocessing("imagenet", resize=8) or UNIT)[0]
    # Two float32 roundings of numbers up to 3.
    np.testing.assert_allclose(got, imagenet.transpose(2, 0, 1), rtol=0, atol=1e-6)
    caffe = pixels[:, :, ::-1] - [103.939, 116.779, 123.68]
    got = read(tmp_path, preprocessing("caffe", resize=8) or UNIT)[0]
    np.testing.assert_allclose(got, caffe.transpose(2, 0, 1), rtol=0, atol=1e-4)
    got = read(tmp_path, Preprocessing(mean=(0.5,), std=(0.25,)))[0]
    expected = ((pixels / 255 - 0.5) / 0.25).transpose(2, 0, 1)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)
    assert read(tmp_path, UNIT, spec(2, 3, 8, 8, dtype=np.float16)).dtype == np.float16
    last = read(tmp_path, UNIT, spec(1, 8, 8, 3))
    np.testing.assert_array_equal(last, read(tmp_path, UNIT).transpose(0, 2, 3, 1))


def test_sizes_as_torchvision_makes_them(tmp_path: Path) -> None:
    pixels = picture(0, 40, 61)
    image = Image.fromarray(pixels)
    save(tmp_path, a=pixels)
    bilinear = Image.Resampling.BILINEAR

    def result(resized: Any, left: int, top: int, side: int = 14) -> Array:
        cut = resized.crop((left, top, left + side, top + side))
        values: Array = np.asarray(cut) / np.float32(255)
        return np.asarray(values.transpose(2, 0, 1))

    to = spec(1, 3, 14, 14)
    # Resize(16): the longer side is int(16 · 61 / 40) = 24. CenterCrop(14): round((24 − 14) / 2).
    expected = result(image.resize((24, 16), bilinear), 5, 1)
    np.testing.assert_array_equal(read(tmp_path, Preprocessing(resize=16), to)[0], expected)
    np.testing.assert_array_equal(read(tmp_path, Preprocessing(crop_share=0.875), to)[0], expected)
    bicubic = result(image.resize((24, 16), Image.Resampling.BICUBIC), 5, 1)
    how = Preprocessing(resize=16, interpolation="bicubic")
    np.testing.assert_array_equal(read(tmp_path, how, to)[0], bicubic)
    # Nothing said: the least size that covers 14x14.
    covered = result(image.resize((21, 14), bilinear), round(3.5), 0)
    np.testing.assert_array_equal(read(tmp_path, UNIT, to)[0], covered)
    stretched = result(image.resize((14, 14), bilinear), 0, 0)
    np.testing.assert_array_equal(read(tmp_path, Preprocessing(resize=(14, 14)), to)[0], stretched)
    # A crop of the image itself, then scaled to what the network takes.
    part = image.crop((round(15.5), 5, round(15.5) + 30, 35)).resize((14, 14), bilinear)
    np.testing.assert_array_equal(
        read(tmp_path, Preprocessing(crop=(30, 30)), to)[0], result(part, 0, 0)
    )
    wide = read(tmp_path, UNIT, spec(1, 3, 10, 30))
    assert wide.shape == (1, 3, 10, 30)
    with pytest.raises(TdcError, match="crop of 70x70 from an image that is 40x61"):
        read(tmp_path, Preprocessing(crop=(70, 70)), to)


def test_gray_and_colour(tmp_path: Path) -> None:
    gray, colour = picture(0, channels=1), picture(1, channels=4)
    save(tmp_path, a=gray, b=colour)
    got = read(tmp_path, UNIT)
    for channel in got[0]:
        np.testing.assert_array_equal(channel, gray / np.float32(255))
    opaque = colour[:, :, :3] / np.float32(255)
    np.testing.assert_array_equal(got[1], opaque.transpose(2, 0, 1))
    one = read(tmp_path, UNIT, spec(1, 1, 8, 8))
    np.testing.assert_array_equal(one[0, 0], gray / np.float32(255))
    luma = colour[:, :, :3] @ [0.299, 0.587, 0.114] / 255
    np.testing.assert_allclose(one[1, 0], luma, rtol=0, atol=1 / 255)  # Pillow rounds to 8 bits


def classes(folder: Path) -> Path:
    for name, numbers in {"cat": (0, 1), "dog": (2,), "bee": (3, 4)}.items():
        (folder / name).mkdir()
        save(folder / name, **{f"{n}": picture(n) for n in numbers})
    return folder


def test_folders_are_classes(tmp_path: Path) -> None:
    reader = open_data(classes(tmp_path), spec(), preprocessing=UNIT)
    assert reader.labels is not None
    assert reader.labels.tolist() == [0, 0, 1, 1, 2]  # bee, cat, dog
    first = next(reader.batches())[0]["x"][0]
    np.testing.assert_array_equal(first, (picture(3) / np.float32(255)).transpose(2, 0, 1))
    few = reader.limited(3)
    assert few.labels is not None
    assert few.labels.tolist() == [0, 1, 2]
    (tmp_path / "ant").mkdir()
    with pytest.raises(TdcError, match=r"no images in .*ant"):
        open_data(tmp_path, spec(), preprocessing=UNIT)
    # What that error proposes: with labels of one's own, folders number nothing.
    csv = tmp_path / "labels.csv"
    csv.write_text("".join(f"{number}\n" for number in range(5)))
    labelled = open_data(tmp_path, spec(), preprocessing=UNIT, labels=csv)
    assert labelled.labels is not None
    assert labelled.labels.tolist() == [0, 1, 2, 3, 4]
    save(tmp_path, loose=picture())
    with pytest.raises(TdcError, match="images and folders of images"):
        open_data(tmp_path, spec(), preprocessing=UNIT)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "file,label\ncat/0.png,7\n1.png,8\n2.png,9\n3.png,1\n4.png,2\nother.png,3\n",
            [1, 2, 7, 8, 9],
        ),
        ("label\n4\n3\n2\n1\n0\n", [4, 3, 2, 1, 0]),
        ("4\n3\n2\n1\n0\n", [4, 3, 2, 1, 0]),
        ("4\n3\n2\n1\n", "4 labels for 5 samples"),
        ("0.png,1\n1.png,1\n2.png,1\n3.png,1\n", "no label for bee/4.png"),
        ("0.png,cat\n1.png,1\n2.png,x\n", "label 'x'"),
        ("a,b,c\na,b,1\n", "lines of 3 fields"),
        ("", "holds no labels"),
    ],
)
def test_labels_from_a_file(text: str, expected: list[int] | str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    (tmp_path / "images").mkdir()
    folder = classes(tmp_path / "images")
    if isinstance(expected, str):
        with pytest.raises(TdcError, match=expected):
            open_data(folder, spec(), preprocessing=UNIT, labels=path)
        return
    reader = open_data(folder, spec(), preprocessing=UNIT, labels=path)
    assert reader.labels is not None
    assert reader.labels.tolist() == expected


def test_labels_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(TdcError, match=r"labels .* cannot be read"):
        open_data(save(tmp_path, a=picture()), spec(), preprocessing=UNIT, labels=tmp_path / "no")


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    save(tmp_path, a=picture())
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with pytest.raises(TdcError, match=r"b.png cannot be read"):
        read(tmp_path, UNIT)
    (tmp_path / "b.png").unlink()
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tmp_path / "c.png")
    with pytest.raises(TdcError, match="not of 8 bits"):
        read(tmp_path, UNIT)


def test_models_that_take_no_images(tmp_path: Path) -> None:
    save(tmp_path, a=picture())
    two = InputSpec(dict.fromkeys("ab", np.dtype(np.float32)), {"a": (1, 3, 8, 8), "b": (1, 2)})
    for to in (spec(1, 4, 8, 8), spec(1, 3), two, spec(1, 3, 8, 8, dtype=np.uint8)):
        with pytest.raises(TdcError, match="the model takes"):
            read(tmp_path, UNIT, to)


def test_mistakes(tmp_path: Path) -> None:
    save(tmp_path, a=picture())
    assert preprocessing() is None
    with pytest.raises(TdcError, match="nothing says how the model wants them"):
        open_data(tmp_path, spec())
    with pytest.raises(TdcError, match="did you mean 'imagenet'"):
        preprocessing("imagnet")
    with pytest.raises(TdcError, match="--pixel-range 255"):
        preprocessing(mean=[127.5], std=[127.5])
    with pytest.raises(TdcError, match="mean or std of 2 numbers"):
        read(tmp_path, Preprocessing(mean=(0.1, 0.2)))
    for wrong in (
        {"std": (0.0,)},
        {"std": (float("nan"),)},
        {"resize": 0},
        {"crop": (0, 4)},
        {"crop_share": 1.5},
        {"pixel_range": 128},
        {"colours": "gbr"},
        {"interpolation": "nearest"},
    ):
        with pytest.raises(TdcError, match="expected"):
            Preprocessing(**wrong)
    np.savez(tmp_path / "a.npz", x=np.ones((1, 3, 8, 8), np.float32))
    with pytest.raises(TdcError, match="fed as they are"):
        open_data(tmp_path / "a.npz", spec(), preprocessing=UNIT)
