"""The few calls of CUDA's runtime that running and timing an engine takes, through cuda-python."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tdc_deploy.errors import TdcError

# Older releases of cuda-python have the second name only.
_MODULES = ("cuda.bindings.runtime", "cuda.cudart")


class Cuda:
    """CUDA's runtime; every call raises on an error and returns its value alone.

    Raises:
        TdcError: cuda-python is not installed.
    """

    def __init__(self) -> None:
        self._runtime = _runtime()

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._runtime, name)

        def call(*arguments: Any) -> Any:
            code, *values = function(*arguments)
            if int(code) != 0:
                raise RuntimeError(f"{name}: {code}")
            return values[0] if values else None

        return call

    @property
    def names(self) -> Any:
        """The module, for its enumerations."""
        return self._runtime


def _runtime() -> Any:
    for name in _MODULES:
        try:
            return import_module(name)
        except ImportError:
            continue
    raise TdcError(
        "the Python package cuda-python is not installed",
        expected="cuda-python, which runs engines in CUDA graphs to time them",
        fix="pip install cuda-python",
    )
