"""ADMM in two processes is ADMM in one, and no layer is projected twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch

ROOT = Path(__file__).parents[2]

# Five epochs of full-batch descent on a quadratic loss of two layers' weights and one matrix, each
# process on its half of the loss; gradients are averaged as DistributedDataParallel does.
TRAINING = """
import json, sys
from pathlib import Path
import torch
import torch.distributed as dist
from torch import nn
from tdc_deploy.types import Ranks
from tdc_train.admm import Admm
from tdc_train.projections import SvdProjection, TuckerProjection

torch.set_num_threads(1)
folder, rank, world = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
if world > 1:
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=world)

torch.manual_seed(0)
shapes = {"a": (20, 18, 3, 3), "b": (16, 20, 3, 3), "c": (12, 30)}
weights = {name: nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}
targets = {name: weight.detach() + 0.1 * torch.randn(weight.shape) for name, weight in weights.items()}
# As a network in channels-last has its kernels: memory is then broadcast in another order.
weights["b"].data = weights["b"].data.contiguous(memory_format=torch.channels_last)

projected = []
class Counted(TuckerProjection):
    def near(self, weight, start):
        projected.append(self.describe())
        return super().near(weight, start)

sets = {"a": Counted(Ranks(5, 6)), "b": Counted(Ranks(4, 7)), "c": SvdProjection(4)}
admm = Admm(weights, sets, rho=2.0)
figures = {}
for _ in range(5):
    figures = admm.start_epoch()
    for _ in range(8):
        loss = sum((w - targets[n]).square().sum() for n, w in weights.items()) + admm.penalty()
        gradients = torch.autograd.grad(loss, list(weights.values()))
        for weight, gradient in zip(weights.values(), gradients):
            if world > 1:
                dist.all_reduce(gradient)
                gradient /= world
            with torch.no_grad():
                weight -= 0.1 * gradient
torch.save({name: weight.detach() for name, weight in weights.items()}, folder / f"{world}-{rank}.pt")
(folder / f"{world}-{rank}.json").write_text(json.dumps({"figures": figures, "projected": projected}))
if world > 1:
    dist.destroy_process_group()
"""


def start(folder: Path, rank: int, world: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "train")])}
    arguments = [str(folder), str(rank), str(world)]
    return subprocess.Popen([sys.executable, "-c", TRAINING, *arguments], env=environment)


def test_two_processes_are_one(tmp_path: Path) -> None:
    processes = [start(tmp_path, 0, 1), start(tmp_path, 0, 2), start(tmp_path, 1, 2)]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    runs = [(1, 0), (2, 0), (2, 1)]
    weights = [torch.load(tmp_path / f"{world}-{rank}.pt") for world, rank in runs]
    logs = [json.loads((tmp_path / f"{world}-{rank}.json").read_text()) for world, rank in runs]
    for name, alone in weights[0].items():
        # Averaging two equal gradients is exact in binary.
        assert torch.equal(weights[1][name], alone)
        assert torch.equal(weights[2][name], alone)
    assert logs[0]["figures"] == logs[1]["figures"] == logs[2]["figures"]
    # Four epochs after the start, each kernel by one of the two processes.
    assert sorted(logs[1]["projected"] + logs[2]["projected"]) == sorted(logs[0]["projected"])
    assert logs[1]["projected"] and logs[2]["projected"]
