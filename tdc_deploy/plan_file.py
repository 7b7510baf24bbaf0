"""Plans as values and as JSON that a person can read, edit and feed back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tdc_deploy.errors import TdcError, did_you_mean
from tdc_deploy.files import write_whole
from tdc_deploy.strict_json import dumps
from tdc_deploy.types import Candidate, ConvLayer, Ranks, check_number, from_mapping

FORMAT = "tdc-deploy plan"
VERSION = 1


@dataclass(frozen=True)
class LayerChoice:
    """The form chosen for a layer, and the time of the layer as it was, alone, in milliseconds."""

    candidate: Candidate
    dense_ms: float | None = None

    def __post_init__(self) -> None:
        if self.dense_ms is not None:
            check_number("dense_ms", self.dense_ms, positive=True)


@dataclass(frozen=True)
class PlanFigures:
    """What the plan was chosen on, for the whole network: latencies in milliseconds, relative error.

    `predicted_ms` was computed before `measured_ms` was measured; both stand beside `dense_ms`.
    """

    dense_ms: float
    predicted_ms: float
    measured_ms: float
    error: float
    verified: bool

    def __post_init__(self) -> None:
        check_number("dense_ms", self.dense_ms, positive=True)
        for name in ("predicted_ms", "measured_ms", "error"):
            check_number(name, getattr(self, name))

    @property
    def ratio(self) -> float:
        """Measured time over the dense network's."""
        return self.measured_ms / self.dense_ms


@dataclass(frozen=True)
class Plan:
    """A form for each layer; layers that are not named stay dense.

    The other fields say where the choice came from; a plan written by hand needs none of them. `missed` are
    those of the warnings that say that the goal was not reached. `statistics_sha256` are the statistics of
    the inputs that the layers were decomposed for; without any, their errors are by weight. `sequential`:
    what was built was decomposed layer behind layer; the errors are those of each alone.
    """

    layers: Mapping[str, LayerChoice]
    model_sha256: str | None = None
    solver: str | None = None
    backend: Mapping[str, str] = field(default_factory=dict)
    network: PlanFigures | None = None
    measurements: int = 0
    warnings: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()
    statistics_sha256: str | None = None
    sequential: bool = False

    def __post_init__(self) -> None:
        texts = (self.model_sha256, self.solver, self.statistics_sha256)
        if not all(text is None or isinstance(text, str) for text in texts):
            raise TdcError(
                "model_sha256, statistics_sha256 or solver is no text", expected="text or null"
            )
        if not isinstance(self.backend, Mapping) or not isinstance(self.measurements, int):
            raise TdcError("backend or measurements is of another type", expected="object, number")
        if not isinstance(self.sequential, bool):
            raise TdcError(f"sequential is {self.sequential!r}", expected="true or false")
        if not all(isinstance(text, str) for text in (*self.warnings, *self.missed)):
            raise TdcError("warnings are no texts", expected="a list of texts")

    @property
    def selection(self) -> dict[str, Candidate]:
        """Layer name → candidate, the dense ones left out."""
        chosen = {name: choice.candidate for name, choice in self.layers.items()}
        return {name: c for name, c in chosen.items() if c.form != "dense"}


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values."""
    data = asdict(plan)
    data["layers"] = {name: _layer_to_json(choice) for name, choice in plan.layers.items()}
    return {"format": FORMAT, "version": VERSION, **data}


def write_plan(plan: Plan, path: Path) -> None:
    """Write the plan as JSON, whole or not at all."""
    write_whole({path: plan_bytes(plan)})


def plan_bytes(plan: Plan) -> bytes:
    """The content of a plan's file."""
    return (dumps(plan_to_json(plan)) + "\n").encode()


