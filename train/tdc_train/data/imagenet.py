"""Folders of images as of ImageNet: `train/<class>/<image>` and `val/<class>/<image>`."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tdc_deploy.errors import TdcError
from tdc_train.data.base import Data

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
SUFFIXES = {".jpeg", ".jpg", ".png", ".webp", ".bmp"}
# Of a random crop: its share of the image's area, and its width over height.
AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)


def imagenet(root: Path, size: int = 224, held_out: int = 10000, workers: int = 8) -> Data:
    """Images in one folder per class, the classes numbered in the order of the folders' names.

    Args:
        root: holds `train` and `val`, whose class folders have the same names.
        size: height and width that the network sees; tests see the centre of an image whose
            shorter side was scaled to size · 256/224.
        held_out: training images that serve as validation, spread evenly; `val` is for tests.
        workers: threads that read images.

    Raises:
        TdcError: no Pillow, a folder is missing or empty, or train and val differ in classes.
    """
    if size < 1 or workers < 1:
        raise TdcError(f"size {size}, workers {workers}", expected="at least 1")
    _check_pillow()
    train, classes = _listed(root / "train")
    test, test_classes = _listed(root / "val")
    if classes != test_classes:
        odd = sorted(set(classes) ^ set(test_classes))[0]
        raise TdcError(
            f"class {odd!r} is in only one of train and val",
            expected="the same class folders in both",
            fix="ImageNet's validation images come in one folder; move each to its class's",
        )
    if not 0 < held_out < len(train):
        raise TdcError(f"held_out is {held_out}", expected=f"1 to {len(train) - 1} images")
    chosen = {i * len(train) // held_out for i in range(held_out)}
    rest = [entry for i, entry in enumerate(train) if i not in chosen]
    pool = ThreadPoolExecutor(workers)
    return Data(
        train=FolderSet(rest, size, pool),
        val=FolderSet([train[i] for i in sorted(chosen)], size, pool),
        test=FolderSet(test, size, pool),
        classes=len(classes),
        shape=(3, size, size),
    )


@dataclass(frozen=True)
class FolderSet:
    """Images read when they are asked for, by several threads (decoding lets others run)."""

    files: list[tuple[Path, int]]
    size: int
    pool: ThreadPoolExecutor

    def __len__(self) -> int:
        return len(self.files)

    def batch(self, indices: Tensor, draws: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `ImageSet.batch`; draws: mirroring, the crop's area, aspect, row and column."""
        chosen = [self.files[i] for i in indices.tolist()]
        rows = [None] * len(chosen) if draws is None else draws.tolist()
        paths = [path for path, _ in chosen]
        pixels = list(self.pool.map(self._read, paths, rows))
        images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255.0
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        return (images - mean) / std, torch.tensor([label for _, label in chosen])

    def _read(self, path: Path, draws: list[float] | None) -> Any:
        """uint8 [size, size, 3]."""
        from PIL import Image

        try:
            with Image.open(io.BytesIO(path.read_bytes())) as file:
                image = file.convert("RGB")
        # Pillow's decoders raise many kinds.
        except Exception as error:
            raise TdcError(
                f"{path} cannot be read: {error}", fix="replace the image, or take it away"
            ) from None
        box = _centre(image.size) if draws is None else _crop(image.size, draws)
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR, box)
        if draws is not None and draws[0] < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(image)


def _centre(size: tuple[int, int]) -> tuple[float, float, float, float]:
    side = min(size) * 224 / 256
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    return left, top, left + side, top + side


def _crop(size: tuple[int, int], draws: list[float]) -> tuple[float, float, float, float]:
    """A part of random area and aspect ratio (C. Szegedy et al., CVPR 2015), clipped to the image."""
    width, height = size
    area = width * height * (AREA[0] + draws[1] * (AREA[1] - AREA[0]))
    aspect = ASPECT[0] * (ASPECT[1] / ASPECT[0]) ** draws[2]
    w, h = min((area * aspect) ** 0.5, width), min((area / aspect) ** 0.5, height)
    left, top = draws[3] * (width - w), draws[4] * (height - h)
    return left, top, left + w, top + h


def _listed(folder: Path) -> tuple[list[tuple[Path, int]], list[str]]:
    if not folder.is_dir():
        raise TdcError(f"no folder {folder}", expected=f"images as {folder}/<class>/<image>.JPEG")
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    files = []
    for number, name in enumerate(classes):
        found = [f for f in (folder / name).iterdir() if f.suffix.lower() in SUFFIXES]
        if not found:
            raise TdcError(f"no images in {folder / name}", expected="JPEG, PNG, WebP or BMP files")
        files += [(file, number) for file in sorted(found)]
    if not files:
        raise TdcError(
            f"no class folders in {folder}", expected=f"images as {folder}/<class>/<image>.JPEG"
        )
    return files, classes


def _check_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise TdcError("no Pillow here", fix="pip install 'tdc-deploy[train]'") from None
