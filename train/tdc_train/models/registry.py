"""Networks by name."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from torch import nn

from tdc_deploy.errors import TdcError
from tdc_train.models.densenet import densenet121, densenet201
from tdc_train.models.resnet import resnet18, resnet34, resnet50
from tdc_train.models.resnet_cifar import resnet20, resnet32, resnet56
from tdc_train.models.vgg import vgg16_bn

MODELS: dict[str, Callable[..., nn.Module]] = {
    maker.__name__: maker
    for maker in (
        resnet20,
        resnet32,
        resnet56,
        resnet18,
        resnet34,
        resnet50,
        vgg16_bn,
        densenet121,
        densenet201,
    )
}


def make_model(name: str, **options: Any) -> nn.Module:
    """A network with random weights.

    Args:
        name: one of `MODELS`, or `module:factory`, of which the module may also lie in the
            current folder.
        options: passed to its constructor.

    Raises:
        TdcError: no such network, or it does not take the options.
    """
    maker = _imported(name) if ":" in name else MODELS.get(name)
    if maker is None:
        raise TdcError(f"model {name!r}", expected=f"module:factory or one of {', '.join(MODELS)}")
    try:
        model = maker(**options)
    except (TypeError, ValueError) as error:
        raise TdcError(
            f"model {name!r} with {options}: {error}", fix="mend [model.options]"
        ) from error
    if not isinstance(model, nn.Module):
        raise TdcError(f"{name} makes {type(model).__name__}", expected="a torch.nn.Module")
    return model


def _imported(name: str) -> Callable[..., nn.Module]:
    module, _, attribute = name.partition(":")
    # What `python -m` would find, also where a console script was started.
    if (here := os.getcwd()) not in sys.path:  # noqa: PTH109
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise TdcError(
            f"model {name!r}: {error}", expected="module:factory that can be imported"
        ) from None
    if not callable(found):
        raise TdcError(f"{name} is no function", expected="module:factory")
    factory: Callable[..., nn.Module] = found
    return factory
