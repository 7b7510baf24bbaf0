from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.runtime.plugin_library import register_plugin


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "plugin.so"
    path.touch()
    return path


def creators(*names: str, namespace: str = "") -> list[Any]:
    return [SimpleNamespace(name=name, plugin_namespace=namespace) for name in names]


def with_registry(**attributes: Any) -> Any:
    registry = SimpleNamespace(**attributes)
    return SimpleNamespace(get_plugin_registry=lambda: registry, __version__="10.9.0")


def test_the_library_is_loaded_into_the_registry_once(library: Path) -> None:
    loaded: list[str] = []
    known = creators("NMS")

    def load(path: str) -> None:
        loaded.append(path)
        known.extend(creators("TuckerConv", "TuckerConvAdd"))

    trt = with_registry(load_library=load, all_creators=known)
    register_plugin(trt, library)
    register_plugin(trt, library)
    assert loaded == [str(library)]


def test_embedded_plugins_of_the_same_names_are_not_the_librarys(library: Path) -> None:
    loaded: list[str] = []
    known = creators("TuckerConv", "TuckerConvAdd", namespace="tdc")

    def load(path: str) -> None:
        loaded.append(path)
        known.extend(creators("TuckerConv", "TuckerConvAdd"))

    register_plugin(with_registry(load_library=load, all_creators=known), library)
    assert loaded == [str(library)]


def test_a_library_that_registers_nothing_is_refused(library: Path) -> None:
    trt = with_registry(load_library=lambda _: None, all_creators=creators("TuckerConv"))
    with pytest.raises(TdcError, match=r"TensorRT 10\.9\.0 finds no TuckerConv or TuckerConvAdd"):
        register_plugin(trt, library)


def test_tensorrt_8_loads_it_as_any_library(library: Path) -> None:
    """It registers itself; an empty file is no library."""
    with pytest.raises(TdcError, match="cannot be loaded"):
        register_plugin(with_registry(plugin_creator_list=creators("NMS")), library)


def test_a_library_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TdcError, match="no plugin library at"):
        register_plugin(with_registry(), tmp_path / "plugin.so")
