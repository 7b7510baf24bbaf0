"""What every backend can do."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import onnx
from polygraphy.backend.base import BaseRunner

from tdc_deploy.profiling.measure import Effort, Feeds
from tdc_deploy.types import Timing


class Backend(Protocol):
    """Loads models and measures them; stateless, so that it can be part of a key."""

    def describe(self) -> dict[str, str]:
        """All that changes a latency besides the model: device, library versions, precision, threads."""
        ...

    def runner(self, model: onnx.ModelProto | Path) -> BaseRunner:
        """A Polygraphy runner, not yet active; several may be active at once without disturbing.

        Raises:
            TdcError: the backend refuses the model.
        """
        ...

    def measure(self, model: onnx.ModelProto | Path, feeds: Feeds, effort: Effort) -> Timing:
        """The latency of a model at the shapes of `feeds`."""
        ...
