"""A rank search as a stage, in time by arithmetic."""

from __future__ import annotations

import io
import json
import shlex
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tdc_train.conversion import apply_plan, factorised
from tdc_train.data import registry
from tdc_train.data.shapes import generate
from tdc_train.recipe import Recipe, StageSpec
from tdc_train.recipe_file import recipe_from
from tdc_train.search.space import Space
from tdc_train.search.supernet import RankSearch
from tdc_train.training import loop
from tdc_train.training.checkpoint import read_checkpoint
from tdc_train.training.losses import CrossEntropy
from tdc_train.training.order import Moment
from tdc_train.training.rebuild import rebuilt
from tdc_train.training.run import fit
from torch import Tensor, nn

import tdc_deploy
from tdc_deploy.errors import TdcError
from tdc_deploy.plan_file import Plan, read_plan
from tdc_deploy.ranks.table import CostTable
from tdc_deploy.tucker import chain_cost, dense_cost
from tests.fakes import FakeTime
from tests.ranks.tables import row
from tests.train.small_models import relative
from tests.train.test_cli import Run, run
from tests.train.test_resume import content, die_at, in_child, same
from tests.train.tiny import tiny

__all__ = ["run"]  # a fixture

WIDE = {"name": "tests.train.tiny:TinyNet", "options": {"channels": 32}}
SEARCH = {"budget": 0.4, "threads": 1, "lr": 0.1}


def searching(**more: Any) -> Recipe:
    """Dense, search with a pull to it, decompose, fine-tune."""
    pull = {"name": "feature", "teacher": "dense"}
    return tiny(
        {"kind": "dense", "epochs": 1},
        {"kind": "search", "epochs": 3, "distill": pull, "search": {**SEARCH, **more}},
        {"kind": "decompose"},
        {"kind": "finetune", "epochs": 1},
        model=WIDE,
    )


@pytest.fixture(scope="module", autouse=True)
def _generated_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "generate", cache(generate))
        yield


@pytest.fixture(autouse=True)
def time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    return FakeTime(monkeypatch)


def plan_in(folder: Path) -> Plan:
    return read_plan(folder / "search" / "search.plan.json")


def same_choice(folder: Path, other: Path) -> bool:
    """A killed run may find what it measured before in the store."""
    one, two = (replace(plan_in(path), measurements=0) for path in (folder, other))
    return one == two


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        FakeTime(patch)
        fit(searching(), folder)
    return folder


def test_the_plan_is_in_the_budget_and_applied(whole: Path) -> None:
    plan = plan_in(whole)
    assert plan.solver == "haloc"
    assert plan.network is not None
    assert 0 < plan.network.ratio <= SEARCH["budget"]
    assert plan.backend["backend"] == "onnxruntime"
    # conv1 has 3 channels, and little to win.
    chosen = plan.selection
    assert "conv2" in chosen
    model = rebuilt(read_checkpoint(whole / "last.pt"), trust=True)
    assert {path: layer.ranks for path, layer in factorised(model).items()} == {
        path: c.ranks for path, c in chosen.items()
    }
    dense = rebuilt(read_checkpoint(whole / "stages" / "dense.pt"), trust=True)
    assert factorised(apply_plan(dense, plan))


def test_the_search_ends_with_the_network_that_is_decomposed(whole: Path) -> None:
    found = read_checkpoint(whole / "stages" / "search.pt")
    assert found.plan is None
    searched = rebuilt(found, trust=True).eval().double()
    cut = apply_plan(rebuilt(found, trust=True), plan_in(whole)).eval().double()
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    wanted = searched(x)
    # The weights were stored in float32.
    assert relative(cut(x), wanted) <= 1e-5


def test_the_log_says_how_it_went(whole: Path) -> None:
    rows = [row for row in read_checkpoint(whole / "last.pt").rows if row["stage"] == "search"]
    times = [row["search_time"] for row in rows]
    assert all(0 < time < 1 for time in times)
    # The logits rest in the warmup, and move after it.
    assert times[0] == times[1] != times[2]
    assert rows[-1]["search_ratio"] <= SEARCH["budget"]
    # The budget binds, and the multiplier is part of what a resumed run needs.
    assert [row["search_multiplier"] > 0 for row in rows] == [False, False, True]
    assert {"search_entropy", "search_multiplier"} <= rows[0].keys()
    assert "search_ratio" not in rows[0]


