"""What a rank search may be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tdc_deploy.errors import TdcError
from tdc_deploy.types import check_number
from tdc_train.checks import check_choice, check_types, check_whole

Paths = Literal["sample", "mixture"]
BackendName = Literal["onnxruntime", "tensorrt"]
EnginePrecision = Literal["fp32", "tf32", "fp16"]


@dataclass(frozen=True)
class SearchSpec:
    """A rank search. HALOC's schedules were not published: all but the principle is chosen here.

    Args:
        budget: share of the dense network's measured time to reach, above 0 and up to 1.
        equal_ranks: Tucker-2 with r_in = r_out only (and SVD for 1x1), as HALOC has it.
        lr: Adam's rate for the logits; its first moment decays by 0.5, as in DARTS.
        every: steps of the weights for each step of the logits.
        warmup: epochs before the first of these, with all candidates alike.
        temperature, final_temperature: of the softmax, falling geometrically after the warmup, so that each
            layer ends at one candidate.
        entropy: weight of the mean entropy in nats, from 0 after the warmup to all of it at the end.
        pressure: how hard the budget is enforced: the penalty's second derivative in the log of the time.
        paths: what the weights' steps see: a candidate of each layer, drawn anew in each step, or the
            mixture, as the logits' steps do.
        backend: whose times count.
        precision: of TensorRT's engines.
        batch: images in a call of the network that is timed.
        threads: ONNX Runtime's within an operator; 0: its choice.
        store: the file of measurements; the user's cache if None.
    """

    budget: float = 0.7
    equal_ranks: bool = True
    lr: float = 0.05
    every: int = 1
    warmup: int = 1
    temperature: float = 1.0
    final_temperature: float = 0.1
    entropy: float = 0.05
    pressure: float = 20.0
    paths: Paths = "sample"
    backend: BackendName = "onnxruntime"
    precision: EnginePrecision = "fp32"
    batch: int = 1
    threads: int = 0
    store: str | None = None

    def __post_init__(self) -> None:
        check_types(self)
        check_number("budget", self.budget, positive=True)
        if self.budget > 1:
            raise TdcError(f"budget is {self.budget!r}", expected="a share above 0 and up to 1")
        for name in ("lr", "temperature", "final_temperature", "pressure"):
            check_number(name, getattr(self, name), positive=True)
        if self.final_temperature > self.temperature:
            raise TdcError(
                f"final_temperature is {self.final_temperature!r}",
                expected=f"at most the first, {self.temperature!r}",
            )
        check_number("entropy", self.entropy)
        for name, least in (("every", 1), ("warmup", 0), ("batch", 1), ("threads", 0)):
            check_whole(name, getattr(self, name), least)
        check_choice("paths", self.paths, Paths)
        check_choice("backend", self.backend, BackendName)
        check_choice("precision", self.precision, EnginePrecision)
        if self.precision != "fp32" and self.backend != "tensorrt":
            raise TdcError(
                f"precision {self.precision!r} on {self.backend}",
                expected='fp32, or backend = "tensorrt"',
            )
