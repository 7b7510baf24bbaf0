"""A run that was killed and resumed gives what it would have given, to the last bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tdc_train.data import registry
from tdc_train.data.shapes import generate
from tdc_train.recipe import Recipe
from tdc_train.training import loop
from tdc_train.training.checkpoint import read_checkpoint
from tdc_train.training.run import fit

from tdc_deploy.errors import TdcError
from tests.train.tiny import TINY_DATA, tiny

# All that has a state: momentum, moving average, dropout, mixup, a second stage.
RECIPE = tiny(
    {"kind": "dense", "ema": 0.9, "mixup": 0.2, "schedule": {"warmup": 1}},
    {"kind": "finetune", "epochs": 1, "optimizer": {"name": "adamw", "lr": 0.01}, "clip": 1.0},
)


def content(folder: Path) -> dict[str, Any]:
    """All models that a run left, and its log without the times."""
    files = [folder / "best.pt", folder / "last.pt", *sorted((folder / "stages").iterdir())]
    found: dict[str, Any] = {}
    for file in files:
        checkpoint = read_checkpoint(file)
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in checkpoint.rows]
        found[file.name] = (checkpoint.model, checkpoint.stage, checkpoint.epoch, rows)
    return found


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return bool(torch.equal(a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.fixture(scope="module", autouse=True)
def _generated_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "generate", cache(generate))
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole") / "run"
    fit(RECIPE, folder)
    return content(folder)


def flip_a_bit(path: Path) -> None:
    """In the numbers of a tensor: most of a small file is padding, which means nothing."""
    raw = bytearray(path.read_bytes())
    numbers = read_checkpoint(path).model["fc.weight"].numpy().tobytes()
    raw[raw.index(numbers) + 5] ^= 1
    path.write_bytes(bytes(raw))


def die_at(call: int, of: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which kills the process before its call number `call`."""
    calls = 0

    def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return of(*args, **kwargs)

    return dying


