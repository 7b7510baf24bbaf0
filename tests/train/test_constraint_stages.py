"""Runs with constraint sets: drawn to them, projected, and trained without leaving them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest

torch = pytest.importorskip("torch")

from tdc_train.constraints import Constraints, sizes
from tdc_train.data import registry
from tdc_train.data.shapes import generate
from tdc_train.projections.sets import SparseBasis, Ternary, TopK, UniformLevels, make_set
from tdc_train.recipe import OptimizerSpec, ScheduleSpec, StageSpec
from tdc_train.recipe_file import recipe_from, recipe_to
from tdc_train.training.checkpoint import read_checkpoint
from tdc_train.training.distributed import World
from tdc_train.training.hold import Hold
from tdc_train.training.loop import Method, Trainer
from tdc_train.training.order import Moment
from tdc_train.training.run import fit
from torch import Tensor, nn

from tdc_deploy.errors import TdcError
from tests.train.small_models import relative
from tests.train.test_resume import content, killed_fit, same
from tests.train.tiny import tiny

ONE = {"kind": "dense", "epochs": 1}
PROJECT = {"kind": "project", "init": {"images": 32}}
FINETUNE = {"kind": "finetune", "epochs": 2}
PRUNE: dict[str, Any] = {"name": "top_k", "density": 0.3}
LEVELS: dict[str, Any] = {"name": "levels", "bits": 3, "keep_zeros": True}
RECIPE = tiny(
    ONE,
    {"kind": "admm", "epochs": 1, "set": PRUNE},
    PROJECT,
    {**FINETUNE, "epochs": 1},
    {"kind": "admm", "name": "quantise", "epochs": 1, "set": LEVELS},
    {**PROJECT, "name": "levels"},
    {**FINETUNE, "name": "end", "ema": 0.5},
    # A stage begins at the projected weights, not at the free ones.
    {**FINETUNE, "name": "after", "epochs": 1},
)


@pytest.fixture(scope="module", autouse=True)
def _generated_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "generate", cache(generate))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("constraints") / "run"
    fit(RECIPE, path)
    return path


def weights(folder: Path, stage: str) -> Any:
    return read_checkpoint(folder / "stages" / f"{stage}.pt").model


def constraints(folder: Path, stage: str) -> Constraints:
    return Constraints.from_json(read_checkpoint(folder / "stages" / f"{stage}.pt").constraints)


def test_pruned_then_quantised_with_the_masks_held(folder: Path) -> None:
    # The first layer has three channels, too few.
    assert set(constraints(folder, "admm").aim) == {"conv2", "fc"}
    assert not constraints(folder, "admm").held
    assert constraints(folder, "project").held["fc"] == TopK(0.3)
    end = constraints(folder, "end")
    assert (dict(end.aim), end.held["conv2"]) == ({}, UniformLevels(3, keep_zeros=True))
    pruned, done = weights(folder, "project"), weights(folder, "end")
    for layer, count in (("conv2", 16 * 144), ("fc", 160)):
        mask = pruned[f"{layer}.weight"] != 0
        assert int(mask.sum()) == round(0.3 * count)
        for stage in ("finetune", "quantise", "levels", "end"):
            assert torch.equal(weights(folder, stage)[f"{layer}.weight"] != 0, mask), stage
        for row in done[f"{layer}.weight"]:
            assert len(row.abs().unique()) <= 4
    # It was trained after each projection.
    assert not torch.equal(weights(folder, "finetune")["fc.weight"], pruned["fc.weight"])
    assert not torch.equal(done["fc.weight"], weights(folder, "levels")["fc.weight"])
    after = weights(folder, "after")["fc.weight"]
    assert torch.equal(read_checkpoint(folder / "best.pt").model["fc.weight"], after)
    rows = {row["stage"]: row for row in read_checkpoint(folder / "last.pt").rows}
    assert 0 < rows["project"]["projected"] < 1
    assert rows["levels"]["compression"] > rows["project"]["compression"] > 1


@pytest.mark.parametrize("call", [9, 21, 29, 37, 49])
def test_killed_and_resumed_it_gives_the_same(folder: Path, tmp_path: Path, call: int) -> None:
    killed = tmp_path / "run"
    assert killed_fit(killed, RECIPE, call, Path, "replace") == signal.SIGKILL
    fit(RECIPE, killed, resume=True)
    assert same(content(killed), content(folder))


@pytest.mark.parametrize(("call", "stage"), [(7, 0), (25, 2)])
def test_a_resumed_stage_keeps_the_set_that_it_began_with(
    tmp_path: Path, call: int, stage: int
) -> None:
    # The basis to begin with is that of the weights before the first epoch.
    table = {"name": "sparse_basis", "density": 0.2}
    admm = {"kind": "admm", "epochs": 2, "set": table, "admm": {"rho": 1.0}}
    recipe = tiny(admm, PROJECT, FINETUNE)
    fit(recipe, tmp_path / "whole")
    killed = tmp_path / "killed"
    # Within the writing of each stage's second epoch.
    assert killed_fit(killed, recipe, call, Path, "replace") == signal.SIGKILL
    assert read_checkpoint(killed / "last.pt").epoch == 1
    assert read_checkpoint(killed / "last.pt").stage == stage
    fit(recipe, killed, resume=True)
    assert same(content(killed), content(tmp_path / "whole"))


@pytest.mark.parametrize(
    "table",
    [
        {"name": "n_m"},
        {"name": "patterns", "kernels": 0.5},
        {"name": "sparse_basis", "density": 0.2},
        {"name": "ternary_basis"},
        {"name": "periodic", "density": 0.5},
        {"name": "powers_of_two"},
        {"name": "ternary_sum"},
        {"name": "top_k", "scope": "network"},
    ],
    ids=lambda table: str(table["name"]),
)
def test_fine_tuning_stays_in_the_set(tmp_path: Path, table: dict[str, Any]) -> None:
    recipe = tiny({**ONE, "kind": "admm", "set": table}, PROJECT, {**FINETUNE, "epochs": 1})
    fit(recipe, tmp_path / "run")
    held = constraints(tmp_path / "run", "finetune").held
    before, after = (weights(tmp_path / "run", stage) for stage in ("project", "finetune"))
    assert "conv2" in held
    for path, kind in held.items():
        weight = after[f"{path}.weight"]
        assert not torch.equal(weight, before[f"{path}.weight"])
        assert relative(kind(weight), weight) <= 1e-6
    assert recipe_from(recipe_to(recipe), "again") == recipe


def test_a_run_that_starts_at_constrained_weights_stays_inside(
    folder: Path, tmp_path: Path
) -> None:
    start = folder / "stages" / "finetune.pt"
    model = {"name": "tests.train.tiny:TinyNet", "weights": str(start)}
    fit(tiny(FINETUNE, model=model), tmp_path / "run")
    before, after = weights(folder, "finetune"), weights(tmp_path / "run", "finetune")
    assert torch.equal(after["conv2.weight"] != 0, before["conv2.weight"] != 0)
    assert not torch.equal(after["conv2.weight"], before["conv2.weight"])
    assert constraints(tmp_path / "run", "finetune") == constraints(folder, "finetune")


@pytest.mark.parametrize(
    "stage",
    [
        {"kind": "decompose", "ranks": {"ratio": 0.5, "min_channels": 2, "step": 1}},
        {"kind": "admm", "ranks": {"ratio": 0.5, "min_channels": 2, "step": 1}},
        {"kind": "search", "epochs": 2},
        {"kind": "slices", "distill": {"teacher": "dense"}, "optimizer": {"name": "adamw"}},
    ],
    ids=lambda stage: str(stage["kind"]),
)
def test_no_stage_takes_constrained_weights_out_of_their_sets(
    folder: Path, tmp_path: Path, stage: dict[str, Any]
) -> None:
    start = folder / "stages" / "finetune.pt"
    model = {"name": "tests.train.tiny:TinyNet", "weights": str(start)}
    with pytest.raises(TdcError, match=r"held in sets: 'conv2' in top 0\.3"):
        fit(tiny(ONE, stage, model=model), tmp_path / "run")
    assert not (tmp_path / "run" / "last.pt").exists()


def conv_net() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(8, 8, 3, bias=False), nn.Conv2d(8, 8, 3, bias=False))


def test_the_gradient_is_taken_at_the_projection_and_moves_the_free_weights() -> None:
    net = conv_net()
    held = {"0": Ternary(), "1": TopK(0.25)}
    aimed = Constraints(held, {}).projected(net)
    assert aimed == Constraints({}, held)
    weight, sparse = (net.get_submodule(name).weight for name in "01")
    mask = sparse.detach() != 0
    with torch.no_grad():
        weight.add_(0.01 * torch.randn_like(weight))
    free = weight.detach().clone()
    hold, x = Hold(net, held), torch.randn(2, 8, 7, 7)
    with hold.projected():
        assert torch.equal(weight.detach(), Ternary()(free)) and not torch.equal(weight, free)
        net(x).square().mean().backward()
    assert torch.equal(weight.detach(), free)
    twin = conv_net()
    twin.load_state_dict(net.state_dict())
    twin[0].weight.data = Ternary()(free)
    twin(x).square().mean().backward()
    assert relative(weight.grad, twin[0].weight.grad) <= 1e-6  # type: ignore[arg-type]
    torch.optim.SGD(net.parameters(), lr=1.0, weight_decay=0.1).step()
    assert int((sparse != 0).sum()) > int(mask.sum())
    hold.after_step()
    assert torch.equal(sparse != 0, mask)
    hold.finish()
    assert relative(Ternary()(weight), weight) <= 1e-6


def test_a_sparse_basis_is_held_with_each_kernels_choice_and_only_coefficients_are_trained() -> (
    None
):
    net = conv_net()
    held = Constraints({"1": SparseBasis(4, density=0.2)}, {}).projected(net).held
    kind, weight = held["1"], net[1].weight
    assert isinstance(kind, SparseBasis)
    a, b = kind.factors(weight)
    hold, before = Hold(net, held), weight.detach().clone()
    net(torch.randn(2, 8, 7, 7)).square().mean().backward()
    free = weight.grad.double().flatten(2)
    hold.after_backward()
    # Along the coefficients the loss falls as fast as before; nothing else has a gradient.
    along = weight.grad.double().flatten(2) @ b.flatten(1).T
    assert relative(along[a != 0], (free @ b.flatten(1).T)[a != 0]) <= 1e-6
    unused = ~(a != 0).any(-1)
    assert unused.any() and not weight.grad.flatten(2)[unused].any()
    # Which scales each weight by itself, and so leaves the space.
    step = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(3):
        step.step()
        hold.after_step()
    now, same_basis = kind.factors(weight)
    assert torch.equal(now != 0, a != 0) and relative(same_basis, b) <= 1e-6
    assert relative(torch.einsum("mcd,dyx->mcyx", now, b).float(), weight) <= 1e-6
    assert relative(weight, before) > 0.1
    # No choice is made anew before a step: the weights are computed with as they are.
    with torch.no_grad():
        weight.add_(0.01 * torch.randn_like(weight))
    moved = weight.detach().clone()
    with hold.projected():
        assert torch.equal(weight.detach(), moved)


def test_a_weight_that_became_zero_may_move_again_after_resuming() -> None:
    net = conv_net()
    Constraints({"1": TopK(0.25)}, {}).projected(net)
    first = Hold(net, {"1": TopK(0.25)})
    place = tuple(net[1].weight.nonzero()[0].tolist())
    with torch.no_grad():
        net[1].weight[place] = 0.0
    resumed = Hold(net, {"1": TopK(0.25)})
    resumed.load_state_dict(first.state_dict())
    with torch.no_grad():
        net[1].weight.fill_(1.0)
    resumed.after_step()
    assert net[1].weight[place].item() == 1.0
    assert int(net[1].weight.count_nonzero()) == 144


def test_a_coefficient_that_became_zero_may_move_again_after_resuming() -> None:
    net = conv_net()
    held = Constraints({"1": SparseBasis(4, density=0.2)}, {}).projected(net).held
    kind, first = cast(SparseBasis, held["1"]), Hold(net, held)
    a, b = kind.factors(net[1].weight)
    gone = a.clone()
    place = tuple(a.nonzero()[0].tolist())
    gone[place] = 0.0
    with torch.no_grad():
        net[1].weight.copy_(torch.einsum("mcd,dyx->mcyx", gone, b))
    resumed = Hold(net, held)
    resumed.load_state_dict(first.state_dict())
    with torch.no_grad():
        net[1].weight.copy_(torch.einsum("mcd,dyx->mcyx", a, b))
    wanted = net[1].weight.detach().clone()
    resumed.after_step()
    assert relative(net[1].weight, wanted) <= 1e-6


def test_a_checkpoint_that_held_other_layers_is_refused() -> None:
    net = conv_net()
    held = Constraints({"1": TopK(0.25)}, {}).projected(net).held
    with pytest.raises(TdcError, match="holds no layer, which differs in '1'"):
        Hold(net, held).load_state_dict({"masks": {}})


def test_a_basis_that_the_weights_are_not_mixed_from_is_refused() -> None:
    net = conv_net()
    prepared = SparseBasis(4, density=0.2).prepared({"1": net[1].weight})
    Constraints(prepared, {}).projected(net)
    with pytest.raises(TdcError, match="not mixed from the kernels it is held in"):
        Hold(net, prepared)


class Pixels:
    """Images that do not change, of 8 channels."""

    def __len__(self) -> int:
        return 8

    def batch(self, indices: Tensor, _draws: Tensor | None = None) -> tuple[Tensor, Tensor]:
        made = torch.Generator().manual_seed(3)
        return torch.randn(8, 8, 7, 7, generator=made)[indices], indices


def energy(model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    out = model(images)
    return out.square().mean(), out


def trainer_of(net: Any, held: Any, **more: Any) -> Trainer:
    spec = StageSpec("finetune", batch=4, channels_last=False, **more)
    return Trainer(net, spec, Method(energy, hold=Hold(net, held)), Pixels(), 8, World())


def test_a_resumed_trainer_holds_the_zeros_that_it_began_with() -> None:
    held, net = {"1": TopK(0.25)}, conv_net()
    Constraints(held, {}).projected(net)
    trainer = trainer_of(net, held)
    mask = net[1].weight.detach() != 0
    place = tuple(mask.nonzero()[0].tolist())
    with torch.no_grad():
        # As the moving average, or a step, may by chance.
        net[1].weight[place] = 0.0
    state, other = trainer.state_dict(), conv_net()
    other.load_state_dict(state["weights"])
    resumed = trainer_of(other, held)
    resumed.load_state_dict(state)
    resumed.epoch(Moment(0, 0, 1), lambda _done, _all: None)
    assert torch.equal(other[1].weight != 0, mask)


def test_clipping_counts_no_gradient_of_what_stays_zero() -> None:
    held, net = {"0": TopK(0.1), "1": TopK(0.1)}, conv_net()
    Constraints(held, {}).projected(net)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    by = OptimizerSpec(lr=1.0, momentum=0.0, weight_decay=0.0)
    trainer = trainer_of(net, held, optimizer=by, clip=1e-3, schedule=ScheduleSpec("constant"))
    trainer._step(*Pixels().batch(torch.arange(4)))
    moved = sum(float((p.detach() - before[n]).square().sum()) for n, p in net.named_parameters())
    # The step is as long as the clipped gradient; torch adds 1e-6 to the norm that it divides by.
    assert abs(moved**0.5 / 1e-3 - 1) <= 1e-2


def test_the_size_is_of_the_whole_network() -> None:
    net = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1))
    kind = make_set({"name": "n_m"})
    Constraints({"0": kind}, {}).projected(net)
    found = sizes(net, {"0": kind})
    # Two convolutions with biases; scale, shift, mean and variance.
    assert found["dense_bits"] == 32 * (576 + 8 + 64 + 8 + 32)
    assert found["bits"] == found["dense_bits"] - 32 * 576 + 288 * (32 + 2)
    assert found["layers"]["0"]["macs_share"] == 0.5
    assert found["layers"]["0"]["tensorrt_sparse"] is True
    with pytest.raises(TdcError, match="a constraint for layer '7'"):
        sizes(net, {"7": kind})


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"kind": "admm", "set": {"name": "topk"}}], "did you mean 'top_k'"),
        ([{"kind": "admm", "set": {**PRUNE, "rho": 1}}], "unknown key 'rho'"),
        ([{"kind": "admm", "set": {**PRUNE, "skip": "fc"}}], "skip is 'fc'"),
        ([{"kind": "admm", "set": {**PRUNE, "min_channels": 0}}], "min_channels is 0"),
        ([{"kind": "admm", "set": 3}], "set is 3"),
        ([{"kind": "admm", "set": PRUNE, "ranks": {"ratio": 0.5}}], "a set and ranks"),
        ([{"kind": "finetune", "set": PRUNE}], "a set for a stage of kind finetune"),
        ([PROJECT], "'project' without a set"),
        ([{**PROJECT, "set": PRUNE}, {**PROJECT, "name": "again"}], "'again' without a set"),
        (
            [{**PROJECT, "set": PRUNE}, {"kind": "decompose", "ranks": {"ratio": 0.5}}],
            r"'decompose' \(decompose\) after a projection",
        ),
        ([{**PROJECT, "set": PRUNE}, {"kind": "admm", "ranks": {"ratio": 0.5}}], "without a set"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_said(stages: Any, message: str) -> None:
    with pytest.raises(TdcError, match=message):
        tiny(*stages)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{**PROJECT, "set": {**PRUNE, "skip": ["conv3"]}}], "did you mean 'conv2'"),
        ([{**PROJECT, "set": {"name": "n_m", "n": 1, "m": 64}}], "no layer for 1:64"),
        (
            [
                {**PROJECT, "set": {"name": "ternary"}},
                {"kind": "admm", "set": {"name": "levels"}},
            ],
            "is held in ternary",
        ),
    ],
)
def test_before_the_first_stage(tmp_path: Path, stages: Any, message: str) -> None:
    with pytest.raises(TdcError, match=message):
        fit(tiny(ONE, *stages), tmp_path / "run")
    assert not (tmp_path / "run" / "last.pt").exists()


def test_layers_that_are_skipped_stay_dense(tmp_path: Path) -> None:
    table = {**PRUNE, "skip": ["fc"], "min_channels": 1}
    fit(tiny({**PROJECT, "set": table}), tmp_path / "run")
    assert set(constraints(tmp_path / "run", "project").held) == {"conv1", "conv2"}


def test_sets_of_a_basis_remember_where_they_began() -> None:
    weight = nn.Conv2d(8, 8, 3).weight
    kind = SparseBasis().prepared({"a": weight})["a"]
    kept = Constraints({"a": kind}, {})
    assert Constraints.from_json(kept.to_json()) == kept
    assert Constraints().to_json() is None and Constraints.from_json(None) == Constraints()
