"""A rank search as a stage: its times at the start, its plan at the end, what it wants beforehand.

What measures is imported where it is used: other stages need none of it.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from tdc_deploy.errors import TdcError
from tdc_deploy.files import write_whole
from tdc_deploy.plan_file import Plan, read_plan, write_plan
from tdc_deploy.progress import Progress, silent
from tdc_train.conversion import decomposable
from tdc_train.data.base import Data
from tdc_train.recipe import StageSpec
from tdc_train.training.loop import Method
from tdc_train.training.protocols import Alternation
from tdc_train.training.stages import Warn, make_loss

if TYPE_CHECKING:
    from tdc_train.search.space import Space

FOLDER = "search"

# Validation images that whole networks are verified on.
SAMPLES = 256


@dataclass(frozen=True)
class SearchFiles:
    """What a search keeps in a run's folder: the dense network that is measured, with images; the plan."""

    dense: Path
    inputs: Path
    plan: Path

    @classmethod
    def of(cls, folder: Path, stage: str) -> SearchFiles:
        """Those of a stage."""
        here = folder / FOLDER
        return cls(here / f"{stage}.onnx", here / f"{stage}.npz", here / f"{stage}.plan.json")


def search_method(
    spec: StageSpec,
    model: nn.Module,
    teacher: nn.Module | None,
    data: Data,
    folder: Path,
    state: dict[str, Any] | None,
    progress: Progress,
) -> Method:
    """How a search trains.

    Args:
        state: the training's where it is resumed: the search then chooses by the times that it began with.
    """
    from tdc_train.search.space import space_from_plain
    from tdc_train.search.supernet import RankSearch

    if state is not None:
        space = space_from_plain(state["alternation"]["space"])
    else:
        space = _measured(spec, model, data, SearchFiles.of(folder, spec.name), progress)
    loss = make_loss(spec, model, teacher, list(space.candidates))
    steps = len(data.train) // spec.batch
    search = RankSearch(model, space, spec, loss, data.val, steps)
    return Method(search.loss, alternation=search)


def _measured(
    spec: StageSpec, model: nn.Module, data: Data, files: SearchFiles, progress: Progress
) -> Space:
    from tdc_train.export import export_onnx
    from tdc_train.search.measuring import bench
    from tdc_train.training.assess import INPUT, sample_file

    files.dense.parent.mkdir(parents=True, exist_ok=True)
    write_whole({files.inputs: sample_file(data.val, SAMPLES)})
    export_onnx(model, files.dense, (spec.search.batch, *data.shape), input_name=INPUT)
    with bench(spec.search, model, files.dense, files.inputs, progress) as opened:
        return opened.space(spec.search.budget, progress)


def end_search(
    search: Alternation | None,
    spec: StageSpec,
    model: nn.Module,
    folder: Path,
    progress: Progress,
    warn: Warn,
) -> dict[str, float]:
    """Choose, fix the search to it and write the plan; figures for the log.

    Raises:
        TdcError: the files that the search began with are gone.
    """
    from tdc_train.search.choose import choose
    from tdc_train.search.measuring import bench
    from tdc_train.search.supernet import RankSearch

    assert isinstance(search, RankSearch)
    files = SearchFiles.of(folder, spec.name)
    for path in (files.dense, files.inputs):
        if not path.is_file():
            raise TdcError(f"{path} is gone", expected="the file that the search began with")
    shares = {path: p.tolist() for path, p in search.final_shares().items()}
    with bench(spec.search, model, files.dense, files.inputs, progress) as opened:
        plan = choose(search.space, shares, spec.search.budget, opened.trial, progress)
    for warning in plan.warnings:
        warn(warning)
    write_plan(plan, files.plan)
    chosen = {path: choice.candidate for path, choice in plan.layers.items()}
    search.fix(chosen)
    assert plan.network is not None
    likeliest = search.likeliest()
    return {
        "search_ratio": plan.network.ratio,
        "search_repaired": sum(chosen[path] != likeliest[path] for path in chosen),
    }


def found_plan(folder: Path, stage: str) -> Plan:
    """The plan that a search stage of the run in `folder` found.

    Raises:
        TdcError: it is not there any more.
    """
    return read_plan(SearchFiles.of(folder, stage).plan)


def check_search(spec: StageSpec, model: nn.Module, data: Data) -> None:
    """Raise TdcError if nothing could be measured: no backend, no export, no layer with a candidate."""
    from tdc_train.export import export_onnx
    from tdc_train.search.measuring import bench
    from tdc_train.training.assess import INPUT

    with tempfile.TemporaryDirectory() as folder:
        dense = Path(folder) / "dense.onnx"
        export_onnx(model, dense, (spec.search.batch, *data.shape), input_name=INPUT)
        with bench(spec.search, model, dense, None, silent) as opened:
            layers = opened.evaluator.source.plannable
            if not any(opened.choices.offered(layers[name]) for name in opened.names.values()):
                raise TdcError(
                    "a rank search of layers too small to decompose",
                    expected="a convolution of more than 16 channels",
                    fix="equal_ranks = false offers more, if it was not set",
                )


def searched_layers(model: nn.Module) -> list[str]:
    """The layers that a search may change: the convolutions that can be decomposed."""
    return [path for path, m in decomposable(model).items() if isinstance(m, nn.Conv2d)]
