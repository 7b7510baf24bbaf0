"""The 1,797 handwritten digits of scikit-learn, as 3x32x32 images."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from tdc_deploy.errors import TdcError
from tdc_train.data.base import Data
from tdc_train.data.tensors import Augment, TensorSet

SIDE = 32
MEAN, STD = (0.5,) * 3, (0.5,) * 3


def digits(seed: int = 0, val: int = 300, test: int = 600) -> Data:
    """8x8 grey digits, enlarged to 32x32 and repeated on three channels, split at random.

    Raises:
        TdcError: scikit-learn is not installed, or nothing is left to train on.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise TdcError("no scikit-learn here", fix="pip install 'tdc-deploy[train]'") from None
    raw = load_digits()
    small = torch.from_numpy(raw.images.astype(np.float32))[:, None] * (255 / 16)
    large = F.interpolate(small, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    images = large.round().byte().repeat(1, 3, 1, 1)
    labels = torch.from_numpy(raw.target.astype(np.int64))
    if min(val, test) < 1 or val + test >= len(labels):
        raise TdcError(
            f"val {val} and test {test} of {len(labels)} digits", expected="some left to train on"
        )
    order = torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).permutation(len(labels)))
    held, chosen, rest = order[:test], order[test : test + val], order[test + val :]
    return Data(
        train=TensorSet(images[rest], labels[rest], MEAN, STD, Augment(shift=3)),
        val=TensorSet(images[chosen], labels[chosen], MEAN, STD),
        test=TensorSet(images[held], labels[held], MEAN, STD),
        classes=10,
        shape=(3, SIDE, SIDE),
    )
