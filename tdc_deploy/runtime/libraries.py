"""The packages that only engines need, imported when the first engine is loaded."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Any

from tdc_deploy.errors import TdcError


def tensorrt() -> Any:
    """The module `tensorrt`."""
    return _imported("tensorrt", "tensorrt")


def pycuda_driver() -> Any:
    """The module `pycuda.driver`; never autoinit, which makes a context of its own."""
    return _imported("pycuda.driver", "pycuda")


def cuda_driver() -> Any:
    """CUDA's driver through cuda-python: streams, events, memory and graphs by address.

    `cuda.bindings.driver`; cuda-python before 11.8.5, or before 12.6, calls it `cuda.cuda`.
    """
    try:
        return _imported("cuda.bindings.driver", "cuda-python")
    except TdcError:
        with suppress(ImportError):
            return import_module("cuda.cuda")
        raise


def _imported(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise TdcError(
            f"{package} cannot be imported: {error}",
            expected="tensorrt, pycuda and cuda-python, on a machine with an NVIDIA GPU",
            fix=f"install it: pip install {package}; or load an .onnx artifact, which runs on the CPU",
        ) from None
