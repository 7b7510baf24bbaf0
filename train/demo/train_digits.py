"""Train the demo network: a small residual CNN for handwritten digits.

Run it (about five minutes on two CPU cores; needs numpy, onnx, scikit-learn and torch):

    python train/demo/train_digits.py

It writes two files next to itself (or into --out):

    digits.onnx   the network: input `image` [N,1,32,32], output `logits` [N,10], opset 17
    heldout.npz   600 images that the training never saw: `image` float32 [N,1,32,32],
                  `labels` int64 [N]

Data: the 1797 8x8 digits that come with scikit-learn, enlarged to 32x32. They are the test part
of "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak; UCI Machine Learning
Repository, 1998; CC BY 4.0).

The network is trained WITH TUCKER IN MIND. After a warm-up, each step also pulls every large 3x3
kernel towards the nearest kernel of low channel rank (a quarter of its input and of its output
channels, rounded up to a multiple of 16), which drives the kernels towards low channel rank as
ADMM training would: it is the proximal step of ADMM without the dual variable. The result is
still a plain dense CNN, and its kernels are close to low rank, not exactly so. Do not expect the
same of a network trained the usual way: decomposed to these ranks it needs retraining. Pass
`--tail-decay 0` (and another --out) to train one and see.

The seed fixes the data split and every random choice. Another version of torch, another CPU or
another number of threads rounds differently, so its weights differ a little.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits  # type: ignore[import-untyped, unused-ignore]
from sklearn.model_selection import train_test_split  # type: ignore[import-untyped, unused-ignore]
from torch import Tensor, nn

SIZE = 32
HELD_OUT = 600
CLASSES = 10
# Kernels with fewer channels than this (the stem) have too little to gain from Tucker.
MIN_CHANNELS = 32
RANK_STEP = 16


# ------------------------------------------------------------------------------------- the data


@dataclass(frozen=True)
class Digits:
    """Images in [-1, 1], shape [N,1,32,32], and labels, split once."""

    train_x: Tensor
    train_y: Tensor
    held_x: Tensor
    held_y: Tensor


def load_data(seed: int) -> Digits:
    """The enlarged, normalised digits and their stratified split."""
    raw = load_digits()
    small = torch.from_numpy(raw.images.astype(np.float32))[:, None]
    large = F.interpolate(small, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    # The originals have the 17 levels 0..16; going back to those keeps heldout.npz small.
    x = large.round() / 8.0 - 1.0
    y = torch.from_numpy(raw.target.astype(np.int64))
    train, held = train_test_split(
        np.arange(len(y)), test_size=HELD_OUT, stratify=raw.target, random_state=seed
    )
    return Digits(x[train], y[train], x[held], y[held])


def augment(x: Tensor) -> Tensor:
    """A random small rotation, scaling, shear and shift of each image, and some noise."""
    n = x.shape[0]

    def uniform(limit: float) -> Tensor:
        return (torch.rand(n) * 2.0 - 1.0) * limit

    angle, shear, scale = uniform(math.radians(12.0)), uniform(0.12), 1.0 + uniform(0.12)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    # Shifts are in half image widths: 0.19 is 3 pixels of 32.
    row_x = torch.stack([cos, shear - sin, uniform(0.19)], dim=1)
    row_y = torch.stack([sin, cos, uniform(0.19)], dim=1)
    grid = F.affine_grid(torch.stack([row_x, row_y], dim=1), list(x.shape), align_corners=False)
    # grid_sample fills with 0, and the background is -1: hence the detour.
    moved = F.grid_sample(x + 1.0, grid, align_corners=False) - 1.0
    return moved + 0.1 * torch.randn_like(moved)


# ---------------------------------------------------------------------------------- the network


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


class Residual(nn.Module):
    """Two 3x3 convolutions with BatchNorm, and the identity around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(y)))


class DigitNet(nn.Module):
    """64 channels at 32x32, then 96 at 16x16: 132 million multiply-adds per image."""

    def __init__(self, wide: int = 64, deep: int = 96) -> None:
        super().__init__()
        self.stem = conv3x3(1, wide)
        self.stem_norm = nn.BatchNorm2d(wide)
        self.block1 = Residual(wide)
        self.down = conv3x3(wide, deep, stride=2)
        self.down_norm = nn.BatchNorm2d(deep)
        self.block2 = Residual(deep)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(deep, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(x)))
        x = self.block1(x)
        x = F.relu(self.down_norm(self.down(x)))
        x = self.block2(x)
        logits: Tensor = self.head(torch.flatten(self.pool(x), 1))
        return logits


# --------------------------------------------------------------------------- low channel rank


def target_rank(channels: int) -> int:
    """A quarter of the channels, rounded up to a multiple of 16."""
    return math.ceil(channels / 4 / RANK_STEP) * RANK_STEP


