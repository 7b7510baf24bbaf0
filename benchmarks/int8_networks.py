"""The networks of the INT8 benchmark, with samples to plan and calibrate with and others to test on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tdc_deploy.planner import Goal

HERE = Path(__file__).parent
DEMO = HERE.parent / "train" / "demo"

# Every other one of the generated set's training images calibrates, the rest plan.
IMAGES = 1024

# So far from the source an output may be, if that costs at most a point of accuracy.
GOAL = Goal(max_error=0.3, max_accuracy_drop=1.0)

Files = tuple[Path, Path, Path | None]
"""The model, samples to plan with, and samples to test on."""


@dataclass(frozen=True)
class Network:
    """Makes its files in a folder; `same_ranks` builds INT8 with the ranks that were planned for FP32."""

    make: Callable[[Path], Files]
    goal: Goal = GOAL
    threads: int = 1
    same_ranks: bool = False


def checkpoint(name: str) -> Callable[[Path], Files]:
    """A trained network of the generated set: planned with training images, tested on the 10,000."""

    def make(folder: Path) -> Files:
        from tdc_train.training.assess import write_onnx

        path = folder / f"{name}.onnx"
        if not path.exists():
            write_onnx(HERE / "checkpoints" / f"{name}.pt", path)
        return path, *shapes(folder)

    return make


def shapes(folder: Path) -> tuple[Path, Path]:
    """Files of the generated set."""
    import torch
    from tdc_train.data.registry import make_data

    files = folder / "shapes_train.npz", folder / "shapes_test.npz"
    if not all(file.exists() for file in files):
        data = make_data("shapes", None, {"train": 5000, "val": 1000, "test": 10000})
        for file, part, count in zip(files, (data.train, data.test), (IMAGES, 10000), strict=True):
            images, labels = part.batch(torch.arange(count))
            np.savez(file, image=images.numpy(), labels=labels.numpy())
    return files


def digits(folder: Path) -> Files:
    """The demo's network: half of the images that its training did not see plan, half test."""
    with np.load(DEMO / "heldout.npz") as held_out:
        images, labels = held_out["image"], held_out["labels"]
    files = folder / "digits_plan.npz", folder / "digits_test.npz"
    for start, file in enumerate(files):
        np.savez(file, image=images[start::2], labels=labels[start::2])
    return DEMO / "digits.onnx", *files


def resnet18(folder: Path) -> Files:
    """ResNet-18 at 224x224 with drawn weights."""
    from benchmarks.models import export, image_like
    from benchmarks.models import resnet18 as drawn

    path, samples = folder / "resnet18.onnx", folder / "resnet18.npz"
    if not path.exists():
        export(drawn(), path, (1, 3, 224, 224), "torchscript")
        np.savez(samples, image=image_like(32, 3, 224, seed=7))
    return path, samples, None


NETWORKS = {
    "digits": Network(digits),
    "resnet20": Network(checkpoint("resnet20_dense")),
    "vgg16_bn_quarter": Network(checkpoint("vgg16_bn_quarter_dense")),
    "resnet18": Network(resnet18, Goal(latency_budget=0.5, max_error=100.0), same_ranks=True),
}
