"""Read batches while the last ones are computed on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


def read_ahead(keys: Iterable[Key], read: Callable[[Key], Value], depth: int) -> Iterator[Value]:
    """`read` of each key in order, up to `depth` of them before they are asked for, by one thread.

    With a depth of 0 the caller reads: where the CPU computes, a second thread only competes.
    """
    if not depth:
        yield from map(read, keys)
        return
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[Value]] = deque()
        for key in keys:
            waiting.append(pool.submit(read, key))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
