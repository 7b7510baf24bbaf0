"""The builder's progress on our bar, and Ctrl-C that ends a build cleanly."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from tdc_deploy.progress import Progress


class Cancellation:
    """Set by Ctrl-C. TensorRT must not see an exception from a callback: it is asked instead."""

    def __init__(self) -> None:
        self.wanted = False

    @contextmanager
    def on_ctrl_c(self) -> Iterator[None]:
        """Within it, the first Ctrl-C only sets `wanted`; KeyboardInterrupt is raised at the end.

        In other threads, which get no signals, nothing is changed.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def remember(_number: int, _frame: FrameType | None) -> None:
            self.wanted = True

        before = signal.signal(signal.SIGINT, remember)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
            if self.wanted:
                raise KeyboardInterrupt


def make_monitor(trt: Any, progress: Progress, cancellation: Cancellation) -> Any:
    """An IProgressMonitor (TensorRT 10 and newer) that shows the outermost phase."""

    class BuildMonitor(trt.IProgressMonitor):  # type: ignore[misc]  # known only at run time
        """Phases nest: an inner one names its parent. Callbacks may come from several threads."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}
            self._lock = threading.Lock()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                with self._lock:
                    self._steps[phase_name] = num_steps
                progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                total = self._steps.get(phase_name)
            if total is not None:
                progress(phase_name, step + 1, total)
            return not cancellation.wanted

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                total = self._steps.pop(phase_name, None)
            if total is not None:
                progress(phase_name, total, total)

    return BuildMonitor()
