"""What every backend can do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import onnx
from polygraphy.backend.base import BaseRunner

from tdc_deploy.errors import TdcError
from tdc_deploy.profiling.measure import Effort, Feeds
from tdc_deploy.types import Timing


class Backend(Protocol):
    """Loads models and measures them; stateless, so that it can be part of a key."""

    def describe(self) -> dict[str, str]:
        """All that changes a latency besides the model: device, library versions, precision, threads."""
        ...

    def runner(self, model: onnx.ModelProto | Path) -> BaseRunner:
        """A Polygraphy runner, not yet active; several may be active at once without disturbing.

        What takes a build is built by this call, so that nothing is built while a runner is active.

        Raises:
            TdcError: the backend refuses the model.
        """
        ...

    def measure(self, model: onnx.ModelProto | Path, feeds: Feeds, effort: Effort) -> Timing:
        """The latency of a model at the shapes of `feeds`."""
        ...

    def measure_layers(
        self, models: Iterable[tuple[onnx.ModelProto, Feeds]], effort: Effort
    ) -> Iterator[Timing | TdcError]:
        """The latencies of single layers, in order, each inside as it would be in a network; for one
        that the backend refuses, its error.

        All are built before the first is measured.
        """
        ...
