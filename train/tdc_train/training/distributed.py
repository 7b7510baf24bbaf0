"""Several processes, as torchrun starts them: who am I, and what do all agree on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tdc_deploy.errors import TdcError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """A process among all."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this is the one process that writes and prints."""
        return self.rank == 0

    def total(self, value: Tensor) -> Tensor:
        """The sum over the processes."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def agreed(self, value: T) -> T:
        """What the first process has, of plain values and tensors; the others wait for it."""
        if self.size == 1:
            return value
        held = [value if self.leads else None]
        dist.broadcast_object_list(held, src=0, device=self.device)
        return held[0]  # type: ignore[return-value]

    def share(self, model: nn.Module) -> None:
        """Give every process the first one's weights and statistics."""
        self.share_all(model.state_dict().values())

    def share_all(self, values: Iterable[Tensor]) -> None:
        """Give every process the first one's values, in place."""
        if self.size > 1:
            for value in values:
                dist.broadcast(value, src=0)

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model, with gradients averaged over the processes.

        BatchNorm's statistics stay those of each process's part of the batch; `share` after an epoch
        keeps the first process's.
        """
        if self.size == 1:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False)


@contextmanager
def joined(device: str = "auto") -> Iterator[World]:
    """The processes that torchrun started, or this one alone.

    Args:
        device: cpu, cuda, or auto (cuda where there is a GPU).

    Raises:
        TdcError: no such device.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    chosen = _device(device)
    if size == 1:
        yield World(device=chosen)
        return
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield World(rank, size, chosen)
    finally:
        dist.destroy_process_group()


def _device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise TdcError(f"device {name!r}", expected="auto, cpu or cuda")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise TdcError("no GPU that torch can use here", fix="--device cpu")
    if name == "cpu" or not there:
        return torch.device("cpu")
    index = int(os.environ.get("LOCAL_RANK", 0))
    if index >= torch.cuda.device_count():
        raise TdcError(
            f"process {index} of this machine has no GPU of its own",
            expected=f"at most {torch.cuda.device_count()} processes (torchrun --nproc-per-node)",
        )
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    return device