def in_child(work: Callable[[], object]) -> int:
    """Run it in a forked process; the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def killed_fit(folder: Path, recipe: Recipe, call: int, owner: Any, name: str) -> int:
    def work() -> None:
        setattr(owner, name, die_at(call, getattr(owner, name)))
        fit(recipe, folder, resume=True)

    return in_child(work)


def test_killed_before_any_renaming_of_a_file(whole: dict[str, Any], tmp_path: Path) -> None:
    kills = 0
    for call in range(1, 100):
        folder = tmp_path / str(call)
        if killed_fit(folder, RECIPE, call, Path, "replace") == 0:
            break
        kills += 1
        assert in_child(partial(fit, RECIPE, folder, resume=True)) == 0
        assert same(content(folder), whole), f"killed at renaming {call}"
        assert not list(folder.rglob(".*"))
    # In each of three epochs the last checkpoint, in two or three steps, and the log, and what was best.
    assert 3 * 4 < kills < 99


def test_killed_again_and_again(whole: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for call in (3, 1, 6, 2, 9):
        assert killed_fit(folder, RECIPE, call, Path, "replace") == signal.SIGKILL
    fit(RECIPE, folder, resume=True)
    assert same(content(folder), whole)


@pytest.mark.parametrize("call", [1, 6, 10])
def test_killed_in_an_epoch(whole: dict[str, Any], tmp_path: Path, call: int) -> None:
    folder = tmp_path / "run"
    assert killed_fit(folder, RECIPE, call, loop.Trainer, "_step") == signal.SIGKILL
    fit(RECIPE, folder, resume=True)
    assert same(content(folder), whole)


def test_other_seeds_give_other_models(whole: dict[str, Any], tmp_path: Path) -> None:
    fit(tiny({"kind": "dense"}, seed=1), tmp_path / "run")
    assert not same(content(tmp_path / "run")["last.pt"][0], whole["last.pt"][0])


def test_the_log_has_each_epoch_once(whole: dict[str, Any]) -> None:
    rows = whole["last.pt"][3]
    assert [(row["stage"], row["epoch"]) for row in rows] == [
        ("dense", 1),
        ("dense", 2),
        ("finetune", 1),
    ]


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    recipe = tiny({"kind": "dense", "epochs": 1})
    fit(recipe, tmp_path / "run")
    before = (tmp_path / "run" / "last.pt").read_bytes()
    with pytest.raises(TdcError, match="holds a run already"):
        fit(recipe, tmp_path / "run")
    with pytest.raises(TdcError, match=r"another recipe: stages.0.epochs was 1, is 3"):
        fit(tiny({"kind": "dense", "epochs": 3}), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


def stopped(tmp_path: Path, recipe: Recipe, step: int) -> Path:
    """A run of TinyNet that was killed in its step number `step`; an epoch has four."""
    folder = tmp_path / "run"
    assert killed_fit(folder, recipe, step, loop.Trainer, "_step") == signal.SIGKILL
    return folder


def test_a_stage_to_come_may_change(tmp_path: Path) -> None:
    recipe = tiny({"kind": "dense", "epochs": 1}, {"kind": "finetune", "optimizer": {"lr": 1e30}})
    with pytest.raises(TdcError, match="NaN or infinite"):
        fit(recipe, tmp_path / "run")
    mended = tiny(
        {"kind": "dense", "epochs": 1}, {"kind": "finetune"}, {"kind": "dense", "name": "b"}
    )
    warnings: list[str] = []
    result = fit(mended, tmp_path / "run", resume=True, warn=warnings.append)
    assert [row["stage"] for row in result.rows] == ["dense", *["finetune"] * 2, "b", "b"]
    assert not warnings
    fit(mended, tmp_path / "whole")
    assert same(content(tmp_path / "run"), content(tmp_path / "whole"))


def test_a_stage_that_has_begun_may_be_slowed_down(tmp_path: Path) -> None:
    folder = stopped(tmp_path, tiny({"kind": "dense", "epochs": 3}), 6)
    for change in ({"batch": 8}, {"optimizer": {"lr": 0.05, "momentum": 0.5}}, {"epochs": 4}):
        with pytest.raises(TdcError, match=r"another recipe: stages\.0\."):
            fit(tiny({"kind": "dense", "epochs": 3, **change}), folder, resume=True)
    warnings: list[str] = []
    slower = {"kind": "dense", "epochs": 3, "optimizer": {"lr": 1e-30, "weight_decay": 5e-4}}
    before = read_checkpoint(folder / "last.pt").model["fc.weight"]
    result = fit(tiny({**slower, "clip": 1.0}), folder, resume=True, warn=warnings.append)
    assert warnings == ["going on with a changed stage: dense.lr was 0.05, is 1e-30"]
    assert [row["lr"] < 1e-20 for row in result.rows] == [False, True, True]
    assert torch.equal(before, read_checkpoint(folder / "last.pt").model["fc.weight"])


OTHER_DATA = {"name": "shapes", "options": {**TINY_DATA, "seed": 1}}


def test_the_model_and_the_seed_may_not_change(tmp_path: Path) -> None:
    folder = stopped(tmp_path, tiny(), 6)
    for more in ({"seed": 1}, {"data": OTHER_DATA}, {"model": {"name": "resnet20"}}):
        with pytest.raises(TdcError, match="another recipe"):
            fit(tiny(**more), folder, resume=True)


def test_data_may_have_moved(tmp_path: Path) -> None:
    data = {"name": "shapes", "options": TINY_DATA}
    folder = stopped(tmp_path, tiny(data={**data, "root": "/here"}), 6)
    result = fit(tiny(data={**data, "root": "/there"}), folder, resume=True)
    assert len(result.rows) == 2


def is_whole(path: Path) -> bool:
    try:
        read_checkpoint(path)
    except TdcError:
        return False
    return True


def test_a_damaged_last_checkpoint_never_replaces_a_whole_one(tmp_path: Path) -> None:
    folder = stopped(tmp_path, tiny({"kind": "dense", "epochs": 3}), 10)
    flip_a_bit(folder / "last.pt")
    # Killed at each renaming of the first epoch after it.
    for call in (1, 2, 3, 4):
        assert killed_fit(folder, tiny({"kind": "dense", "epochs": 3}), call, Path, "replace")
        held = [folder / name for name in ("last.pt", "previous.pt") if (folder / name).exists()]
        assert any(is_whole(path) for path in held)
        assert call == 1 or all(is_whole(path) for path in held)


def test_what_was_written_but_not_renamed_is_found(whole: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fit(RECIPE, folder)
    # Killed between the two renamings, and then the older copy was damaged.
    (folder / "last.pt").replace(folder / "next.pt")
    (folder / "previous.pt").write_bytes(b"damaged")
    fit(RECIPE, folder, resume=True)
    assert same(content(folder), whole)
    assert not (folder / "next.pt").exists()


def test_a_damaged_last_checkpoint_costs_an_epoch(whole: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert killed_fit(folder, RECIPE, 11, loop.Trainer, "_step") == signal.SIGKILL
    flip_a_bit(folder / "last.pt")
    warnings: list[str] = []
    fit(RECIPE, folder, resume=True, warn=warnings.append)
    assert len(warnings) == 1
    assert "damaged" in warnings[0]
    assert same(content(folder), whole)


def test_if_both_are_damaged_it_says_so_and_touches_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fit(RECIPE, folder)
    for name in ("last.pt", "previous.pt"):
        (folder / name).write_bytes(b"damaged")
    with pytest.raises(TdcError, match="damaged"):
        fit(RECIPE, folder, resume=True)
    assert (folder / "last.pt").read_bytes() == b"damaged"


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    recipe = tiny({"kind": "dense", "epochs": 1})
    fit(recipe, tmp_path / "run")
    before = (tmp_path / "run" / "last.pt").read_bytes()
    result = fit(recipe, tmp_path / "run", resume=True)
    assert len(result.rows) == 1
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.mark.slow
def test_the_command_killed_from_outside(tmp_path: Path) -> None:
    words = [
        "shapes_resnet20",
        *("--set", "model.name=tests.train.tiny:TinyNet"),
        *("--set", "stages.dense.epochs=4", "--set", "stages.dense.batch=16"),
        *("--set", "data.options={train=64,val=32,test=32}", "--threads", "1", "--resume"),
    ]

    def start(folder: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tdc_train.cli.main", "fit", *words, "-o", str(folder)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    assert start(tmp_path / "whole").wait(120) == 0
    killed = tmp_path / "killed"
    for wanted, delay in (("last.pt", 0.0), ("previous.pt", 0.02)):
        process = start(killed)
        wait_for(killed / wanted, process)
        time.sleep(delay)
        process.kill()
        process.wait(60)
    assert start(killed).wait(120) == 0
    assert same(content(killed), content(tmp_path / "whole"))
