"""What libraries raise on files that pass the checker and make no sense all the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tdc_deploy.errors import TdcError

# onnx, onnx-graphsurgeon and NumPy have no type of error for it. RuntimeError has RecursionError in it.
_SENSELESS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@contextmanager
def understanding(path: Path) -> Iterator[None]:
    """Turn what reading the model in `path` trips over into a TdcError."""
    try:
        yield
    except _SENSELESS as error:
        lines = str(error).strip().splitlines() or [""]
        raise TdcError(
            f"{path} cannot be understood: {type(error).__name__}: {lines[0]}",
            expected="an ONNX model that is whole and valid",
            fix="export it again",
        ) from error
