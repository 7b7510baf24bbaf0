"""Losses by which a compressed network learns from the one it was made of.

Each is a `training.protocols.Loss`: (1 − weight) · cross-entropy + weight · the teacher's term.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tdc_deploy.errors import TdcError
from tdc_train.features import captured, module_at
from tdc_train.layers.factorised import FactorisedLayer

# Of a feature map's mean square: keeps a teacher's dead feature map from dividing by zero.
LEAST_ENERGY = 1e-6


class Distillation:
    """What the three have in common: a frozen teacher in eval mode, without gradients."""

    def __init__(self, teacher: nn.Module, weight: float, label_smoothing: float) -> None:
        if not 0 <= weight <= 1:
            raise TdcError(f"a distillation weight of {weight}", expected="from 0 to 1")
        self.teacher = teacher.eval().requires_grad_(False)
        self.weight = weight
        self.label_smoothing = label_smoothing

    def _labels_term(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)

    def _mixed(self, labels_term: Tensor, teachers_term: Tensor) -> Tensor:
        return (1 - self.weight) * labels_term + self.weight * teachers_term

    @torch.no_grad()
    def _taught(self, model: nn.Module, images: Tensor) -> Tensor:
        if student_of(model) is self.teacher:
            raise TdcError(
                "the network is its own teacher, which is frozen",
                expected="a copy of it (copy.deepcopy) as teacher",
            )
        taught: Tensor = self.teacher(images)
        return taught


class HardDistillation(Distillation):
    """The teacher's class is a second label.

    Source: Touvron et al., "Training data-efficient image transformers" (ICML 2021), equation 3.
    """

    def __init__(
        self, teacher: nn.Module, *, weight: float = 0.5, label_smoothing: float = 0.0
    ) -> None:
        super().__init__(teacher, weight, label_smoothing)

    def __call__(self, model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss over the batch, and the logits [N, classes]."""
        classes = self._taught(model, images).argmax(1)
        logits = model(images)
        return self._mixed(
            self._labels_term(logits, targets), self._labels_term(logits, classes)
        ), logits


class SoftDistillation(Distillation):
    """KL divergence from the teacher's probabilities at a temperature, times its square.

    Source: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network" (2015).
    """

    def __init__(
        self,
        teacher: nn.Module,
        *,
        weight: float = 0.5,
        temperature: float = 4.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(teacher, weight, label_smoothing)
        if not temperature > 0:
            raise TdcError(f"a temperature of {temperature}", expected="above 0")
        self.temperature = temperature

    def __call__(self, model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss over the batch, and the logits [N, classes]."""
        taught = F.log_softmax(self._taught(model, images).float() / self.temperature, 1)
        logits = model(images)
        learned = F.log_softmax(logits.float() / self.temperature, 1)
        divergence = F.kl_div(learned, taught, reduction="batchmean", log_target=True)
        return self._mixed(
            self._labels_term(logits, targets), self.temperature**2 * divergence
        ), logits


class FeatureDistillation(Distillation):
    """Mean squared distance of feature maps, each as a share of the teacher's mean square.

    Source: Romero et al., "FitNets" (ICLR 2015), without its regressor: a decomposed network's
    feature maps have the teacher's shapes.

    Args:
        layers: module paths in both networks; by default the student's decomposed layers.
    """

    def __init__(
        self,
        model: nn.Module,
        teacher: nn.Module,
        layers: Sequence[str] | None = None,
        *,
        weight: float = 0.5,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(teacher, weight, label_smoothing)
        self.layers = decomposed_layers(model) if layers is None else list(layers)
        if not self.layers:
            raise TdcError(
                "feature distillation without layers",
                expected="a network with decomposed layers, or layers by name",
            )
        for path in self.layers:
            module_at(model, path)
            module_at(teacher, path)

    def __call__(self, model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss over the batch, and the logits [N, classes]."""
        with captured(self.teacher, self.layers) as taught:
            self._taught(model, images)
        with captured(student_of(model), self.layers) as learned:
            logits = model(images)
        terms = [feature_distance(learned[path], taught[path]) for path in self.layers]
        return self._mixed(self._labels_term(logits, targets), torch.stack(terms).mean()), logits


def student_of(model: nn.Module) -> nn.Module:
    """The network inside DistributedDataParallel, or itself."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def feature_distance(learned: Tensor, taught: Tensor) -> Tensor:
    """Mean (learned − taught)² / mean taught², a scalar.

    Raises:
        TdcError: the two have different shapes.
    """
    if learned.shape != taught.shape:
        raise TdcError(
            f"feature maps of shape {tuple(learned.shape)} and {tuple(taught.shape)}",
            expected="layers of student and teacher with one output shape",
        )
    energy = taught.float().square().mean()
    return F.mse_loss(learned.float(), taught.float()) / (energy + LEAST_ENERGY)


def decomposed_layers(model: nn.Module) -> list[str]:
    """The paths of the layers that are chains."""
    return [path for path, m in model.named_modules() if isinstance(m, FactorisedLayer)]
