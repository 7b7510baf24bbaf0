"""Two processes against one."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tdc_train.constraints import Constraints
from tdc_train.data.registry import make_data
from tdc_train.projections.sets import SparseBasis
from tdc_train.training import checkpoint, run
from tdc_train.training.checkpoint import read_checkpoint
from tdc_train.training.distributed import World, joined
from tdc_train.training.evaluate import score
from tdc_train.training.hold import Hold
from tdc_train.training.losses import CrossEntropy
from tdc_train.training.order import Moment, epoch_batches
from tdc_train.training.rebuild import rebuilt
from tdc_train.training.run import fit
from torch import Tensor, nn

from tdc_deploy.console import USER_ERROR
from tdc_deploy.errors import TdcError
from tests.train.tiny import TINY_DATA, tiny

# Dropout draws on each process for itself.
PLAIN = {
    "model": {"name": "tests.train.tiny:TinyNet", "options": {"norm": "group", "dropout": 0.0}}
}
EPOCHS = 3

# Sums of the same float32 terms in another order (a gradient as the mean of two means), 1e-7 each, which
# twelve steps at a rate of 0.05 amplify some.
SAME = 1e-5


def free_port() -> int:
    """One below those that connections get, or one of them may take it before the first process listens."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def both(work: Callable[[], object]) -> list[int]:
    """Run it in two processes, as torchrun would; their exit codes, USER_ERROR for a TdcError."""
    port = str(free_port())
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank))
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
            try:
                work()
            except TdcError:
                os._exit(USER_ERROR)
            except BaseException as error:
                os.write(2, repr(error).encode())
                os._exit(1)
            os._exit(0)
        children.append(child)
    return [os.WEXITSTATUS(os.waitpid(child, 0)[1]) for child in children]


def weights(folder: Path) -> dict[str, Tensor]:
    return read_checkpoint(folder / "last.pt").model


def apart(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return max(float((a[n] - b[n]).abs().max()) for n in a if a[n].is_floating_point())


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    recipe = tiny({"kind": "dense", "epochs": EPOCHS, "ema": 0.9}, **PLAIN)
    fit(recipe, tmp_path / "one")
    assert both(lambda: fit(recipe, tmp_path / "two")) == [0, 0]
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert apart(one, two) <= SAME
    rows = [read_checkpoint(tmp_path / name / "last.pt").rows for name in ("one", "two")]
    for a, b in zip(*rows, strict=True):
        assert a["val_accuracy"] == b["val_accuracy"]
        assert abs(a["loss"] - b["loss"]) <= SAME
    start = tiny({"kind": "dense", "epochs": 1, "optimizer": {"lr": 1e-9}}, **PLAIN)
    fit(start, tmp_path / "start")
    assert apart(one, weights(tmp_path / "start")) > 100 * SAME


def test_two_processes_resume_to_the_last_bit(tmp_path: Path) -> None:
    # BatchNorm: each process has statistics of its own, and the first one's are kept.
    recipe = tiny({"kind": "dense", "epochs": 2})
    assert both(lambda: fit(recipe, tmp_path / "whole")) == [0, 0]
    assert both(lambda: fit(recipe, tmp_path / "stopped")) == [0, 0]
    # After the first epoch.
    (tmp_path / "stopped" / "previous.pt").replace(tmp_path / "stopped" / "last.pt")
    assert both(lambda: fit(recipe, tmp_path / "stopped", resume=True)) == [0, 0]
    assert apart(weights(tmp_path / "whole"), weights(tmp_path / "stopped")) == 0.0


def test_what_two_processes_score_is_the_model_that_is_kept(tmp_path: Path) -> None:
    # Two batches of the evaluation, one for each process, whose BatchNorms saw different images.
    options = {**TINY_DATA, "val": 500}
    recipe = tiny({"kind": "dense", "epochs": 1}, data={"name": "shapes", "options": options})
    assert both(lambda: fit(recipe, tmp_path / "run")) == [0, 0]
    kept = read_checkpoint(tmp_path / "run" / "last.pt")
    found = score(rebuilt(kept, trust=True), make_data("shapes", None, options).val)
    assert abs(found.loss - kept.figures["val_loss"]) <= SAME


def test_the_moving_average_that_is_scored_is_kept(tmp_path: Path) -> None:
    options = {**TINY_DATA, "val": 500}
    stage = {"kind": "dense", "epochs": 1, "ema": 0.5}
    recipe = tiny(stage, data={"name": "shapes", "options": options})
    assert both(lambda: fit(recipe, tmp_path / "run")) == [0, 0]
    kept = read_checkpoint(tmp_path / "run" / "last.pt")
    found = score(rebuilt(kept, trust=True), make_data("shapes", None, options).val)
    assert abs(found.loss - kept.figures["val_loss"]) <= SAME


def test_an_earlier_stage_teaches_all_processes(tmp_path: Path) -> None:
    teacher = {"name": "soft", "teacher": "dense"}
    stages = ({"kind": "dense", "epochs": 1}, {"kind": "finetune", "epochs": 1, "distill": teacher})
    recipe = tiny(*stages, **PLAIN)

    write = checkpoint.write_checkpoint

    def slowly(path: Path, content: checkpoint.Checkpoint) -> None:
        time.sleep(0.3)
        write(path, content)

    def work() -> None:
        # A slow disk: the other process must wait for what the first one writes.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "write_checkpoint", slowly)
            fit(recipe, tmp_path / "two")

    assert both(work) == [0, 0]
    fit(recipe, tmp_path / "one")
    assert apart(weights(tmp_path / "one"), weights(tmp_path / "two")) <= SAME


def test_all_processes_hold_what_the_first_one_fitted(tmp_path: Path) -> None:
    table = {"name": "sparse_basis", "density": 0.2}
    stages = ({"kind": "admm", "epochs": 1, "set": table}, {"kind": "project"})
    recipe = tiny(*stages, {"kind": "finetune", "epochs": 1}, **PLAIN)
    settled, load = SparseBasis.settled, Hold.__init__

    def rounded(kind: SparseBasis, weight: Tensor) -> SparseBasis:
        found = settled(kind, weight)
        # As another processor would.
        off = 1 + 1e-9 * int(os.environ["RANK"])
        return replace(found, start=tuple(tuple(off * x for x in row) for row in found.start))

    def noted(hold: Hold, model: nn.Module, held: Mapping[str, SparseBasis]) -> None:
        (tmp_path / os.environ["RANK"]).write_text(json.dumps(Constraints({}, held).to_json()))
        load(hold, model, held)

    def work() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SparseBasis, "settled", rounded)
            patch.setattr(Hold, "__init__", noted)
            fit(recipe, tmp_path / "two")

    assert both(work) == [0, 0]
    assert (tmp_path / "0").read_text() == (tmp_path / "1").read_text() != ""