def test_a_build_takes_the_plan(whole: Path, tmp_path: Path) -> None:
    dense, inputs = whole / "search" / "search.onnx", whole / "search" / "search.npz"
    artifact = tdc_deploy.build(
        dense, tmp_path / "fast.onnx", plan=whole / "search" / "search.plan.json", inputs=inputs
    )
    assert artifact.path.is_file()


@pytest.mark.parametrize("call", [5, 9, 12, 15])
def test_killed_in_a_step_it_goes_on_to_the_same_bits(
    whole: Path, tmp_path: Path, call: int
) -> None:
    """Steps 1 to 4 are dense, 5 to 16 the search."""
    folder = tmp_path / "run"

    def work() -> None:
        loop.Trainer._step = die_at(call, loop.Trainer._step)  # type: ignore[method-assign]
        fit(searching(), folder)

    assert in_child(work) == signal.SIGKILL
    assert in_child(partial(fit, searching(), folder, resume=True)) == 0
    assert same(content(folder), content(whole))
    assert same_choice(folder, whole)


def test_a_resumed_search_measures_nothing_anew(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, time: FakeTime
) -> None:
    folder = tmp_path / "run"

    def work() -> None:
        loop.Trainer._step = die_at(12, loop.Trainer._step)  # type: ignore[method-assign]
        fit(searching(), folder)

    assert in_child(work) == signal.SIGKILL
    # Another store, and a machine that is twice as fast.
    monkeypatch.setenv("TDC_DEPLOY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tests.fakes.MACS_PER_MS", 2e6)
    fit(searching(), folder, resume=True)
    assert time.measured == 0
    assert same(content(folder), content(whole))
    assert same_choice(folder, whole)


def test_seeds_and_paths_make_a_difference(whole: Path, tmp_path: Path) -> None:
    fit(searching(paths="mixture"), tmp_path / "run")
    key = ("search.pt",)
    assert not same(content(tmp_path / "run")[key[0]][0], content(whole)[key[0]][0])
    assert plan_in(tmp_path / "run").network is not None


