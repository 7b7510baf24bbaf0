"""What a method plugs into the training loop: a term of the loss, or the loss itself."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor, nn

from tdc_train.training.order import Moment


class Regulariser(Protocol):
    """A term of the loss with a state of its own, such as ADMM's pull to the constraint sets."""

    def start_epoch(self) -> dict[str, float]:
        """Update the state, before an epoch's batches; return figures for the log."""
        ...

    def penalty(self) -> Tensor:
        """A scalar, added to the loss of each batch."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that the next epochs need, in types that `torch.load(weights_only=True)` reads."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        ...


class Alternation(Protocol):
    """What is trained in turn with the weights, such as a search's logits, and cuts the network."""

    def start_epoch(self, moment: Moment) -> dict[str, float]:
        """Prepare an epoch; return figures for the log."""
        ...

    def before_step(self) -> None:
        """Called before each step of the weights."""
        ...

    def hard(self) -> AbstractContextManager[None]:
        """The network as it would be cut now, for as long as the context lasts."""
        ...

    def cut(self) -> None:
        """Leave the network like that."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that the next epochs need, in types that `torch.load(weights_only=True)` reads."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        ...


class Loss(Protocol):
    """What a batch costs, such as cross-entropy or distillation."""

    def __call__(self, model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss over the batch, a scalar, and the logits [N, classes].

        Args:
            model: what is trained; called here, once, on the images.
            images: [N, C, H, W].
            targets: [N] class numbers, or [N, classes] probabilities (mixup).
        """
        ...
