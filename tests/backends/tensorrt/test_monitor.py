"""Progress of a build, Ctrl-C, and registering the plugin, with a TensorRT of plain classes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tdc_deploy.backends.tensorrt.monitor import Cancellation, make_monitor
from tdc_deploy.backends.tensorrt.plugins import creator_names, load_plugin
from tdc_deploy.errors import TdcError

TRT: Any = SimpleNamespace(IProgressMonitor=object, __version__="10.9.0")


def test_the_outermost_phase_is_shown() -> None:
    seen: list[tuple[str, int, int]] = []
    monitor = make_monitor(TRT, lambda *step: seen.append(step), Cancellation())
    monitor.phase_start("Building", None, 2)
    monitor.phase_start("Timing", "Building", 50)
    assert monitor.step_complete("Timing", 0)
    assert monitor.step_complete("Building", 0)
    monitor.phase_finish("Timing")
    monitor.phase_finish("Building")
    assert seen == [("Building", 0, 2), ("Building", 1, 2), ("Building", 2, 2)]


def test_ctrl_c_stops_the_builder_and_is_raised_once_it_has_stopped() -> None:
    cancellation = Cancellation()
    monitor = make_monitor(TRT, lambda *_: None, cancellation)
    steps = []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), cancellation.on_ctrl_c():
        steps.append(monitor.step_complete("Building", 0))
        os.kill(os.getpid(), signal.SIGINT)
        steps.append(monitor.step_complete("Building", 1))
        raise TdcError("what the builder says when it was stopped")
    assert steps == [True, False]
    assert signal.getsignal(signal.SIGINT) is before


def test_without_ctrl_c_an_error_is_the_error() -> None:
    with pytest.raises(TdcError), Cancellation().on_ctrl_c():
        raise TdcError("of the builder")


def creators(*names: str) -> list[Any]:
    return [SimpleNamespace(name=name) for name in names]


def with_registry(**attributes: Any) -> Any:
    registry = SimpleNamespace(**attributes)
    return SimpleNamespace(get_plugin_registry=lambda: registry, __version__="10.9.0")


def test_the_library_is_loaded_into_the_registry() -> None:
    loaded: list[str] = []
    trt = with_registry(
        load_library=loaded.append, all_creators=creators("TuckerConv", "TuckerConvAdd", "NMS")
    )
    load_plugin(trt, Path("/p/plugin.so"))
    assert loaded == ["/p/plugin.so"]
    assert creator_names(trt.get_plugin_registry()) == {"TuckerConv", "TuckerConvAdd", "NMS"}


def test_a_library_that_registers_nothing_is_refused() -> None:
    trt = with_registry(load_library=lambda _: None, all_creators=creators("TuckerConv"))
    with pytest.raises(TdcError, match="no creator of TuckerConvAdd"):
        load_plugin(trt, Path("plugin.so"))


def test_tensorrt_8_loads_it_as_any_library() -> None:
    trt = with_registry(plugin_creator_list=creators("TuckerConv", "TuckerConvAdd"))
    with pytest.raises(TdcError, match="does not take the plugin library /nowhere/"):
        load_plugin(trt, Path("/nowhere/plugin.so"))
    load_plugin(trt, Path("libc.so.6"))
