"""The search itself: selection logits and weights that are trained in turn.

Source: Xiao et al., "HALOC: Hardware-aware automatic low-rank compression for compact neural networks"
(AAAI 2023). As there: Tucker-2 candidates per layer, p = softmax(α), the expected measured time in the
loss, α by validation and weights by training batches in turn, feature maps pulled to those of the network
as it came. Different, because schedules were not published, or for the reason given:

- Candidates share a layer's weights, and a mixture is one convolution (`mixture`); HALOC keeps chains.
- The weights' steps see one candidate of each layer, drawn by p. Under the mixture itself they could undo a
  small share by growing what it scales, and the share would then cost nothing until it is cut.
- The logits' steps see the mixture by plain softmax. Gumbel noise estimates that gradient by drawing; here
  the exact one costs the same one convolution.
- The temperature falls, and a small entropy penalty rises, so that the last epochs train the network that
  will be cut out.
- The budget is a constraint with a multiplier (`budget`), and the choice is repaired to meet it (`choose`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from tdc_deploy.errors import TdcError
from tdc_deploy.types import Candidate
from tdc_train.data.base import ImageSet
from tdc_train.recipe import StageSpec
from tdc_train.search.budget import BudgetPenalty, expected_time, mean_entropy
from tdc_train.search.mixture import MixedKernel
from tdc_train.search.space import Space, space_to_plain
from tdc_train.training.order import CHOICE, DRAWN, Moment
from tdc_train.training.protocols import Loss

# Adam's moments for the logits (Liu, Simonyan and Yang, "DARTS", ICLR 2019).
LOGITS_BETAS = (0.5, 0.999)


class RankSearch:
    """An `Alternation`: before each step of the weights, one of the logits on validation images.

    Args:
        model: what is trained: dense, in training mode.
        space: what is chosen from, with its times.
        loss: of the weights and, with the budget, of the logits.
        images: what the logits are trained on.
        steps: of the weights in an epoch.
    """

    def __init__(
        self,
        model: nn.Module,
        space: Space,
        spec: StageSpec,
        loss: Loss,
        images: ImageSet,
        steps: int,
    ) -> None:
        self._model, self.space, self._images, self._steps = model, space, images, steps
        self._spec, self._search = spec, spec.search
        self._under = _Under(model, loss)
        modules = dict(model.named_modules())
        self._kernels = {
            path: MixedKernel(modules[path].weight, candidates)  # type: ignore[arg-type]
            for path, candidates in space.candidates.items()
        }
        device = next(model.parameters()).device
        self._device = device
        self.logits = {
            path: torch.zeros(len(c), dtype=torch.float64, device=device, requires_grad=True)
            for path, c in space.candidates.items()
        }
        self._optimizer = torch.optim.Adam(
            self.logits.values(), lr=self._search.lr, betas=LOGITS_BETAS
        )
        self._time = expected_time(space, device)
        self._penalty = BudgetPenalty(self._search.budget, self._search.pressure)
        self._chosen: dict[str, int] | None = None
        self._begin(Moment(0, 0, 0))

    def start_epoch(self, moment: Moment) -> dict[str, float]:
        """Take the bases anew, and the epoch's random numbers; figures as the epoch finds them."""
        for kernel in self._kernels.values():
            kernel.refresh()
        self._begin(moment)
        with torch.no_grad():
            shares = self.shares()
            return {
                "search_time": max(0.0, float(self._time(shares))),
                "search_entropy": float(mean_entropy(shares)),
                "search_multiplier": self._penalty.multiplier,
            }

    def before_step(self) -> None:
        """A step of the logits, where it is their turn, and a choice of what the weights will see."""
        self._at = self._moment.epoch + self._done / self._steps
        if self._at >= self._search.warmup and self._done % self._search.every == 0:
            self._step_logits()
        self._done += 1

    def loss(self, model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The weights' `Loss`: under one drawn candidate of each layer, or under the mixture."""
        if model is not self._model:
            raise TdcError("a rank search of a wrapped model", expected="one process")
        with torch.no_grad():
            shares = self.shares()
        if self._search.paths == "sample":
            shares = {path: self._drawn(p) for path, p in shares.items()}
        kernels = {path: kernel.mixed(shares[path]) for path, kernel in self._kernels.items()}
        return self._loss_under(kernels, images, targets)

    def shares(self) -> dict[str, Tensor]:
        """Module path → the candidates' shares p, float64, at the temperature of the moment."""
        heat = self._temperature()
        return {path: torch.softmax(alpha / heat, 0) for path, alpha in self.logits.items()}

    @torch.no_grad()
    def final_shares(self) -> dict[str, Tensor]:
        """The shares at the last temperature."""
        last = self._search.final_temperature
        return {path: torch.softmax(alpha / last, 0) for path, alpha in self.logits.items()}

    def likeliest(self) -> dict[str, Candidate]:
        """Module path → the candidate of the largest logit."""
        return {
            path: candidates[int(self.logits[path].argmax())]
            for path, candidates in self.space.candidates.items()
        }

    def logits_loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """What a step of the logits makes smaller: a scalar, differentiable in `logits`."""
        shares = self.shares()
        kernels = {
            # The weights rest.
            path: kernel.mixed(shares[path], kernel.weight.detach())
            for path, kernel in self._kernels.items()
        }
        # BatchNorm normalises by the batch, but its statistics are the training images'.
        kept = {f"model.{name}": buffer.clone() for name, buffer in self._model.named_buffers()}
        task, _ = self._loss_under(kernels, images, targets, kept)
        entropy = self._search.entropy * self._progress() * mean_entropy(shares)
        return task.double() + self._penalty(self._time(shares)) + entropy

    @contextmanager
    def hard(self) -> Iterator[None]:
        """The model with each layer cut to the chosen candidate: until there is a choice, the likeliest."""
        kept = {path: kernel.weight.detach().clone() for path, kernel in self._kernels.items()}
        self.cut()
        try:
            yield
        finally:
            with torch.no_grad():
                for path, kernel in self._kernels.items():
                    kernel.weight.copy_(kept[path])

    def cut(self) -> None:
        """Cut each layer, for good."""
        for path, kernel in self._kernels.items():
            likeliest = int(self.logits[path].argmax())
            kernel.truncate(likeliest if self._chosen is None else self._chosen[path])

    def fix(self, selection: Mapping[str, Candidate]) -> None:
        """Choose; `selection` has each layer's candidate, as it is in the space."""
        self._chosen = {
            path: candidates.index(selection[path])
            for path, candidates in self.space.candidates.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """All that the next epochs need, in types that `torch.load(weights_only=True)` reads."""
        return {
            "logits": {path: alpha.detach().clone() for path, alpha in self.logits.items()},
            "optimizer": self._optimizer.state_dict(),
            "multiplier": self._penalty.multiplier,
            "space": space_to_plain(self.space),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        with torch.no_grad():
            for path, alpha in self.logits.items():
                alpha.copy_(state["logits"][path])
        self._optimizer.load_state_dict(state["optimizer"])
        self._penalty.multiplier = state["multiplier"]

    def _loss_under(
        self,
        kernels: Mapping[str, Tensor],
        images: Tensor,
        targets: Tensor,
        buffers: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        taken = {f"model.{path}.weight": kernel for path, kernel in kernels.items()}
        found: tuple[Tensor, Tensor] = functional_call(
            self._under, {**taken, **(buffers or {})}, (images, targets)
        )
        return found

    def _begin(self, moment: Moment) -> None:
        self._moment, self._done, self._at = moment, 0, float(moment.epoch)
        self._random = moment.random(DRAWN)
        self._batches = _again_and_again(moment, len(self._images), self._spec.batch)

    def _step_logits(self) -> None:
        images, targets = self._images.batch(next(self._batches))
        layout = torch.channels_last if self._spec.channels_last else torch.contiguous_format
        images = images.to(self._device, memory_format=layout)
        loss = self.logits_loss(images, targets.to(self._device))
        if not bool(torch.isfinite(loss)):
            raise TdcError(
                f"the search's loss became NaN or infinite in epoch {self._moment.epoch + 1}",
                fix="lower the learning rate of the weights or of the logits",
            )
        found = torch.autograd.grad(loss, list(self.logits.values()))
        for alpha, gradient in zip(self.logits.values(), found, strict=True):
            alpha.grad = gradient
        self._optimizer.step()
        with torch.no_grad():
            time = float(self._time(self.shares()))
        self._penalty.update(time, self._search.every / self._steps)

    def _drawn(self, shares: Tensor) -> Tensor:
        """One candidate, drawn by the shares, as shares."""
        edges = np.cumsum(shares.cpu().numpy())
        index = int(np.searchsorted(edges, self._random.random() * edges[-1], side="right"))
        one = torch.zeros_like(shares)
        one[min(index, len(edges) - 1)] = 1
        return one

    def _progress(self) -> float:
        """From 0 at the end of the warmup to 1 at the end of the stage."""
        left = self._spec.epochs - self._search.warmup
        return min(max((self._at - self._search.warmup) / left, 0.0), 1.0)

    def _temperature(self) -> float:
        first, last = self._search.temperature, self._search.final_temperature
        return math.exp(
            (1 - self._progress()) * math.log(first) + self._progress() * math.log(last)
        )


class _Under(nn.Module):
    """A loss of a model as a module, which `functional_call` can give other kernels."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and the network's output."""
        return self._loss(self.model, images, targets)


def _again_and_again(moment: Moment, images: int, batch: int) -> Iterator[Tensor]:
    """Indices of batches of the images, all of them in random order before any comes again."""
    size = min(batch, images)
    random = moment.random(CHOICE)
    while True:
        order = torch.from_numpy(random.permutation(images))
        for start in range(0, images - size + 1, size):
            yield order[start : start + size]