def read_plan(path: Path) -> Plan:
    """Read a plan; `{"layers": {"name": {"form": "tucker2", "r_in": 32, "r_out": 32}}}` is enough.

    Raises:
        TdcError: no such file, no JSON, an unknown field, or impossible ranks.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TdcError(f"no plan at {path}", fix="make one with tdc-deploy plan") from None
    except (OSError, ValueError) as error:
        raise TdcError(f"{path} is not a plan: {error}", expected="a JSON file") from None
    return plan_from_json(data, str(path))


def plan_from_json(data: Any, where: str) -> Plan:
    """The inverse of `plan_to_json`; `where` names the source in messages."""
    if not isinstance(data, dict) or not isinstance(data.get("layers"), dict):
        raise TdcError(f"{where} is not a plan", expected='an object with an object "layers"')
    data = dict(data)
    for key, expected in (("format", FORMAT), ("version", VERSION)):
        if (found := data.pop(key, expected)) != expected:
            raise TdcError(f"{where} has {key} {found!r}", expected=repr(expected))
    values = from_mapping(Plan, data, where)
    values["layers"] = {
        name: _layer_from_json(layer, f"layer {name!r} of {where}")
        for name, layer in values["layers"].items()
    }
    if values.get("network") is not None:
        figures = from_mapping(PlanFigures, values["network"], f"network of {where}")
        values["network"] = _made(PlanFigures, figures, f"network of {where}")
    for name in ("warnings", "missed"):
        if not isinstance(values.setdefault(name, []), list):
            raise TdcError(f"{name} of {where} is no list", expected="a list of texts")
        values[name] = tuple(values[name])
    plan: Plan = _made(Plan, values, where)
    return plan


def check_layers(plan: Plan, known: Mapping[str, ConvLayer]) -> None:
    """Raise TdcError if the plan does not fit a model whose decomposable layers are `known`."""
    for name, candidate in plan.selection.items():
        if name not in known:
            raise TdcError(
                f"the plan names layer {name!r}, which the model does not have or which must stay dense",
                expected=f"one of the {len(known)} layers that tdc-deploy inspect lists",
                fix=did_you_mean(name, known),
            )
        _check_fit(candidate, known[name])


def _check_fit(candidate: Candidate, layer: ConvLayer) -> None:
    ranks = candidate.ranks
    if ranks is not None and (ranks.r_in > layer.c_in or ranks.r_out > layer.c_out):
        raise TdcError(
            f"layer {layer.name!r} with r_in {ranks.r_in} and r_out {ranks.r_out}",
            expected=f"r_in up to its {layer.c_in} input channels, "
            f"r_out up to its {layer.c_out} output channels",
        )
    whole = {"tucker_in": ("r_out", layer.c_out), "tucker_out": ("r_in", layer.c_in)}
    if ranks is not None and candidate.form in whole:
        name, channels = whole[candidate.form]
        if getattr(ranks, name) != channels:
            raise TdcError(
                f"layer {layer.name!r} as {candidate.form} with {name} {getattr(ranks, name)}",
                expected=f"{name} {channels}, its channels: {candidate.form} has no rank there",
                fix="use tucker2 to reduce both",
            )
    if candidate.form == "svd" and not layer.is_pointwise:
        raise TdcError(
            f"layer {layer.name!r} as svd, with a {layer.kernel[0]}x{layer.kernel[1]} kernel",
            expected="tucker2, tucker_in or tucker_out; svd is for 1x1 kernels",
        )


def _layer_to_json(choice: LayerChoice) -> dict[str, Any]:
    data = asdict(choice.candidate)
    ranks = data.pop("ranks")
    form = data.pop("form")
    return {"form": form, **(ranks or {}), **data, "dense_ms": choice.dense_ms}


def _layer_from_json(data: Any, where: str) -> LayerChoice:
    if not isinstance(data, dict):
        raise TdcError(f"{where} is {type(data).__name__}", expected="an object with a form")
    data = dict(data)
    dense_ms = data.pop("dense_ms", None)
    ranks = {key: data.pop(key) for key in ("r_in", "r_out") if key in data}
    values = from_mapping(Candidate, data, where)
    if ranks:
        values["ranks"] = _made(Ranks, ranks, where)
    if values.get("form") == "tucker2":
        values.setdefault("implementation", "fused")
    return LayerChoice(_made(Candidate, values, where), dense_ms)


def _made(cls: Any, values: dict[str, Any], where: str) -> Any:
    try:
        return cls(**values)
    except TdcError as error:
        raise TdcError(f"{where}: {error.received}", expected=error.expected) from None
    except TypeError as error:
        raise TdcError(
            f"{where} does not fit: {error}", expected="the fields that tdc-deploy plan writes"
        ) from None
