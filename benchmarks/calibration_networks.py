"""The networks of the calibration benchmark, with images to calibrate on and others to test on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tdc_calibration.readers import Reader, input_spec, open_data

from tdc_deploy.samples import Samples
from tdc_deploy.source import Source, read_source

HERE = Path(__file__).parent
DEMO = HERE.parent / "train" / "demo"

# Of the generated set's 5,000 training images; of the demo's 600 images, half.
CALIBRATION = 512
BATCH = 50

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Data:
    """Images to draw calibration images from, and test images with their classes."""

    calibration: Images
    test: Images
    labels: Labels


@dataclass(frozen=True)
class Network:
    """Makes the ONNX file in a folder, and the data."""

    make: Callable[[Path], Path]
    data: Callable[[], Data]


@dataclass(frozen=True, eq=False)
class Subject:
    """A network without statistics, and the images of one draw."""

    source: Source
    reader: Reader
    calibration: Samples
    test: Samples


def checkpoint(name: str) -> Network:
    """A trained network of the generated set: calibrated on training images."""

    def make(folder: Path) -> Path:
        from tdc_train.training.assess import write_onnx

        path = folder / f"{name}.onnx"
        write_onnx(HERE / "checkpoints" / f"{name}_dense.pt", path, batch=0)
        return path

    return Network(make, shapes_data)


@lru_cache(maxsize=1)
def shapes_data() -> Data:
    import torch
    from tdc_train.data.base import ImageSet
    from tdc_train.data.registry import make_data

    def arrays(images: ImageSet) -> tuple[Images, Labels]:
        parts = [images.batch(part) for part in torch.arange(len(images)).split(250)]
        pixels, labels = zip(*parts, strict=True)
        return torch.cat(pixels).contiguous().numpy(), torch.cat(labels).numpy()

    data = make_data("shapes", None, {"train": 5000, "val": 1000, "test": 10000})
    test, labels = arrays(data.test)
    return Data(arrays(data.train)[0], test, labels)


@lru_cache(maxsize=1)
def digits_data() -> Data:
    """Of the 600 images that training did not see, every other one tests."""
    with np.load(DEMO / "heldout.npz") as held_out:
        images, labels = held_out["image"], held_out["labels"]
    return Data(images[0::2], images[1::2], labels[1::2])


def digits(_: Path) -> Path:
    return DEMO / "digits.onnx"


NETWORKS = {
    "resnet20": checkpoint("resnet20"),
    "vgg16_bn_quarter": checkpoint("vgg16_bn_quarter"),
    "digits": Network(digits, digits_data),
}


def opened(network: Network, seed: int) -> Subject:
    """A network, and the calibration images that a seed draws."""
    data = network.data()
    count = min(CALIBRATION, len(data.calibration))
    chosen = np.random.default_rng(seed).permutation(len(data.calibration))[:count]
    with tempfile.TemporaryDirectory() as folder:
        path = network.make(Path(folder))
        source = read_source(path, {"image": (BATCH, *data.test.shape[1:])})
    images = data.calibration[np.sort(chosen)]
    reader = open_data(lambda: iter(images), input_spec(source))
    calibration = Samples({"image": images}, BATCH)
    return Subject(source, reader, calibration, Samples({"image": data.test}, BATCH, data.labels))
