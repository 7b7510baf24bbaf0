"""The training loop of one stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tdc_deploy.errors import TdcError
from tdc_train.data.base import ImageSet
from tdc_train.recipe import StageSpec
from tdc_train.training.ahead import read_ahead
from tdc_train.training.checkpoint import is_finite
from tdc_train.training.distributed import World
from tdc_train.training.ema import Ema
from tdc_train.training.mixup import mixed
from tdc_train.training.order import MIXUP, Moment, epoch_batches
from tdc_train.training.protocols import Alternation, Loss, Regulariser
from tdc_train.training.schedule import make_optimizer, rate

if TYPE_CHECKING:
    from tdc_train.training.hold import Hold

# Looking at the loss makes a GPU's queue run dry.
CHECK_EVERY = 50
# Batches that are read while a GPU computes.
READ_AHEAD = 3

Watch = Callable[[int, int], None]


@dataclass(frozen=True)
class Method:
    """How a stage trains: its loss, with ADMM what pulls at the weights, what they are held in, and in a
    search what takes turns with them.
    """

    loss: Loss
    regulariser: Regulariser | None = None
    hold: Hold | None = None
    alternation: Alternation | None = None


class Trainer:
    """A model with all that changes while it is trained."""

    def __init__(
        self,
        model: nn.Module,
        spec: StageSpec,
        method: Method,
        images: ImageSet,
        classes: int,
        world: World,
    ) -> None:
        self.model = model
        self._spec = spec
        self._method = method
        self._images = images
        self._classes = classes
        self._world = world
        factor = world.size if spec.per_process else 1
        self._batch = spec.batch * factor
        self._lr = spec.optimizer.lr * factor
        check_batch(spec, len(images), world)
        self._optimizer = make_optimizer(spec.optimizer, model, self._lr)
        half = spec.amp and world.device.type == "cuda"
        self._scaler = torch.amp.GradScaler(world.device.type, enabled=half)
        self.ema = Ema(model, spec.ema) if spec.ema else None
        self._wrapped = world.wrapped(model)

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return len(self._images) // self._batch

    @property
    def regulariser(self) -> Regulariser | None:
        """What pulls at the weights."""
        return self._method.regulariser

    @property
    def alternation(self) -> Alternation | None:
        """What is trained in turn with the weights."""
        return self._method.alternation

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model as it is evaluated: by the moving average if there is one, projected to the sets that
        hold it; in a search, cut.
        """
        alternation = self.alternation
        with (
            nullcontext() if self.ema is None else self.ema.applied(self.model),
            self._held(),
            nullcontext() if alternation is None else alternation.hard(),
        ):
            yield

    def finish(self) -> None:
        """Leave the model with the weights that are evaluated."""
        if self.ema is not None:
            self.model.load_state_dict(self.ema.average)
        if self._method.hold is not None:
            self._method.hold.finish()
        if self._method.alternation is not None:
            self._method.alternation.cut()

    def epoch(self, moment: Moment, watch: Watch) -> dict[str, float]:
        """Train one epoch; return its figures.

        Raises:
            TdcError: the loss or a weight is not finite any more.
        """
        started = time.perf_counter()
        moment.seed_torch(self._world.rank)
        mixing = moment.random(MIXUP, self._world.rank)
        regulariser = self._method.regulariser
        figures = {} if regulariser is None else regulariser.start_epoch()
        alternation = self._method.alternation
        if alternation is not None:
            figures |= alternation.start_epoch(moment)
        self._wrapped.train()
        # Loss and penalty, kept on the device.
        sums = torch.zeros(2, dtype=torch.float64, device=self._world.device)
        batches = epoch_batches(
            moment, len(self._images), self._batch, self._world.rank, self._world.size
        )
        on_gpu = self._world.device.type == "cuda"
        read = read_ahead(batches, self._read, READ_AHEAD if on_gpu else 0)
        for i, found in enumerate(read):
            images, targets = self._placed(*found)
            if self._spec.mixup:
                images, targets = mixed(images, targets, self._classes, self._spec.mixup, mixing)
            lr = self._set_rate(moment.epoch + i / self.steps)
            if alternation is not None:
                alternation.before_step()
            sums += self._step(images, targets)
            if i % CHECK_EVERY == 0 or i + 1 == self.steps:
                self._check(sums, moment)
                watch(i + 1, self.steps)
        if not is_finite(self.model):
            raise _not_finite("a weight", moment)
        self._world.share(self.model)
        if self.ema is not None:
            # Of BatchNorm's statistics each process averaged its own.
            self._world.share_all(self.ema.average.values())
        loss, penalty = (self._world.total(sums) / self._world.size / self.steps).tolist()
        if regulariser is not None:
            figures["penalty"] = penalty
        seconds = time.perf_counter() - started
        return {"loss": loss, "lr": lr, "seconds": round(seconds, 3), **figures}

    def _read(self, part: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        images, targets = self._images.batch(*part)
        if self._world.device.type == "cuda":
            return images.pin_memory(), targets.pin_memory()
        return images, targets

    def _placed(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        device = self._world.device
        layout = torch.channels_last if self._spec.channels_last else torch.contiguous_format
        return (
            images.to(device, non_blocking=True, memory_format=layout),
            targets.to(device, non_blocking=True),
        )

    def _set_rate(self, epoch: float) -> float:
        lr = self._lr * rate(self._spec.schedule, epoch, self._spec.epochs)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        return lr

    def _step(self, images: Tensor, targets: Tensor) -> Tensor:
        """One step; returns loss and penalty, float64 [2]."""
        device = self._world.device.type
        half = torch.float16 if device == "cuda" else torch.bfloat16
        with self._held():
            with torch.autocast(device, half, enabled=self._spec.amp):
                loss, _ = self._method.loss(self._wrapped, images, targets)
            regulariser = self._method.regulariser
            penalty = loss.new_zeros(()) if regulariser is None else regulariser.penalty()
            self._optimizer.zero_grad(set_to_none=True)
            self._scaler.scale(loss.float() + penalty).backward()
        if self._method.hold is not None:
            self._method.hold.after_backward()
        if self._spec.clip:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self._spec.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._method.hold is not None:
            self._method.hold.after_step()
        if self.ema is not None:
            self.ema.update(self.model)
        return torch.stack((loss.detach().double(), penalty.detach().double()))

    def _held(self) -> AbstractContextManager[None]:
        hold = self._method.hold
        return nullcontext() if hold is None else hold.projected()

    def _check(self, sums: Tensor, moment: Moment) -> None:
        # Over all processes, so that all stop.
        if not bool(torch.isfinite(self._world.total(sums)).all()):
            raise _not_finite("the loss", moment)

    def state_dict(self) -> dict[str, Any]:
        """All that the next epochs need, the weights among it."""
        regulariser, alternation = self.regulariser, self._method.alternation
        return {
            # Cloned: `averaged` writes into the model's own.
            "weights": {name: t.clone() for name, t in self.model.state_dict().items()},
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "ema": None
            if self.ema is None
            else {"average": self.ema.average, "steps": self.ema.steps},
            "regulariser": None if regulariser is None else regulariser.state_dict(),
            "hold": None if self._method.hold is None else self._method.hold.state_dict(),
            "alternation": None if alternation is None else alternation.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.model.load_state_dict(state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.steps = state["ema"]["steps"]
            for name, value in state["ema"]["average"].items():
                self.ema.average[name].copy_(value)
        if self._method.regulariser is not None:
            self._method.regulariser.load_state_dict(state["regulariser"])
        if self._method.hold is not None:
            self._method.hold.load_state_dict(state["hold"])
        if self._method.alternation is not None:
            self._method.alternation.load_state_dict(state["alternation"])


def check_batch(spec: StageSpec, images: int, world: World) -> None:
    """Raise TdcError if a stage's batch is none of these images, or cannot be shared."""
    batch = spec.batch * (world.size if spec.per_process else 1)
    if batch > images:
        raise TdcError(
            f"stage {spec.name!r} has a batch of {batch} of {images} training images",
            expected="at most all of them",
        )
    if batch % world.size:
        raise TdcError(
            f"stage {spec.name!r} has a batch of {batch} for {world.size} processes",
            expected="a multiple of their number",
        )


def _not_finite(what: str, moment: Moment) -> TdcError:
    has_checkpoint = moment.stage or moment.epoch
    go_on = "; --resume takes that, from the last good checkpoint" if has_checkpoint else ""
    return TdcError(
        f"{what} became NaN or infinite in epoch {moment.epoch + 1}",
        fix=f"lower the learning rate, warm it up, or clip the gradient{go_on}",
    )
