"""Images that are gone through more than once, without all being in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor

from tdc_deploy.errors import TdcError


def check_repeatable(batches: Iterable[Tensor]) -> None:
    """Raise TdcError if the batches can be gone through only once."""
    if isinstance(batches, Iterator):
        raise TdcError(
            f"batches are a {type(batches).__name__}, which is empty after one pass",
            expected="a list, a DataLoader or another collection that can be iterated again",
        )
