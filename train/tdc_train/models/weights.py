"""Weights that came from elsewhere, such as torchvision's checkpoints."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tdc_deploy.errors import TdcError

# torchvision's oldest DenseNet files say norm.1 where its modules say norm1.
OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")


def load_weights(model: nn.Module, path: Path) -> None:
    """Put a state dict (a file of torch.save, without code in it) into a model.

    Raises:
        TdcError: no such file, damaged, or of another network.
    """
    state = _without_prefix(_state_dict(path))
    state = {OLD_DENSENET.sub(r"\1\2", name): value for name, value in state.items()}
    expected = model.state_dict()
    # Files from before torch 0.4.1 do not count batches.
    for name in expected:
        if name.endswith("num_batches_tracked"):
            state.setdefault(name, expected[name])
    for name in sorted(expected.keys() | state.keys()):
        if name not in expected or name not in state:
            whose = "the file" if name not in state else "the model"
            raise TdcError(f"{path}: {whose} has no {name}", expected="weights of the same network")
        if state[name].shape != expected[name].shape:
            raise TdcError(
                f"{path}: {name} is {tuple(state[name].shape)}",
                expected=f"{tuple(expected[name].shape)}",
            )
    model.load_state_dict(state)


def read_tensors(path: Path) -> Any:
    """What torch.save wrote there, without code in it.

    Raises:
        TdcError: no such file, or damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TdcError(f"no weights at {path}", expected="a file of torch.save") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TdcError(f"{path} cannot be read: {line}", expected="a state dict") from None


def _state_dict(path: Path) -> dict[str, Any]:
    found = read_tensors(path)
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise TdcError(f"{path} holds no state dict", expected="names with tensors")
    return found


def _without_prefix(state: dict[str, Any]) -> dict[str, Any]:
    """DistributedDataParallel puts `module.` in front of every name."""
    prefix = "module."
    if state and all(name.startswith(prefix) for name in state):
        return {name[len(prefix) :]: value for name, value in state.items()}
    return state
