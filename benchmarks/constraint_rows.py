"""The rows of the benchmark of constraint sets: what each method promises, and the stages that try it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Stage = dict[str, Any]
Table = dict[str, Any]

DENSE = "dense"
BATCH = 64


@dataclass(frozen=True)
class Network:
    """A network of `benchmarks/checkpoints`, and its epochs of ADMM and of fine-tuning."""

    name: str
    checkpoint: str
    options: dict[str, Any]
    epochs: tuple[int, int]


NETWORKS = {
    "resnet20": Network("resnet20", "resnet20_dense.pt", {}, (6, 6)),
    "vgg16_bn_quarter": Network(
        "vgg16_bn",
        "vgg16_bn_quarter_dense.pt",
        {"width": 0.25, "small_images": True, "num_classes": 10},
        (6, 6),
    ),
}


@dataclass(frozen=True)
class Row:
    """A method: its paper's headline, and the sets that one network is brought to, one after the other.

    Fine-tuning takes `finetune` of a network's epochs: a projection at each step can take longer than
    the step, and a row should take at most ten minutes.
    """

    paper: str
    sets: tuple[Table, ...]
    finetune: float = 1.0


ROWS = {
    "dense": Row("", ()),
    "top_k": Row(
        "ADMM-NN (ASPLOS 2019): pruning alone 24x fewer weights on AlexNet, no loss",
        ({"name": "top_k", "density": 1 / 24, "scope": "network"},),
    ),
    "2:4": Row(
        "A. Mishra et al. (2021): half of the weights and multiply-adds, no loss",
        ({"name": "n_m", "n": 2, "m": 4},),
    ),
    "patterns": Row(
        "ClickTrain (ICS 2021): 4 of 9 places and fewer kernels, accuracy as of pruning after training",
        ({"name": "patterns", "patterns": 8, "kernels": 0.5},),
    ),
    "periodic": Row(
        "periodic sparse kernels: 5.6x fewer multiply-adds, ResNet-18 on CIFAR-10",
        ({"name": "periodic", "period": 4, "density": 1 / 5.6},),
    ),
    "penni": Row(
        "PENNI (ICML 2020): 97% fewer parameters, 92% fewer multiply-adds, no loss, ResNet-18 on CIFAR-10",
        ({"name": "sparse_basis", "basis": 5, "density": 0.05, "scope": "network"},),
    ),
    "escalate": Row(
        "ESCALATE (MICRO 2021): up to 325x smaller on CIFAR-10, 11x on ImageNet",
        ({"name": "ternary_basis", "basis": 6},),
        0.5,
    ),
    "levels": Row(
        "ADMM-NN (ASPLOS 2019) quantises after pruning; alone 3 bits of 32 are 10.7x smaller",
        ({"name": "levels", "bits": 3},),
        0.5,
    ),
    "powers_of_two": Row(
        "C. Leng et al. (AAAI 2018): powers of two by ADMM; 3 bits of 32 are 10.7x smaller",
        ({"name": "powers_of_two", "bits": 3, "scope": "channel"},),
        0.5,
    ),
    "ternary": Row(
        "F. Li et al. (2016): up to 16x smaller, a slight loss; by ADMM C. Leng et al. (AAAI 2018)",
        ({"name": "ternary"},),
    ),
    "ternary_sum": Row("two ternary terms: up to 8x smaller", ({"name": "ternary_sum"},), 0.34),
    "prune_quantise": Row(
        "ADMM-NN (ASPLOS 2019): pruning and quantising, 1910x smaller on LeNet-5, 231x on AlexNet",
        (
            {"name": "top_k", "density": 1 / 24, "scope": "network"},
            {"name": "levels", "bits": 4, "scope": "layer", "keep_zeros": True},
        ),
        0.5,
    ),
}


def recipe_of(
    network: Network, row: Row, seed: int, weights: str, data: dict[str, Any], epochs: int | None
) -> dict[str, Any]:
    """A row's recipe as plain values.

    Args:
        weights: the trained dense network's checkpoint.
        data: the recipe's section.
        epochs: of each training stage, instead of the network's.
    """
    admm, tuning = network.epochs if epochs is None else (epochs, epochs)
    if not row.sets:
        stages = [_training("dense", DENSE, admm + tuning, 0.02)]
    else:
        stages = []
        part = len(row.sets)
        tuned = max(1, round(tuning * row.finetune / part))
        for i, table in enumerate(row.sets):
            end = f"-{i}" if i + 1 < part else ""
            drawn = _training("admm", f"admm{end}", max(1, admm // part), 0.02)
            stages += [
                {**drawn, "set": table},
                {"kind": "project", "name": f"project{end}"},
                _training("finetune", f"finetune{end}", tuned, 0.02),
            ]
    model = {"name": network.name, "options": network.options, "weights": weights}
    return {"seed": seed, "model": model, "data": data, "stages": stages}


def _training(kind: str, name: str, epochs: int, lr: float) -> Stage:
    return {
        "kind": kind,
        "name": name,
        "epochs": epochs,
        "batch": BATCH,
        "optimizer": {"name": "sgd", "lr": lr, "nesterov": True, "weight_decay": 5e-4},
        "schedule": {"name": "cosine"},
    }
