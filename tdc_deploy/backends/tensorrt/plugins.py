"""Make the plugin library known to the TensorRT of this process."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from tdc_deploy.errors import TdcError
from tdc_deploy.graph.functions import OPERATORS


def load_plugin(trt: Any, library: Path) -> None:
    """Register the library's operators; loading it again changes nothing.

    Raises:
        TdcError: TensorRT does not take it.
    """
    registry = trt.get_plugin_registry()
    if hasattr(registry, "load_library"):
        registry.load_library(str(library))
    else:
        # TensorRT 8: the library registers itself when it is loaded.
        try:
            ctypes.CDLL(str(library))
        except OSError as error:
            raise _refused(trt, library, str(error)) from None
    missing = sorted(set(OPERATORS) - creator_names(registry))
    if missing:
        raise _refused(trt, library, f"no creator of {', '.join(missing)}")


def creator_names(registry: Any) -> set[str]:
    """The names of all plugins that are registered."""
    name = "all_creators" if hasattr(registry, "all_creators") else "plugin_creator_list"
    return {creator.name for creator in getattr(registry, name)}


def _refused(trt: Any, library: Path, reason: str) -> TdcError:
    return TdcError(
        f"TensorRT {trt.__version__} does not take the plugin library {library}: {reason}",
        expected="a library that was built for this major version of TensorRT",
        fix="build it again: tdc-deploy plugin build",
    )
