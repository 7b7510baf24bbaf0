"""Register the plugin library with TensorRT, before an engine that needs it is built or loaded."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path
from typing import Any

from tdc_deploy.errors import TdcError
from tdc_deploy.plugin.registry import CREATORS

_LOCK = threading.Lock()


def register_plugin(tensorrt: Any, library: Path) -> None:
    """Load the library into this process's plugin registry, unless its creators are there.

    Raises:
        TdcError: no such file, or TensorRT finds no creators in it.
    """
    if not library.is_file():
        raise TdcError(f"no plugin library at {library}", fix="build it: tdc-deploy plugin build")
    with _LOCK:  # registering twice leaves a stale entry
        registry = tensorrt.get_plugin_registry()
        if _registered(registry):
            return
        try:
            if hasattr(registry, "load_library"):
                registry.load_library(str(library.resolve()))
            else:  # TensorRT 8.5: the library registers itself
                ctypes.CDLL(str(library.resolve()), ctypes.RTLD_GLOBAL)
        except (OSError, RuntimeError) as error:
            raise TdcError(f"{library} cannot be loaded: {error}") from None
        if not _registered(registry):
            raise TdcError(
                f"TensorRT {tensorrt.__version__} finds no {' or '.join(CREATORS)} in {library}",
                fix="build the plugin for this TensorRT: tdc-deploy plugin build",
            )


def _registered(registry: Any) -> bool:
    creators = (
        registry.all_creators if hasattr(registry, "all_creators") else registry.plugin_creator_list
    )
    # Embedded plugins have the same names, in another namespace.
    names = {creator.name for creator in creators if not creator.plugin_namespace}
    return set(CREATORS) <= names
