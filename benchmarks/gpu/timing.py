"""Time what a function puts on the GPU, with a cold L2 cache, under a CUDA graph. Needs torch.

The same for every competitor, and what tdc_time of the plugin does in C: a graph of [write a buffer of
twice the L2 cache; event; the work; event] is replayed, and what lies between the events is a sample.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

# Runs before the capture: compilation, cuDNN's search, allocations.
UNCAPTURED_RUNS = 3


@dataclass(frozen=True)
class Samples:
    """A summary of samples in microseconds."""

    median_us: float
    p10_us: float
    p90_us: float
    count: int


def summary(samples: Sequence[float]) -> Samples:
    """Median, 10th and 90th percentile."""
    tenths = statistics.quantiles(samples, n=10, method="inclusive")
    return Samples(statistics.median(samples), tenths[0], tenths[-1], len(samples))


class ColdTimer:
    """Times functions that launch on torch's current stream and do not wait."""

    def __init__(self, warmup: int = 20, samples: int = 100) -> None:
        self.warmup = warmup
        self.samples = samples
        cache: int = torch.cuda.get_device_properties(0).L2_cache_size
        self._scratch = torch.empty(2 * cache, dtype=torch.uint8, device="cuda")

    def time(self, run: Callable[[], object]) -> Samples:
        """The time of `run`, which is captured once."""
        replay = self._captured(run)
        for _ in range(self.warmup):
            replay()
        return summary([replay() for _ in range(self.samples)])

    def nothing(self) -> Samples:
        """The time between the two events with nothing between them, which all times include."""
        return self.time(lambda: None)

    def _captured(self, run: Callable[[], object]) -> Callable[[], float]:
        """A function that replays the work and returns its microseconds."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(UNCAPTURED_RUNS):
                run()
        torch.cuda.synchronize()
        # External events are recorded anew at each replay.
        before, after = (torch.cuda.Event(enable_timing=True, external=True) for _ in range(2))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self._scratch.zero_()
            before.record()
            result = run()
            after.record()

        def replay() -> float:
            graph.replay()
            torch.cuda.synchronize()
            return 1e3 * before.elapsed_time(after)

        replay.result = result  # type: ignore[attr-defined]  # its memory lives as long as the graph
        return replay
