"""CIFAR-10 and CIFAR-100 from their folders of Python pickles."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tdc_deploy.errors import TdcError
from tdc_train.data.base import Data
from tdc_train.data.tensors import Augment, TensorSet

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
SIDE = 32
AUGMENT = Augment(shift=4, flip=True)
# What an array in a pickle is made of; a pickle may otherwise name any function to call.
ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it wants {module}.{name}")
        return super().find_class(module, name)


def cifar10(root: Path, val: int = 5000) -> Data:
    """CIFAR-10; `root` or a folder `cifar-10-batches-py` in it holds data_batch_1 … 5 and test_batch.

    Args:
        val: training images kept for validation, the last ones.

    Raises:
        TdcError: a file is missing or is not one of CIFAR's.
    """
    folder = _folder(root, "cifar-10-batches-py", "test_batch")
    train = [_read(folder / f"data_batch_{i}", b"labels", 10) for i in range(1, 6)]
    images, labels = (torch.cat(parts) for parts in zip(*train, strict=True))
    return _data(images, labels, _read(folder / "test_batch", b"labels", 10), val, 10)


def cifar100(root: Path, val: int = 5000) -> Data:
    """CIFAR-100 with fine classes; `root` or `cifar-100-python` in it holds `train` and `test`."""
    folder = _folder(root, "cifar-100-python", "test")
    images, labels = _read(folder / "train", b"fine_labels", 100)
    return _data(images, labels, _read(folder / "test", b"fine_labels", 100), val, 100)


def _folder(root: Path, usual: str, file: str) -> Path:
    for folder in (root / usual, root):
        if (folder / file).is_file():
            return folder
    raise TdcError(
        f"no CIFAR in {root}",
        expected=f"a folder {usual} with a file {file}",
        fix="unpack the archive 'python version' of https://www.cs.toronto.edu/~kriz/cifar.html "
        f"there: {root / usual / file}",
    )


def _read(path: Path, key: bytes, classes: int) -> tuple[Tensor, Tensor]:
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="bytes").load()
        pixels = np.asarray(content[b"data"])
        labels = np.asarray(content[key], dtype=np.int64)
    except FileNotFoundError:
        raise TdcError(f"{path} is missing", fix="unpack CIFAR's archive again") from None
    # A damaged pickle may raise nearly anything.
    except Exception as error:
        raise TdcError(
            f"{path} is damaged or not a file of CIFAR: {error}",
            expected="a pickle of arrays and lists",
            fix="unpack CIFAR's archive again",
        ) from None
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3 * SIDE * SIDE):
        raise TdcError(
            f"{path} holds {pixels.dtype} {pixels.shape} for {len(labels)} labels",
            expected=f"uint8 [labels, {3 * SIDE * SIDE}]",
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise TdcError(f"{path} has class {labels.max()}", expected=f"0 to {classes - 1}")
    images = torch.from_numpy(pixels.reshape(-1, 3, SIDE, SIDE).copy())
    return images, torch.from_numpy(labels)


def _data(
    images: Tensor, labels: Tensor, test: tuple[Tensor, Tensor], val: int, classes: int
) -> Data:
    if not 0 < val < len(labels):
        raise TdcError(f"val is {val}", expected=f"1 to {len(labels) - 1} training images")
    cut = len(labels) - val
    return Data(
        train=TensorSet(images[:cut], labels[:cut], MEAN, STD, AUGMENT),
        val=TensorSet(images[cut:], labels[cut:], MEAN, STD),
        test=TensorSet(*test, MEAN, STD),
        classes=classes,
        shape=(3, SIDE, SIDE),
    )
