"""BatchNorm's statistics, measured anew after the weights in front of it changed."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tdc_deploy.errors import TdcError
from tdc_train.modes import evaluating


@torch.no_grad()
def re_estimate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set running means and variances to their averages over batches of images [n, C, H, W].

    All else is in eval mode. If a batch fails, the statistics are as they were.

    Raises:
        TdcError: no images.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    kept = [{name: b.clone() for name, b in norm.named_buffers()} for norm in norms]
    momenta = [norm.momentum for norm in norms]
    try:
        with evaluating(model):
            _average(model, norms, batches)
    except BaseException:
        for norm, buffers in zip(norms, kept, strict=True):
            norm.load_state_dict(buffers, strict=False)
        raise
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _average(model: nn.Module, norms: list[_BatchNorm], batches: Iterable[Tensor]) -> None:
    for norm in norms:
        norm.reset_running_stats()
        # A plain average over the batches.
        norm.momentum = None
        norm.train()
    seen = 0
    for images in batches:
        model(images)
        seen += len(images)
    if not seen:
        raise TdcError("no images to re-estimate BatchNorm on", expected="at least one")