def large_convs(model: nn.Module) -> dict[str, nn.Conv2d]:
    """The 3x3 convolutions, by name, that are worth a decomposition."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
        and module.kernel_size == (3, 3)
        and min(module.in_channels, module.out_channels) >= MIN_CHANNELS
    }


def leading_projector(unfolding: Tensor, rank: int) -> Tensor:
    """The projector on the `rank` leading left singular vectors."""
    _, vectors = torch.linalg.eigh(unfolding @ unfolding.T)
    basis = vectors[:, -rank:]
    projector: Tensor = basis @ basis.T
    return projector


def tucker_tail(kernel: Tensor) -> Tensor:
    """What a Tucker-2 decomposition of the target ranks (by HOSVD) leaves out of the kernel."""
    outputs, inputs = kernel.shape[:2]
    rows = leading_projector(kernel.reshape(outputs, -1), target_rank(outputs))
    columns = leading_projector(kernel.transpose(0, 1).reshape(inputs, -1), target_rank(inputs))
    kept: Tensor = torch.einsum("om,mchw,ci->oihw", rows, kernel, columns)
    return kernel - kept


@torch.no_grad()
def pull_to_low_rank(convs: dict[str, nn.Conv2d], step: float) -> None:
    """Take away the part `step` of each kernel's tail: the gradient step on half its energy."""
    for conv in convs.values():
        conv.weight.sub_(tucker_tail(conv.weight), alpha=step)


@torch.no_grad()
def tail_share(conv: nn.Conv2d) -> float:
    """||tail|| / ||kernel||, between 0 and 1."""
    return float(tucker_tail(conv.weight).norm() / conv.weight.norm())


# ---------------------------------------------------------------------------------- the training


@dataclass(frozen=True)
class Schedule:
    epochs: int
    warmup: int
    batch: int
    learning_rate: float
    weight_decay: float
    tail_decay: float

    def rate_at(self, epoch: float) -> float:
        """A short linear rise, then half a cosine down to 1 % of the peak."""
        rise = min(1.0, (epoch + 0.1) / 2.0)
        fall = 0.5 * (1.0 + math.cos(math.pi * epoch / self.epochs))
        return self.learning_rate * rise * (0.01 + 0.99 * fall)

    def tail_decay_at(self, epoch: float) -> float:
        """Nothing in the warm-up, then a linear rise that is complete at 60 % of the training."""
        end = max(0.6 * self.epochs, self.warmup + 1.0)
        ramp = (epoch - self.warmup) / (end - self.warmup)
        return self.tail_decay * min(1.0, max(0.0, ramp))


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    model.eval()
    # In parts: all images at once would need some gigabytes.
    guesses = torch.cat([model(part).argmax(1) for part in torch.split(x, 100)])
    return float((guesses == y).float().mean())


def train(model: nn.Module, data: Digits, plan: Schedule) -> None:
    convs = large_convs(model)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay
    )
    batches = math.ceil(len(data.train_y) / plan.batch)
    start = time.perf_counter()
    for epoch in range(plan.epochs):
        model.train()
        total = 0.0
        order = torch.randperm(len(data.train_y))
        for i, picked in enumerate(torch.split(order, plan.batch)):
            now = epoch + i / batches
            rate = plan.rate_at(now)
            for group in optimiser.param_groups:
                group["lr"] = rate
            logits = model(augment(data.train_x[picked]))
            loss = F.cross_entropy(logits, data.train_y[picked], label_smoothing=0.05)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            # Decoupled, as AdamW does with weight decay: Adam's scaling must not undo the pull.
            pull = min(1.0, rate * plan.tail_decay_at(now))
            if pull > 0.0:
                pull_to_low_rank(convs, pull)
            total += loss.item() * len(picked)
        tail = max(tail_share(conv) for conv in convs.values())
        print(
            f"epoch {epoch + 1:3d}/{plan.epochs}  loss {total / len(data.train_y):.4f}"
            f"  largest tail {tail:.3f}  {time.perf_counter() - start:5.0f} s",
            flush=True,
        )


# ------------------------------------------------------------------------------------ the output


def export(model: nn.Module, path: Path) -> None:
    """Write the ONNX file; the exporter folds BatchNorm into the convolutions."""
    model.eval()
    torch.onnx.export(
        model.to(memory_format=torch.contiguous_format),  # type: ignore[call-overload]
        (torch.zeros(1, 1, SIZE, SIZE),),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
    )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train the demo's digit network and write digits.onnx and heldout.npz."
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path(__file__).resolve().parent, help="folder for both files")
    add("--epochs", type=int, default=50)
    add("--warmup", type=int, default=10, help="epochs before the pull to low rank begins")
    add("--batch", type=int, default=64)
    add("--learning-rate", type=float, default=2e-3, help="peak rate of AdamW")
    add("--weight-decay", type=float, default=0.05)
    add("--tail-decay", type=float, default=100.0, help="strength of the pull; 0: none")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(mode=True)

    data = load_data(args.seed)
    model = DigitNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    print(f"{sum(p.numel() for p in model.parameters())} parameters")
    plan = Schedule(
        epochs=args.epochs,
        warmup=args.warmup,
        batch=args.batch,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        tail_decay=args.tail_decay,
    )
    train(model, data, plan)

    print(f"held-out accuracy {100 * accuracy(model, data.held_x, data.held_y):.2f} %")
    for name, conv in large_convs(model).items():
        ranks = f"{target_rank(conv.in_channels)}/{target_rank(conv.out_channels)}"
        print(f"{name:14s} ranks {ranks:6s} leave out {tail_share(conv):.4f} of the norm")

    args.out.mkdir(parents=True, exist_ok=True)
    export(model, args.out / "digits.onnx")
    np.savez_compressed(
        args.out / "heldout.npz", image=data.held_x.numpy(), labels=data.held_y.numpy()
    )
    for name in ("digits.onnx", "heldout.npz"):
        print(f"{args.out / name}: {(args.out / name).stat().st_size} bytes")


if __name__ == "__main__":
    main()
