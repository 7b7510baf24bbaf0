"""The networks of the training benchmark, and the recipes that compress them, at equal epochs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Stage = dict[str, Any]

BASE = "dense"
BATCH = 64


@dataclass(frozen=True)
class Network:
    """A network, how long it is trained, and how long each arm goes on from there.

    Its plan is made for the first of the `budgets` (shares of the dense network's measured time) that
    leaves at most `max_macs` of the dense multiply-adds.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    epochs: int = 25
    more: int = 12
    budgets: tuple[float, ...] = (0.72,)
    max_macs: float = 1.0


NETWORKS = {
    "resnet20": Network("resnet20"),
    "vgg16_bn_quarter": Network(
        "vgg16_bn",
        {"width": 0.25, "small_images": True, "num_classes": 10},
        epochs=30,
        more=6,
        budgets=(0.7, 0.6, 0.5, 0.45, 0.4, 0.35),
        max_macs=0.4,
    ),
}

DATA = {"name": "shapes", "options": {"train": 5000, "val": 1000, "test": 10000}}

# What each arm is for a reader; the order of the table.
ARMS = {
    "dense": "dense, trained on",
    "direct": "decomposed, nothing else",
    "finetune": "decomposed, fine-tuned",
    "distill": "decomposed, fine-tuned with soft distillation",
    "data-aware": "data-aware decomposition, fine-tuned",
    "admm": "ADMM, decomposed, fine-tuned",
    "slices": "decomposed, slices distilled, fine-tuned",
}


def base_recipe(network: Network, seed: int) -> dict[str, Any]:
    """The dense network that every arm starts from."""
    rate = {"name": "cosine", "warmup": 3}
    return _recipe(network, seed, [_training("dense", network.epochs, 0.1, BASE, rate)], None)


def arm_recipe(
    network: Network, arm: str, seed: int, weights: str, layers: dict[str, Any]
) -> dict[str, Any]:
    """One arm: `weights` is the trained dense network's checkpoint, `layers` the plan's."""
    stages = _stages(arm, network.more, weights)
    for stage in stages:
        if stage["kind"] in ("admm", "decompose"):
            stage["ranks"] = {"layers": layers}
            break
    return _recipe(network, seed, stages, weights)


def _stages(arm: str, epochs: int, weights: str) -> list[Stage]:
    half = epochs // 2
    decompose: Stage = {"kind": "decompose"}
    if arm == "dense":
        return [_training("dense", epochs, 0.02)]
    if arm == "direct":
        return [{**decompose, "init": {"re_estimate": False}}]
    if arm == "finetune":
        return [decompose, _training("finetune", epochs, 0.02)]
    if arm == "distill":
        distill = {"name": "soft", "teacher": weights}
        return [decompose, {**_training("finetune", epochs, 0.02), "distill": distill}]
    if arm == "data-aware":
        init = {"name": "data-aware", "images": 2048}
        return [{**decompose, "init": init}, _training("finetune", epochs, 0.02)]
    if arm == "admm":
        training = _training("admm", half, 0.02)
        return [training, decompose, _training("finetune", epochs - half, 0.02)]
    if arm == "slices":
        distill = {"name": "feature", "teacher": weights}
        slices = {"kind": "slices", "epochs": half, "batch": BATCH, "distill": distill}
        slices["init"] = {"images": 5000}
        slices["optimizer"] = {"name": "adamw", "lr": 1e-3, "weight_decay": 0.0}
        return [decompose, slices, _training("finetune", epochs - half, 0.02)]
    raise ValueError(arm)


def _training(
    kind: str, epochs: int, lr: float, name: str = "", schedule: dict[str, Any] | None = None
) -> Stage:
    return {
        "kind": kind,
        "name": name,
        "epochs": epochs,
        "batch": BATCH,
        "optimizer": {"name": "sgd", "lr": lr, "nesterov": True, "weight_decay": 5e-4},
        "schedule": schedule or {"name": "cosine"},
    }


def _recipe(
    network: Network, seed: int, stages: list[Stage], weights: str | None
) -> dict[str, Any]:
    model = {"name": network.name, "options": network.options, "weights": weights}
    return {"seed": seed, "model": model, "data": DATA, "stages": stages}
