"""A plan from a network's weights alone: `tdc-train ranks`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal, get_args

from tdc_deploy.errors import TdcError
from tdc_deploy.files import check_distinct, check_writable
from tdc_deploy.graph.convs import kernel
from tdc_deploy.graph.read import model_files
from tdc_deploy.plan_file import LayerChoice, Plan, write_plan
from tdc_deploy.progress import Progress, silent
from tdc_deploy.ranks.estimate import STEP, Estimate, by_energy, by_vbmf
from tdc_deploy.source import Source, read_source
from tdc_deploy.types import DENSE

Method = Literal["vbmf", "energy"]
ENERGY = 0.9


def estimate_ranks(
    path: Path,
    method: Method = "vbmf",
    *,
    energy: float | None = None,
    step: int = STEP,
    output: Path | None = None,
    trust: bool = False,
    progress: Progress = silent,
) -> Plan:
    """Estimate a form and ranks for each convolution of an ONNX file, a checkpoint or a run's folder.

    Nothing is measured: whether the plan is fast, and how much accuracy it costs, is not known.

    Args:
        method: `vbmf`, or `energy`, the cheapest ranks that keep the share `energy` of each kernel's.
        step: ranks are multiples of it.
        output: a file to write the plan to, as JSON.
        trust: whether code that a checkpoint names may be run (`rebuilt`).

    Raises:
        TdcError: no such model, a value that does not exist, or no layer that could be decomposed.
    """
    estimate = _estimate(method, energy, step)
    if output is not None:
        check_writable(output)
        check_distinct([output], _files(path))
    source = _source(path, trust)
    layers = source.plannable
    if not layers:
        raise TdcError(
            f"{path} has no convolution to decompose",
            expected="at least one ungrouped 2-D convolution that is not decomposed yet",
        )
    chosen = {}
    for done, (name, layer) in enumerate(layers.items()):
        progress("estimating ranks", done, len(layers))
        candidate = estimate(layer, kernel(source.convs[name].node))
        chosen[name] = LayerChoice(candidate)
    dense = all(choice.candidate == DENSE for choice in chosen.values())
    warnings = ("every layer stays dense: no lower rank keeps enough",) if dense else ()
    plan = Plan(chosen, solver=method, warnings=warnings)
    if output is not None:
        write_plan(plan, output)
    return plan


def _estimate(method: str, energy: float | None, step: int) -> Estimate:
    if method not in get_args(Method):
        raise TdcError(f"method is {method!r}", expected="vbmf or energy")
    if method == "energy":
        return by_energy(ENERGY if energy is None else energy, step)
    if energy is not None:
        raise TdcError("energy without the energy method", fix="add --method energy")
    return by_vbmf(step)


def _files(path: Path) -> list[Path]:
    if path.suffix == ".onnx":
        return model_files(path)
    from tdc_train.training.rebuild import find_checkpoint

    return [find_checkpoint(path)]


def _source(path: Path, trust: bool) -> Source:
    """An ONNX file, or a checkpoint by way of one: there the layers have the sizes they run at."""
    if path.suffix == ".onnx":
        return read_source(path, None)
    from tdc_train.training.assess import write_onnx

    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder) / "model.onnx"
        write_onnx(path, onnx, trust=trust)
        return read_source(onnx, None)