class Planted(nn.Module):
    """`full` needs every direction of its input, `none` needs one: what the labels were made by."""

    def __init__(self) -> None:
        super().__init__()
        self.full = nn.Conv2d(32, 32, 1, bias=False)
        self.none = nn.Conv2d(32, 32, 1, bias=False)
        torch.manual_seed(0)
        full = torch.linalg.qr(torch.randn(32, 32))[0]
        left, right = torch.randn(2, 32)
        none = torch.outer(left, right)
        with torch.no_grad():
            self.full.weight.copy_(full[:, :, None, None])
            self.none.weight.copy_((none / none.norm())[:, :, None, None] * 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.split(32, 1)
        return torch.cat((self.full(a), self.none(b)), 1).mean((2, 3))


class PlantedImages:
    """Random inputs [n, 64, 2, 2], which the network itself labels."""

    def __init__(self) -> None:
        self._x = torch.randn(256, 64, 2, 2, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            self._y = Planted()(self._x)

    def __len__(self) -> int:
        return len(self._x)

    def batch(self, indices: Tensor, _draws: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._x[indices], self._y[indices]


def squared(model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    outputs = model(images)
    return 10 * (outputs - targets).square().mean(), outputs


def planted_space() -> Space:
    """Both layers alike: 1 ms, and by rank what a 1x1 layer would save."""
    offers = [(4, 0.3, 0.0), (16, 0.6, 0.0)]
    rows = {path: row(path, 1.0, offers) for path in ("full", "none")}
    return Space(CostTable(rows), 2.0, 1.0, {}, 0)


def planted_search(**more: Any) -> tuple[Planted, RankSearch]:
    model = Planted()
    said = {"budget": 0.65, "warmup": 0, "lr": 0.1, **more}
    spec = recipe_from(
        {"stages": [{"kind": "search", "epochs": 4, "batch": 32, "search": said}]}, "planted"
    ).stages[0]
    return model, RankSearch(model, planted_space(), spec, squared, PlantedImages(), 40)


@pytest.mark.parametrize("paths", ["sample", "mixture"])
def test_a_planted_case_is_found(paths: str) -> None:
    """Either layer could be cut to meet the budget; only one can be without loss."""
    model, search = planted_search(paths=paths)
    data = PlantedImages()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for epoch in range(4):
        search.start_epoch(Moment(0, 0, epoch))
        for step in range(40):
            search.before_step()
            some = torch.arange(32) + 32 * (step % 8)
            loss, _ = search.loss(model, *data.batch(some))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    found = search.likeliest()
    assert found["full"].form == "dense"
    assert found["none"].ranks is not None
    assert found["none"].ranks.r_in == 4
    shares = search.final_shares()
    assert all(float(p.max()) >= 0.9 for p in shares.values())


def test_the_logits_gradient_is_that_of_finite_differences() -> None:
    model, search = planted_search(entropy=0.3, warmup=0)
    model.double()
    search.start_epoch(Moment(0, 0, 2))
    search._penalty.multiplier = 0.4
    images, targets = PlantedImages().batch(torch.arange(16))
    batch = images.double(), targets.double()
    with torch.no_grad():
        for i, alpha in enumerate(search.logits.values()):
            alpha.copy_(torch.tensor([0.3, -0.2, 0.1 * i], dtype=torch.float64))
    exact = torch.autograd.grad(search.logits_loss(*batch), list(search.logits.values()))
    step = 1e-5
    for alpha, gradient in zip(search.logits.values(), exact, strict=True):
        for i in range(len(alpha)):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    alpha[i] += sign * step
                    values.append(float(search.logits_loss(*batch)))
                    alpha[i] -= sign * step
            numeric = (values[0] - values[1]) / (2 * step)
            # Central differences of step h are off by h² and by 1e-16 / h.
            assert abs(numeric - float(gradient[i])) <= 1e-8 * max(1.0, abs(numeric))


def test_a_search_goes_on_where_its_state_was_taken() -> None:
    """Logits, Adam's moments and the multiplier, of which each steers the next steps."""

    def epoch(search: RankSearch, number: int) -> dict[str, float]:
        figures = search.start_epoch(Moment(0, 0, number))
        for _ in range(5):
            search.before_step()
        return figures

    _, search = planted_search(budget=0.4)
    epoch(search, 0)
    buffer = io.BytesIO()
    torch.save(search.state_dict(), buffer)
    buffer.seek(0)
    _, resumed = planted_search(budget=0.4)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    figures = epoch(search, 1)
    assert figures["search_multiplier"] > 0
    assert epoch(resumed, 1) == figures
    assert same(dict(resumed.logits), dict(search.logits))
    assert epoch(resumed, 2) == epoch(search, 2)


def test_a_step_of_the_logits_touches_nothing_else() -> None:
    model = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.Flatten())
    model.add_module("fc", nn.Linear(32 * 4, 10))
    spec: StageSpec = recipe_from(
        {"stages": [{"kind": "search", "epochs": 2, "search": {"warmup": 0}}]}, "x"
    ).stages[0]
    made = Space(CostTable({"0": row("0", 1.0, [(8, 0.5, 0.0)])}), 1.0, 1.0, {}, 0)

    class Images:
        def __len__(self) -> int:
            return 16

        def batch(self, indices: Tensor, _draws: Tensor | None = None) -> tuple[Tensor, Tensor]:
            return torch.randn(len(indices), 32, 2, 2), indices % 10

    search = RankSearch(model, made, spec, CrossEntropy(), Images(), 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    search.start_epoch(Moment(0, 0, 0))
    search.before_step()
    assert same(model.state_dict(), before)
    assert float(search.logits["0"].detach().abs().max()) > 0
    assert all(p.grad is None for p in model.parameters())


def test_likely_candidates_are_drawn_often() -> None:
    _, search = planted_search()
    search.start_epoch(Moment(0, 0, 0))
    shares = torch.tensor([0.6, 0.1, 0.3], dtype=torch.float64)
    drawn = torch.stack([search._drawn(shares) for _ in range(4000)])
    assert torch.equal(drawn.sum(1), torch.ones(4000, dtype=torch.float64))
    # Five standard deviations of a mean of 4000.
    assert float((drawn.mean(0) - shares).abs().max()) <= 5 * 0.5 / 4000**0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ranks": {"ratio": 0.5}}, "a search with ranks"),
        ({"epochs": 1}, "a search of 1 epochs with 1 of warmup"),
    ],
)
def test_stages_that_make_no_sense(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TdcError, match=message):
        tiny({"kind": "search", **change})


def test_a_search_comes_before_the_decomposition() -> None:
    ranks = {"layers": {"conv2": {"form": "tucker2", "r_in": 8, "r_out": 8}}}
    with pytest.raises(TdcError, match="after a decomposition"):
        tiny({"kind": "decompose", "ranks": ranks}, {"kind": "search"})


def test_what_a_search_would_run_into_is_said_before_training(tmp_path: Path) -> None:
    model = {**WIDE, "options": {"channels": 4}}
    with pytest.raises(TdcError, match="too small to decompose"):
        fit(tiny({"kind": "dense"}, {"kind": "search"}, model=model), tmp_path / "run")
    assert not (tmp_path / "run" / "last.pt").exists()
    recipe = tiny({"kind": "search", "search": {"backend": "tensorrt"}}, model=WIDE)
    with pytest.raises(TdcError, match=r"[Tt]ensor"):
        fit(recipe, tmp_path / "run")


TOML = """
[model]
name = "tests.train.tiny:TinyNet"
options = { channels = 32 }
[data]
options = { train = 64, val = 32, test = 32 }
[[stages]]
kind = "search"
epochs = 2
batch = 16
search = { threads = 1 }
[[stages]]
kind = "decompose"
[[stages]]
kind = "finetune"
epochs = 1
batch = 16
"""


def test_the_command_then_the_rest(run: Run, tmp_path: Path) -> None:
    recipe, folder, plan = tmp_path / "r.toml", tmp_path / "run", tmp_path / "plan.json"
    recipe.write_text(TOML)
    result = run("search", recipe, "-o", folder, "--plan", plan, "--latency-budget", 0.5)
    assert result.code == 0, result.err
    assert "conv2" in result.out
    # The command for the rest is the whole of it.
    program, *rest_of = shlex.split(result.out.rpartition("next: ")[2])
    assert program == "tdc-train"
    assert read_plan(plan) == plan_in(folder)
    assert read_plan(plan).network.ratio <= 0.5  # type: ignore[union-attr]
    budget = ("--set", "stages.search.search.budget=0.5")
    rest = run(*rest_of)
    assert rest.code == 0, rest.err
    assert read_checkpoint(folder / "last.pt").plan is not None
    again = run("search", recipe, "-o", folder, "--resume", "--json", *budget)
    assert again.code == 2
    recipe.write_text(TOML.partition("[[stages]]")[0] + '[[stages]]\nkind = "dense"\n')
    assert "without a search" in run("search", recipe, "-o", tmp_path / "other").err


def test_ranks_from_a_checkpoint_and_its_export(run: Run, whole: Path, tmp_path: Path) -> None:
    dense, onnx = whole / "stages" / "dense.pt", tmp_path / "dense.onnx"
    assert run("export", dense, "-o", onnx, "--trust").code == 0
    plans = []
    for i, model in enumerate((dense, onnx)):
        plan = tmp_path / f"{i}.json"
        words = ("--method", "energy", "--energy", 0.4, "-o", plan, "--trust")
        result = run("ranks", model, *words)
        assert result.code == 0, result.err
        plans.append(json.loads(plan.read_text())["layers"])
    assert plans[0] == plans[1]
    assert plans[0]["conv2"]["form"] != "dense"
    assert "conv2" in run("ranks", onnx).out
    for flag, value in (("--method", "guess"), ("--energy", 0.5), ("--step", 0)):
        assert run("ranks", onnx, flag, value).code == 2
    assert run("ranks", onnx, "-o", onnx).code == 2
    assert run("ranks", dense).code == 2
    assert run("ranks", tmp_path / "none.onnx").code == 2


def test_the_work_of_the_network_falls_with_the_plan(whole: Path) -> None:
    from tdc_deploy.source import read_source

    source = read_source(whole / "search" / "search.onnx", None)
    plan = plan_in(whole)
    layers = {name: c.layer for name, c in source.convs.items() if c.layer is not None}
    before = sum(dense_cost(layer).macs for layer in layers.values())
    after = sum(
        chain_cost(layer, plan.layers[name].candidate).macs
        if name in plan.layers
        else dense_cost(layer).macs
        for name, layer in layers.items()
    )
    assert plan.network is not None
    # Time by arithmetic alone.
    assert abs(after / before - plan.network.ratio) <= 1e-9
