"""Data sets by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from tdc_deploy.errors import TdcError
from tdc_train.data.base import Data
from tdc_train.data.cifar import cifar10, cifar100
from tdc_train.data.digits import digits
from tdc_train.data.imagenet import imagenet
from tdc_train.data.shapes import CLASSES, SIDE, generate
from tdc_train.data.tensors import Augment, TensorSet

ON_DISK: dict[str, Callable[..., Data]] = {
    "cifar10": cifar10,
    "cifar100": cifar100,
    "imagenet": imagenet,
}


def shapes(seed: int = 0, train: int = 5000, val: int = 1000, test: int = 10000) -> Data:
    """The generated set of `tdc_train.data.shapes`."""
    if min(train, val, test) < 1:
        raise TdcError(f"shapes: {train}, {val}, {test} images", expected="at least 1 in each part")
    parts: list[TensorSet] = []
    for split, count in enumerate((train, val, test)):
        images, labels = (torch.from_numpy(array) for array in generate(count, seed, split))
        augment = Augment(shift=3, flip=True) if split == 0 else None
        parts.append(TensorSet(images, labels, (0.5,) * 3, (0.25,) * 3, augment))
    return Data(parts[0], parts[1], parts[2], CLASSES, (3, SIDE, SIDE))


MADE: dict[str, Callable[..., Data]] = {"shapes": shapes, "digits": digits}


def make_data(name: str, root: str | None = None, options: Mapping[str, Any] | None = None) -> Data:
    """A data set by name: shapes, digits, or cifar10, cifar100, imagenet from the folder `root`.

    Raises:
        TdcError: an unknown name or option, a folder that lacks files, or damaged ones.
    """
    maker = (MADE | ON_DISK).get(name)
    if maker is None:
        raise TdcError(f"data {name!r}", expected=f"one of {', '.join(MADE | ON_DISK)}")
    options = dict(options or {})
    known = set(inspect.signature(maker).parameters) - {"root"}
    if unknown := set(options) - known:
        raise TdcError(
            f"data {name!r} with option {min(unknown)!r}",
            expected=f"{', '.join(sorted(known))}" if known else "no options",
        )
    if name in MADE:
        return maker(**options)
    if not root:
        raise TdcError(
            f"data {name!r} without a folder", fix="give root in the recipe's [data], or --data"
        )
    if not Path(root).is_dir():
        raise TdcError(f"{root} is no folder", expected=f"one that holds {name}")
    return maker(Path(root), **options)
