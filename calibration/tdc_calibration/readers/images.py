"""Folders of images, decoded by Pillow a few at a time."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdc_calibration.readers.preprocessing import Preprocessing
from tdc_calibration.readers.reader import Row
from tdc_calibration.readers.spec import InputSpec
from tdc_deploy.cpu import available_cpus
from tdc_deploy.errors import TdcError

SUFFIXES = {".jpeg", ".jpg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".gif", ".tif", ".tiff"}

# Pillow's modes of 8 bits a channel. Others (16-bit, float) would be clipped to white.
MODES = {
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "HSV",
    "LAB",
}

# Images decoded ahead of the one that is wanted, for each thread.
AHEAD = 2


def image_files(path: Path, classes: bool = True) -> tuple[list[Path], list[int] | None]:
    """The images of a folder in the order of their names, with class numbers if they are in subfolders.

    Classes are the subfolders in the order of their names, as in torchvision's ImageFolder. Without
    `classes` there are no numbers, and subfolders may be empty.

    Raises:
        TdcError: images both beside and in subfolders, or a class without any.
    """
    here = sorted(file for file in path.iterdir() if _is_image(file))
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and entry.name[0] != ".")
    found = [sorted(file for file in folder.rglob("*") if _is_image(file)) for folder in folders]
    if here and any(found):
        raise TdcError(
            f"{path} holds images and folders of images",
            expected="images, or one folder of them for each class",
        )
    if here or not any(found):
        return here, None
    every = [file for files in found for file in files]
    if not classes:
        return every, None
    if empty := [folder for folder, files in zip(folders, found, strict=True) if not files]:
        raise TdcError(
            f"no images in {empty[0]}",
            expected="some in the folder of every class, or class numbers would be off",
            fix="remove the folder, or give --labels",
        )
    labels = [number for number, files in enumerate(found) for _ in files]
    return every, labels


class ImageRows:
    """Images for a model with one input [N, C, H, W] or [N, H, W, C].

    Gray images become three equal channels for a model that takes three, coloured ones their luma for
    one that takes one; an alpha channel is dropped.

    Raises:
        TdcError: no Pillow, or the model does not take images of 1 or 3 channels.
    """

    repeatable = True

    def __init__(
        self,
        path: Path,
        files: Sequence[Path],
        labels: Sequence[int] | None,
        spec: InputSpec,
        preprocessing: Preprocessing,
    ) -> None:
        _check_pillow()
        self.where = str(path)
        self.count: int | None = len(files)
        self._files, self._labels = files, labels
        self._how = preprocessing
        self._name, self._dtype, self._channels, self._size, self._last = _image_input(path, spec)
        given = {len(preprocessing.mean), len(preprocessing.std)} - {1, self._channels}
        if given:
            raise TdcError(
                f"a mean or std of {given.pop()} numbers",
                expected=f"one, or one for each of the model's {self._channels} channels",
            )

    def read(self, wanted: NDArray[np.int64] | None) -> Iterator[Row]:
        """The samples of these ascending numbers, or all; decoded by threads, in order."""
        numbers = range(len(self._files)) if wanted is None else wanted.tolist()
        workers = min(4, available_cpus())
        pending: deque[tuple[int, Future[NDArray[Any]]]] = deque()
        with ThreadPoolExecutor(workers) as pool:
            try:
                for number in numbers:
                    pending.append((number, pool.submit(self.image, self._files[number])))
                    if len(pending) >= AHEAD * workers:
                        yield self._row(*pending.popleft())
                while pending:
                    yield self._row(*pending.popleft())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def image(self, file: Path) -> NDArray[Any]:
        """One image as the network takes it, without a batch dimension.

        Raises:
            TdcError: it cannot be read.
        """
        pixels = np.atleast_3d(self._pixels(file))
        if self._how.colours == "bgr":
            pixels = pixels[:, :, ::-1]
        values = pixels.astype(np.float32)
        if self._how.pixel_range != 255:
            values /= 255 / self._how.pixel_range
        mean, std = (np.array(of, np.float32) for of in (self._how.mean, self._how.std))
        values = (values - mean) / std
        return (values if self._last else values.transpose(2, 0, 1)).astype(self._dtype)

    def _row(self, number: int, image: Future[NDArray[Any]]) -> Row:
        label = None if self._labels is None else self._labels[number]
        return {self._name: image.result()}, label

    def _pixels(self, file: Path) -> NDArray[np.uint8]:
        from PIL import Image

        try:
            with Image.open(io.BytesIO(file.read_bytes())) as opened:
                if opened.mode not in MODES:
                    raise ValueError(f"its pixels are {opened.mode}, not of 8 bits")
                image = opened.convert("RGB" if self._channels == 3 else "L")
        # Pillow's decoders raise many kinds.
        except Exception as error:
            raise TdcError(
                f"{file} cannot be read: {error}",
                expected="an image of 8 bits a channel",
                fix="replace the image, or take it away",
            ) from None
        return np.asarray(self._sized(image))

    def _sized(self, image: Any) -> Any:
        from PIL import Image

        method = {
            "bilinear": Image.Resampling.BILINEAR,
            "bicubic": Image.Resampling.BICUBIC,
        }[self._how.interpolation]
        height, width = self._size
        resize = self._resize(image.size)
        if resize is not None and resize != image.size:
            image = image.resize(resize, method)
        whole = isinstance(self._how.resize, tuple)
        crop_h, crop_w = self._how.crop or (image.size[::-1] if whole else self._size)
        left, top = (
            round((have - want) / 2.0)
            for have, want in zip(image.size, (crop_w, crop_h), strict=True)
        )
        if left < 0 or top < 0:
            raise TdcError(
                f"a crop of {crop_h}x{crop_w} from an image that is {image.size[1]}x{image.size[0]}",
                expected="a crop within the image",
                fix="give --resize, or a smaller --crop",
            )
        image = image.crop((left, top, left + crop_w, top + crop_h))
        return image if image.size == (width, height) else image.resize((width, height), method)

    def _resize(self, size: tuple[int, int]) -> tuple[int, int] | None:
        """(width, height) to scale an image of `size` to, or None."""
        how = self._how
        if isinstance(how.resize, tuple):
            return how.resize[1], how.resize[0]
        shorter = min(size)
        if how.resize is not None:
            target = how.resize
        elif how.crop is not None:
            return None
        else:
            # The least size that holds the network's.
            height, width = (round(side / how.crop_share) for side in self._size)
            target = max(-(-shorter * height // size[1]), -(-shorter * width // size[0]))
        # As torchvision rounds.
        longer = int(target * max(size) / shorter)
        return (target, longer) if size[0] <= size[1] else (longer, target)


def _image_input(
    path: Path, spec: InputSpec
) -> tuple[str, np.dtype[Any], int, tuple[int, int], bool]:
    """Name, type, channels, (height, width) of the one input, and whether its channels come last."""
    if len(spec.shapes) == 1:
        ((name, shape),) = spec.shapes.items()
        dtype = spec.types[name]
        if len(shape) == 4 and dtype.kind == "f":
            if shape[1] in (1, 3):
                return name, dtype, shape[1], (shape[2], shape[3]), False
            if shape[3] in (1, 3):
                return name, dtype, shape[3], (shape[1], shape[2]), True
    listing = ", ".join(f"{name} {spec.types[name].name} {s}" for name, s in spec.shapes.items())
    raise TdcError(
        f"{path} holds images, and the model takes {listing}",
        expected="one floating-point input of 4 dimensions with 1 or 3 channels",
        fix="give an .npz file or a folder of .npy files with what the model takes",
    )


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and file.name[0] != "." and file.is_file()


def _check_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise TdcError(
            "no Pillow here, which reads images", fix="pip install 'tdc-deploy[calibration]'"
        ) from None
