"""What a report shows: plain values, gathered by the stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tdc_deploy.tucker import chain_cost
from tdc_deploy.types import Candidate, ConvLayer, Ratio


@dataclass(frozen=True)
class Point:
    """A whole network: its time as a share of the source's, and its relative output error."""

    ratio: float
    error: float


@dataclass(frozen=True)
class TrialReport:
    """A network that was tried while planning: what was predicted before, and what was measured."""

    predicted: Point
    measured: Point


@dataclass(frozen=True)
class TradeOff:
    """The least errors that are predicted over time, fastest first, and the trials in order."""

    frontier: tuple[Point, ...]
    trials: tuple[TrialReport, ...]


@dataclass(frozen=True)
class LayerReport:
    """One layer before and after, timed alone; None where it is not known.

    `why` says why it stays as it is.
    """

    name: str
    layer: ConvLayer | None
    before: Candidate | None
    after: Candidate | None
    before_ms: float | None
    after_ms: float | None
    why: str = ""

    @property
    def changed(self) -> bool:
        """True if the plan decomposes it."""
        return (
            self.before is not None
            and self.after is not None
            and self.before.form != self.after.form
        )

    @property
    def came_compressed(self) -> bool:
        """True if it came in as a chain."""
        return self.before is not None and self.before.form != "dense"

    @property
    def macs(self) -> tuple[int, int]:
        """Multiply-accumulates before and after."""
        return self._costs("macs")

    @property
    def params(self) -> tuple[int, int]:
        """Parameters before and after, biases not counted."""
        return self._costs("params")

    def _costs(self, what: str) -> tuple[int, int]:
        if self.layer is None or self.before is None or self.after is None:
            return 0, 0
        forms = (self.before, self.after)
        before, after = (getattr(chain_cost(self.layer, form), what) for form in forms)
        return before, after


@dataclass(frozen=True)
class FormReport:
    """One form of the network that was built, alone in a file or an engine."""

    name: str
    time_ms: float
    ratio: float
    error: float
    precision: str


@dataclass(frozen=True)
class Outcome:
    """The whole network before and after. A plan's time has no interval.

    decision: as in `Artifact`, where source is the refused; engine, where that is an engine of the source;
    or planned. top1, accuracies: shares.
    """

    decision: str
    reason: str
    warnings: tuple[str, ...]
    before_ms: float
    after_ms: float
    ratio: float
    interval: Ratio | None
    predicted_ratio: float | None
    error: float
    max_error: float
    latency_budget: float | None
    verified: bool
    samples: int
    top1_agreement: float | None = None
    accuracy_before: float | None = None
    accuracy_after: float | None = None

    @property
    def shipped(self) -> bool:
        """False if what was made was refused."""
        return self.decision != "source"


@dataclass(frozen=True)
class Report:
    """Everything on the page. Files are bare names; sizes are in bytes, None where nothing was written.

    data_aware: the layers were decomposed for calibration data, and lose energy of their outputs.
    """

    source: str
    output: str
    outcome: Outcome
    source_bytes: int
    output_bytes: int | None
    layers: tuple[LayerReport, ...]
    trade_off: TradeOff | None
    forms: tuple[FormReport, ...]
    environment: Mapping[str, str]
    options: Mapping[str, str]
    data_aware: bool = False

    @property
    def tried(self) -> bool:
        """True if there is another network than the source, shipped or not."""
        return self.outcome.shipped or any(x.changed or x.came_compressed for x in self.layers)
