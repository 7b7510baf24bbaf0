"""Weights that decay as trained ones do, inputs that tell them apart, and export, for `networks/`.

Trained convolution kernels concentrate their energy in a few channel directions; Gaussian weights do
not, and no low-rank method can compress them. `decaying_` draws kernels whose two channel modes follow
a power law, and `settle_batch_norm` gives BatchNorm the statistics of the data that will be fed, so that
activations keep a sane scale through the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tdc_train.models.resnet import resnet18 as make_resnet18
from torch import nn

Exporter = Literal["torchscript", "dynamo"]


def image_like(count: int, channels: int, size: int, seed: int) -> NDArray[np.float32]:
    """Random images with structure at several scales; float32 [count, channels, size, size].

    White noise averages out in a CNN and every such input gives the same output; sums of smooth random
    fields with their own brightness and contrast do not.
    """
    rng = np.random.default_rng(seed)
    out = np.zeros((count, channels, size, size), np.float32)
    for cells in (2, 4, 8, 16, 32):
        field = torch.from_numpy(rng.standard_normal((count, channels, cells, cells), np.float32))
        out += nn.functional.interpolate(field, (size, size), mode="bilinear").numpy()
    contrast = rng.uniform(0.4, 1.6, (count, channels, 1, 1)).astype(np.float32)
    brightness = rng.normal(0, 0.5, (count, channels, 1, 1)).astype(np.float32)
    return np.asarray(out * contrast + brightness, np.float32)


@torch.no_grad()
def decaying_(model: nn.Module, decay: float, seed: int) -> None:
    """Redraw every convolution so that its channel modes' singular values fall as rank**-decay."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if not isinstance(module, nn.Conv2d) or module.groups > 1:  # these are never decomposed
            continue
        m, c = module.weight.shape[:2]
        weight = torch.randn(module.weight.shape, generator=generator)
        weight *= (torch.arange(1, m + 1) ** -decay)[:, None, None, None]
        weight *= (torch.arange(1, c + 1) ** -decay)[None, :, None, None]
        left = torch.linalg.qr(torch.randn(m, m, generator=generator))[0]
        right = torch.linalg.qr(torch.randn(c, c, generator=generator))[0]
        weight = torch.einsum("ma,abrs,cb->mcrs", left, weight, right)
        fan_in = weight[0].numel()
        module.weight.copy_(weight * (2 / fan_in) ** 0.5 / weight.std())


@torch.no_grad()
def settle_batch_norm(model: nn.Module, images: NDArray[np.float32]) -> None:
    """Set BatchNorm's running statistics to those of `images`, and leave the model in eval mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # cumulative average
            module.reset_running_stats()
    model.train()
    for start in range(0, len(images), 8):
        model(torch.from_numpy(images[start : start + 8]))
    model.eval()


def resnet18(size: int = 224, decay: float = 1.0, seed: int = 0, width: int = 64) -> nn.Module:
    """A ResNet-18 with decaying kernels, ready to export; `width` channels in its first stage."""
    torch.manual_seed(seed)
    return settled(make_resnet18(width=width), size, decay, seed)


def settled(model: nn.Module, size: int, decay: float = 1.0, seed: int = 0) -> nn.Module:
    """The model with decaying kernels and BatchNorm of images of that size, in eval mode."""
    decaying_(model, decay, seed)
    settle_batch_norm(model, image_like(16, 3, size, seed))
    return model


def export(
    model: nn.Module,
    path: Path,
    shape: tuple[int, ...],
    exporter: Exporter,
    outputs: Sequence[str] = ("logits",),
) -> None:
    """Write `model` as ONNX with one of torch's two exporters; `shape` is that of its one input."""
    example = torch.zeros(shape)
    names: dict[str, Any] = {"input_names": ["image"], "output_names": list(outputs)}
    if exporter == "dynamo":
        torch.onnx.export(model, (example,), path, dynamo=True, **names)
    else:
        torch.onnx.export(model, (example,), str(path), dynamo=False, opset_version=17, **names)
