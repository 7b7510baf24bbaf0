"""A bounded pool of execution contexts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tdc_deploy.runtime.execution import Execution, Shapes
from tdc_deploy.runtime.session import closed


class ExecutionPool:
    """Lends each execution context to one call at a time; makes them when first needed.

    One that last ran the shapes of the call is preferred, so that its graph can be replayed.
    """

    def __init__(self, make: Callable[[], Execution], limit: int) -> None:
        self._make = make
        self._limit = limit
        self._made = 0
        self._free: list[Execution] = []  # the longest unused first
        self._changed = threading.Condition()
        self._closed = False

    @contextmanager
    def lend(self, shapes: Shapes) -> Iterator[Execution]:
        """An execution context for one call; waits while all are lent.

        Raises:
            TdcError: the pool is closed.
        """
        execution = self._take(shapes) or self._make_one()
        try:
            yield execution
        finally:
            with self._changed:
                self._free.append(execution)
                self._changed.notify_all()

    def close(self) -> list[Execution]:
        """Wait until none is lent; return those that were made, for their release."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._free) == self._made)
            made, self._free, self._made = self._free, [], 0
        return made

    def _take(self, shapes: Shapes) -> Execution | None:
        """A free one, or None if the caller is to make one."""
        with self._changed:
            while True:
                if self._closed:
                    raise closed()
                fitting = [free for free in self._free if free.shapes == shapes]
                if not fitting and self._made < self._limit:
                    self._made += 1
                    return None
                if self._free:
                    chosen = (fitting or self._free)[0]
                    self._free.remove(chosen)
                    return chosen
                self._changed.wait()

    def _make_one(self) -> Execution:
        try:
            return self._make()
        except BaseException:
            with self._changed:
                self._made -= 1
                self._changed.notify_all()
            raise