def test_a_nan_on_one_process_stops_both(tmp_path: Path) -> None:
    def work() -> None:
        if os.environ["RANK"] == "1":
            CrossEntropy.__call__ = lambda _self, *args: (args[0](args[1]).mean() * math.nan, None)  # type: ignore
        fit(tiny({"kind": "dense"}, **PLAIN), tmp_path / "run")

    assert both(work) == [USER_ERROR, USER_ERROR]


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    recipe = tiny({"kind": "dense", "batch": 15}, **PLAIN)
    assert both(lambda: fit(recipe, tmp_path / "run")) == [USER_ERROR, USER_ERROR]


def test_a_batch_per_process_is_as_many_times_larger(tmp_path: Path) -> None:
    per_process = tiny({"kind": "dense", "batch": 8, "per_process": True}, **PLAIN)
    # Twice the batch, and twice the rate.
    alone = tiny({"kind": "dense", "batch": 16, "optimizer": {"lr": 0.1}}, **PLAIN)
    assert both(lambda: fit(per_process, tmp_path / "two")) == [0, 0]
    fit(alone, tmp_path / "one")
    assert apart(weights(tmp_path / "one"), weights(tmp_path / "two")) <= SAME


def test_the_parts_of_a_batch_are_the_batch() -> None:
    moment = Moment(seed=1, stage=0, epoch=2)
    whole = [indices for indices, _ in epoch_batches(moment, 37, 8, 0, 1)]
    parts = [list(epoch_batches(moment, 37, 8, rank, 2)) for rank in range(2)]
    assert len(whole) == 4
    for batch, (first, _), (second, _) in zip(whole, *parts, strict=True):
        assert sorted(batch.tolist()) == sorted([*first.tolist(), *second.tolist()])
    other = next(iter(epoch_batches(Moment(1, 0, 3), 37, 8, 0, 1)))[0]
    assert whole[0].tolist() != other.tolist()


def test_scores_are_summed() -> None:
    images = make_data("shapes", None, TINY_DATA).val
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    alone = score(model, images, batch=10)

    def work() -> None:
        with joined("cpu") as world:
            found = score(model, images, world, batch=10)
            assert (found.right, found.images) == (alone.right, len(images))
            assert abs(found.loss - alone.loss) <= 1e-12

    assert both(work) == [0, 0]
    assert alone == score(model, images, World(), batch=10)


def test_no_gpu_is_said() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(TdcError, match="no GPU"), joined("cuda"):
        pass
    with pytest.raises(TdcError, match="device 'tpu'"), joined("tpu"):
        pass


@pytest.mark.slow
def test_torchrun(tmp_path: Path) -> None:
    options = "data.options={train=64,val=32,test=32}"
    words = ["fit", "shapes_resnet20", "-o", str(tmp_path / "run"), "--set", options, "--json"]
    words += ["--set", "model.name=tests.train.tiny:TinyNet", "--set", "stages.dense.epochs=3"]
    words += ["--set", "stages.dense.batch=16"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launch += ["--master-port", str(free_port()), "-m", "tdc_train.cli.main", *words]
    done = subprocess.run(launch, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"epochs"') == 1
