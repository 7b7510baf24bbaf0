"""Progress of a build, Ctrl-C, and registering the plugin, with a TensorRT of plain classes."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from tdc_deploy.backends.tensorrt.monitor import Cancellation, make_monitor
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
