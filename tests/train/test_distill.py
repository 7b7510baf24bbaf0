from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from tdc_train.conversion import apply_plan
from tdc_train.distill import (
    FeatureDistillation,
    HardDistillation,
    SoftDistillation,
    decomposed_layers,
    feature_distance,
)
from torch import Tensor, nn

from tdc_deploy.errors import TdcError
from tdc_deploy.plan_file import LayerChoice, Plan
from tdc_deploy.types import Candidate, Ranks


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(5)
    return torch.randn(6, 3, 8, 8), torch.tensor([0, 1, 2, 3, 0, 1])


@pytest.mark.parametrize("mixed", [False, True])
def test_hard(mixed: bool) -> None:
    student, teacher = network(0), network(1)
    images, labels = batch()
    targets = F.one_hot(labels, 4) * 0.7 + 0.3 / 4 if mixed else labels
    loss, logits = HardDistillation(teacher, weight=0.25, label_smoothing=0.1)(
        student.eval(), images, targets
    )
    with torch.no_grad():
        classes = teacher(images).argmax(1)
        expected = 0.75 * F.cross_entropy(student(images), targets, label_smoothing=0.1)
        expected += 0.25 * F.cross_entropy(student(images), classes, label_smoothing=0.1)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(logits, student(images))


def test_soft() -> None:
    student, teacher = network(0), network(1)
    images, labels = batch()
    loss, _ = SoftDistillation(teacher, weight=0.4, temperature=3.0)(student.eval(), images, labels)
    with torch.no_grad():
        p = F.softmax(teacher(images).double() / 3, 1)
        q = F.softmax(student(images).double() / 3, 1)
        divergence = (p * (p / q).log()).sum(1).mean()
        expected = 0.6 * F.cross_entropy(student(images).double(), labels) + 0.4 * 9 * divergence
    # The loss is float32.
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)


def test_a_teacher_of_itself_teaches_nothing_new() -> None:
    student = network().eval()
    images, labels = batch()
    teacher = copy.deepcopy(student)
    loss, _ = SoftDistillation(teacher, weight=1.0)(student, images, labels)
    assert abs(loss.item()) < 1e-6
    loss, _ = FeatureDistillation(student, teacher, ["0", "3"], weight=1.0)(student, images, labels)
    assert loss.item() == 0


def test_features_of_the_named_layers() -> None:
    student, teacher = network(0).eval(), network(1)
    images, labels = batch()
    loss, _ = FeatureDistillation(student, teacher, ["0", "3"], weight=1.0)(student, images, labels)
    with torch.no_grad():
        terms = []
        for end in (1, 4):
            a, b = student[:end](images), teacher.eval()[:end](images)
            terms.append((a - b).square().sum() / b.square().sum())
    torch.testing.assert_close(loss.detach(), sum(terms) / 2, rtol=1e-4, atol=0)


def test_features_of_the_decomposed_layers_by_default() -> None:
    teacher = network()
    plan = Plan({"3": LayerChoice(Candidate("tucker2", Ranks(4, 4)))})
    student = apply_plan(copy.deepcopy(teacher), plan)
    assert decomposed_layers(student) == ["3"]
    assert FeatureDistillation(student, teacher).layers == ["3"]
    with pytest.raises(TdcError, match="without layers"):
        FeatureDistillation(teacher, teacher)
    with pytest.raises(TdcError, match="no module"):
        FeatureDistillation(student, teacher, ["9"])


@pytest.mark.parametrize("kind", ["hard", "soft", "feature"])
def test_the_teacher_stays_as_it_is_and_the_student_learns(kind: str) -> None:
    student, teacher = network(0), network(1).train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    losses: dict[str, Any] = {
        "hard": HardDistillation(teacher),
        "soft": SoftDistillation(teacher),
        "feature": FeatureDistillation(student, teacher, ["3"]),
    }
    loss = losses[kind]
    value, _ = loss(student.train(), *batch())
    value.backward()
    assert not teacher.training
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(v, before[name]) for name, v in teacher.state_dict().items())
    assert all(p.grad is not None and bool(p.grad.any()) for p in student[0].parameters())
    assert not student[3]._forward_hooks
    assert not teacher[3]._forward_hooks


@pytest.mark.parametrize("kind", [HardDistillation, SoftDistillation])
def test_a_network_is_not_its_own_teacher(kind: Any) -> None:
    model = network()
    with pytest.raises(TdcError, match="its own teacher"):
        kind(model)(model, *batch())


def test_mistakes() -> None:
    with pytest.raises(TdcError, match="weight"):
        HardDistillation(network(), weight=1.5)
    with pytest.raises(TdcError, match="temperature"):
        SoftDistillation(network(), temperature=0)
    with pytest.raises(TdcError, match="shape"):
        feature_distance(torch.zeros(1, 2), torch.zeros(1, 3))
