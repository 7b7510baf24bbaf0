"""The networks by name, and the files that a measurement of one needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tdc_train.layer_names import module_paths
from tdc_train.models.densenet import densenet121, densenet201
from tdc_train.models.resnet import resnet18, resnet50
from tdc_train.models.vgg import vgg16_bn
from torch import nn

from benchmarks.models import export, image_like, settled
from benchmarks.networks.inception import Inception
from benchmarks.networks.mobilenet import MobileNetV2
from benchmarks.networks.unet import UNet
from benchmarks.networks.yolo import Yolo
from tdc_deploy.files import write_whole
from tdc_deploy.source import read_source

# Half of them repair, half verify; a multiple of the largest batch.
SAMPLES = 32
SAMPLES_SEED = 7


@dataclass(frozen=True)
class Network:
    """How a network is made, for images of side `size`, and what its outputs are called.

    `table` is its name among TDC's rank tables, if it has one.
    """

    make: Callable[[], nn.Module]
    size: int = 224
    outputs: tuple[str, ...] = ("logits",)
    table: str | None = None


NETWORKS = {
    "resnet18": Network(resnet18, table="resnet18"),
    "resnet50": Network(resnet50, table="resnet50"),
    "vgg16_bn": Network(vgg16_bn, table="vgg16_bn"),
    "densenet121": Network(densenet121, table="densenet121"),
    "densenet201": Network(densenet201, table="densenet201"),
    "mobilenet_v2": Network(MobileNetV2),
    "unet": Network(UNet, 256, ("scores",)),
    "inception": Network(Inception),
    "yolo": Network(Yolo, 256, ("at8", "at16", "at32")),
}


@dataclass(frozen=True)
class Files:
    """A network at one batch size: the ONNX file, its inputs, and each layer's module path."""

    model: Path
    inputs: Path
    paths: Path

    def module_paths(self) -> dict[str, str]:
        """Layer name → module path."""
        return dict(json.loads(self.paths.read_text()))


def prepare(folder: Path, name: str, batch: int) -> Files:
    """Write a network's files to `folder`, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name}_b{batch}"
    files = Files(*(folder / f"{stem}{end}" for end in (".onnx", ".npz", ".paths.json")))
    if files.paths.exists():  # the last that is written
        return files
    network = NETWORKS[name]
    torch.manual_seed(0)
    model = settled(network.make(), network.size)
    shape = (batch, 3, network.size, network.size)
    export(model, files.model, shape, "torchscript", network.outputs)
    np.savez(files.inputs, image=image_like(SAMPLES, 3, network.size, SAMPLES_SEED))
    paths = module_paths(read_source(files.model).plannable, model, files.model)
    write_whole({files.paths: json.dumps(paths, indent=1).encode()})
    return files
