from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tdc_train import slices
from tdc_train.conversion import apply_plan
from tdc_train.features import captured
from tdc_train.slices import Fitting, distill_slices, slices_of
from torch import Tensor, nn

from tdc_deploy.errors import TdcError
from tdc_deploy.plan_file import LayerChoice, Plan
from tdc_deploy.types import Candidate, Ranks


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.conv2(torch.relu(self.bn1(self.conv1(x)))))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layer1 = nn.Sequential(Block(), Block())
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.layer1(torch.relu(self.stem(x))).mean((2, 3)))
        return out


def pair() -> tuple[Any, Any, list[Tensor]]:
    """A student with three decomposed layers in two blocks, its teacher, and images."""
    torch.manual_seed(0)
    teacher = Net().eval()
    paths = ["layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv2"]
    plan = Plan({path: LayerChoice(Candidate("tucker2", Ranks(4, 4))) for path in paths})
    return (
        apply_plan(copy.deepcopy(teacher), plan),
        teacher,
        [torch.randn(8, 3, 8, 8) for _ in "ab"],
    )


def block_error(student: Any, teacher: Any, path: str, images: list[Tensor]) -> float:
    """From the definition: the slice on the teacher's input of it."""
    x = torch.cat(images)
    parent = path.rpartition(".")[0]
    index = int(path.rpartition(".")[2])
    with torch.no_grad():
        inputs = torch.relu(teacher.stem(x))
        inputs = teacher.get_submodule(parent)[:index](inputs)
        wanted = teacher.get_submodule(path)(inputs)
        lost = student.get_submodule(path).eval()(inputs) - wanted
    return float(lost.square().sum() / wanted.square().sum())


def test_each_slice_comes_nearer_and_nothing_else_moves() -> None:
    student, teacher, images = pair()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    taught = {name: value.clone() for name, value in teacher.state_dict().items()}
    start = {path: block_error(student, teacher, path, images) for path in ("layer1.0", "layer1.1")}
    results = distill_slices(student, teacher, images, fitting=Fitting(20, 5e-3))
    assert [result.path for result in results] == ["layer1.0", "layer1.1"]
    for result in results:
        assert result.before == pytest.approx(start[result.path], rel=1e-4)
        assert result.after == pytest.approx(
            block_error(student, teacher, result.path, images), rel=1e-4
        )
        assert result.after < 0.8 * result.before
    outside = [name for name in before if not name.startswith("layer1")]
    assert outside
    assert all(torch.equal(student.state_dict()[name], before[name]) for name in outside)
    running = [name for name in before if "running" in name or "num_batches" in name]
    assert all(torch.equal(student.state_dict()[name], before[name]) for name in running)
    assert all(torch.equal(v, taught[name]) for name, v in teacher.state_dict().items())
    assert all(p.grad is None for p in student.parameters())


def test_a_slice_that_gets_worse_is_put_back() -> None:
    student, teacher, images = pair()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    (result,) = distill_slices(
        student, teacher, images, slices=["layer1.0"], fitting=Fitting(1, 1e3)
    )
    assert result.after == result.before
    assert all(torch.equal(v, before[name]) for name, v in student.state_dict().items())


def test_what_is_kept_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for kept in (slices.KEPT_BYTES, 0):
        monkeypatch.setattr(slices, "KEPT_BYTES", kept)
        student, teacher, images = pair()
        results = distill_slices(student, teacher, images, fitting=Fitting(3, 5e-3))
        found.append((results, student.state_dict()))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(v, found[1][1][name]) for name, v in found[0][1].items())


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "KEPT_BYTES", 0)
    student, teacher, _ = pair()
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    class Images:
        def __iter__(self) -> Iterator[Tensor]:
            nonlocal most
            for _ in range(6):
                images = torch.randn(2, 3, 8, 8)
                alive.append(weakref.ref(images))
                most = max(most, sum(ref() is not None for ref in alive))
                yield images

    most_inputs = 0
    inputs: list[weakref.ref[Tensor]] = []

    def watch(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        nonlocal most_inputs
        inputs.append(weakref.ref(given[0]))
        most_inputs = max(most_inputs, sum(ref() is not None for ref in inputs))

    student.layer1[1].register_forward_pre_hook(watch)
    distill_slices(student, teacher, Images(), slices=["layer1.1"], fitting=Fitting(1))
    # The one in hand, and the one before until it is replaced.
    assert most <= 2
    assert most_inputs <= 2


def test_a_slice_that_begins_in_place() -> None:
    def network(inplace: bool) -> Any:
        torch.manual_seed(0)
        block = nn.Sequential(nn.LeakyReLU(0.5, inplace), nn.Conv2d(8, 8, 3, padding=1))
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Sequential(block)).eval()

    plan = Plan({"1.0.1": LayerChoice(Candidate("tucker2", Ranks(4, 4)))})
    images = [torch.randn(8, 3, 8, 8)]
    found = []
    for inplace in (False, True):
        teacher = network(inplace)
        student: Any = apply_plan(copy.deepcopy(teacher), plan)
        found.append(
            distill_slices(student, teacher, images, slices=["1.0"], fitting=Fitting(2, 1e-2))
        )
        # The student's own inputs, from which the teacher's differ.
        student[0].weight.data += 0.1
        found[-1] += distill_slices(
            student, teacher, images, slices=["1.0"], fitting=Fitting(2), inputs_of=student
        )
    assert found[0] == found[1]


def test_batches_of_one_pass_are_refused() -> None:
    student, teacher, images = pair()
    with pytest.raises(TdcError, match="empty after one pass"):
        distill_slices(student, teacher, iter(images))


def test_the_students_own_inputs() -> None:
    student, teacher, images = pair()
    (result,) = distill_slices(
        student, teacher, images, slices=["layer1.1"], fitting=Fitting(1, 1e-6), inputs_of=student
    )
    x = torch.cat(images)
    with (
        torch.no_grad(),
        captured(student, ["layer1.1"]) as learned,
        captured(teacher, ["layer1.1"]) as taught,
    ):
        student.eval()(x)
        teacher(x)
    lost = (learned["layer1.1"] - taught["layer1.1"]).square().sum()
    share = float(lost / taught["layer1.1"].square().sum())
    # A learning rate of 1e-6 moves nothing that can be seen in four digits.
    assert result.before == pytest.approx(share, rel=1e-3)


def test_slices_are_blocks_or_single_layers() -> None:
    student, _, _ = pair()
    assert slices_of(student) == ["layer1.0", "layer1.1"]
    plain = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    plan = Plan({"2": LayerChoice(Candidate("tucker2", Ranks(4, 4)))})
    assert slices_of(apply_plan(plain, plan)) == ["2"]


def test_modes_are_kept() -> None:
    student, teacher, images = pair()
    student.train()
    student.layer1[0].bn1.eval()
    teacher.train()
    distill_slices(student, teacher, images, fitting=Fitting(1))
    assert student.training
    assert teacher.training
    assert not student.layer1[0].bn1.training


def test_mistakes() -> None:
    student, teacher, images = pair()
    with pytest.raises(TdcError, match="no images"):
        distill_slices(student, teacher, [])
    with pytest.raises(TdcError, match="no module"):
        distill_slices(student, teacher, images, slices=["layer9"])
    with pytest.raises(TdcError, match="no slices"):
        distill_slices(teacher, teacher, images)
