"""State dicts of a dense model and of its chains, each loaded into the other."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tdc_deploy.errors import TdcError
from tdc_train.conversion import factorised
from tdc_train.layers import Init


@torch.no_grad()
def dense_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of the dense model that a model with chains approximates: kernels reconstructed.

    It loads into the model that the plan was applied to. Other entries are the model's own tensors.
    """
    state: dict[str, Tensor] = dict(model.state_dict())
    for path, layer in factorised(model, every_path=True).items():
        state = {key: value for key, value in state.items() if not key.startswith(f"{path}.")}
        state[f"{path}.weight"] = layer.reconstructed()
        if layer.bias is not None:
            state[f"{path}.bias"] = layer.bias.detach()
    return state


@torch.no_grad()
def load_dense_state_dict(
    model: nn.Module, state: Mapping[str, Tensor], init: Init = "hosvd"
) -> None:
    """Load a dense model's state dict into a model with chains, whose kernels are decomposed.

    Raises:
        TdcError: a tensor is missing, left over or of another shape; the model is then unchanged.
    """
    chains = factorised(model, every_path=True)
    expected = {key: value.shape for key, value in dense_state_dict(model).items()}
    _check(expected, state)
    ordinary = {
        key: value
        for key, value in state.items()
        if not any(key in (f"{path}.weight", f"{path}.bias") for path in chains)
    }
    model.load_state_dict(ordinary, strict=False)
    for path, layer in chains.items():
        layer.take_dense(state[f"{path}.weight"], state.get(f"{path}.bias"), None, init)


def _check(expected: Mapping[str, torch.Size], state: Mapping[str, Tensor]) -> None:
    missing, unknown = (
        sorted(expected.keys() - state.keys()),
        sorted(state.keys() - expected.keys()),
    )
    if missing or unknown:
        problem = f"no {missing[0]!r}" if missing else f"{unknown[0]!r}, which the model lacks"
        raise TdcError(
            f"the state dict has {problem}",
            expected=f"the {len(expected)} tensors of the dense model",
        )
    for key, shape in expected.items():
        if state[key].shape != shape:
            raise TdcError(
                f"{key!r} has shape {tuple(state[key].shape)}", expected=str(tuple(shape))
            )
