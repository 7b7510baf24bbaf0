"""How a model is to be served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from tdc_deploy.errors import TdcError

Variant = Literal["native", "python"]
"""native: Triton's own backend for the artifact. python: its Python backend, with `tdc_deploy.load`."""

Device = Literal["auto", "cpu", "gpu"]

KeepOrReplace = Literal["keep", "replace"]


@dataclass(frozen=True)
class ServingOptions:
    """What config.pbtxt says beyond the artifact.

    max_batch: None: the artifact's limit; 0: Triton makes no batches. queue_delay_us: how long a request
    may wait for others, in microseconds. instances: copies of the model per device. gpus: their numbers,
    empty for all. shapes: sizes for warm-up and CUDA graphs where an input's are open, batch included.
    threads: ONNX Runtime's within an operator, 0: its own choice.
    """

    variant: Variant = "native"
    max_batch: int | None = None
    dynamic_batching: bool = True
    preferred: tuple[int, ...] = ()
    queue_delay_us: int = 0
    instances: int = 1
    device: Device = "auto"
    gpus: tuple[int, ...] = ()
    warmup: bool = False
    cuda_graphs: bool = False
    threads: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _among("variant", self.variant, get_args(Variant))
        _among("device", self.device, get_args(Device))
        _at_least("max_batch", self.max_batch or 0, 0)
        _at_least("queue_delay", self.queue_delay_us, 0)
        _at_least("instances", self.instances, 1)
        _at_least("threads", self.threads, 0)
        for size in self.preferred:
            _at_least("preferred", size, 1)
        for gpu in self.gpus:
            _at_least("gpus", gpu, 0)
        if self.gpus and self.device != "gpu":
            raise TdcError(f"gpus {self.gpus} on device {self.device}", fix="add --device gpu")
        if not self.dynamic_batching and (self.preferred or self.queue_delay_us):
            raise TdcError(
                "preferred batch sizes or a queue delay without dynamic batching",
                expected="either of them",
            )
        if self.shapes and not (self.warmup or self.cuda_graphs):
            raise TdcError("shapes", expected="with --warmup or --cuda-graphs, which need them")
        if self.cuda_graphs and self.variant == "python":
            raise TdcError("CUDA graphs in the python variant", expected="--variant native")


def _among(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise TdcError(f"{name} is {value!r}", expected=f"one of {', '.join(known)}")


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise TdcError(f"{name} is {value}", expected=f"a number of at least {least}")
