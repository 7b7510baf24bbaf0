"""A run: a recipe's stages in order, in a folder, from the start or from the last checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tdc_deploy.errors import TdcError
from tdc_deploy.files import write_whole
from tdc_deploy.plan_file import Plan, plan_from_json, plan_to_json
from tdc_deploy.progress import Progress, silent
from tdc_deploy.strict_json import dumps
from tdc_train.constraints import Constraints
from tdc_train.data.base import Data
from tdc_train.data.registry import make_data
from tdc_train.recipe import PLANNED, Recipe, StageSpec
from tdc_train.recipe_file import recipe_to
from tdc_train.training import stages
from tdc_train.training.checkpoint import (
    BEST,
    Checkpoint,
    held,
    read_last,
    write_checkpoint,
    write_last,
)
from tdc_train.training.distributed import World, joined
from tdc_train.training.evaluate import score
from tdc_train.training.log import TensorBoard, write_csv
from tdc_train.training.loop import Method, Trainer
from tdc_train.training.norm_statistics import re_estimate
from tdc_train.training.order import Moment
from tdc_train.training.rebuild import (
    STAGES,
    constraints_at_start,
    fresh,
    plan_at_start,
    rebuilt,
    stage_file,
    teacher_of,
)
from tdc_train.training.rehearsal import TRAINED, Rehearsal
from tdc_train.training.resuming import check_resumed
from tdc_train.training.searching import end_search, found_plan, search_method
from tdc_train.training.some_images import SomeImages

RECIPE_NAME = "recipe.json"

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """What a run gave: the last epoch's figures, one row per epoch in `rows`."""

    folder: Path
    rows: list[dict[str, Any]]

    @property
    def accuracy(self) -> float:
        """Of the last model, on the validation images."""
        return float(self.rows[-1]["val_accuracy"])


def fit(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    threads: int = 0,
    progress: Progress = silent,
    warn: Warn = lambda _line: None,
) -> Result:
    """Run a recipe in a folder: checkpoints, `best.pt`, each stage's model, `log.csv`.

    A run that was stopped at any moment and resumed gives what it would have given: batches and
    augmentation are functions of the seed and the epoch, and a stopped epoch is run again. To the
    last bit on the same machine with as many threads and processes. torch's threads and its choice of
    deterministic kernels are set for the process.

    What a later stage would fail on is looked for before the first is trained. A run can be resumed with
    other stages to come, and with another rate, schedule or clipping of the one that has begun
    (`check_resumed`); code that a checkpoint names is run only if it is the recipe's own network.

    Args:
        folder: new or without a run, but for `resume`; with several machines, one that all see.
        device: cpu, cuda, or auto.
        threads: of torch on a CPU; 0: torch's choice.

    Raises:
        TdcError: the recipe does not fit the data or the folder, or training diverged.
    """
    if threads:
        torch.set_num_threads(threads)
    if recipe.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    with joined(device) as world:
        data = make_data(recipe.data.name, recipe.data.root, recipe.data.options)
        start = world.agreed(_prepare(recipe, folder, resume, warn) if world.leads else None)
        run = _Run(recipe, folder, world, data, progress, warn)
        run.go(start)
        return Result(folder, run.rows)


def _prepare(recipe: Recipe, folder: Path, resume: bool, warn: Warn) -> Checkpoint | None:
    """Make or check the folder; the checkpoint to go on from."""
    try:
        (folder / STAGES).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TdcError(f"{folder} cannot be made: {error}", expected="a folder's name") from None
    there = held(folder)
    if there and not resume:
        raise TdcError(
            f"{folder} holds a run already ({there[0]})", fix="--resume it, or give another folder"
        )
    found = read_last(folder, warn) if resume else None
    if found is not None and (changed := check_resumed(recipe, found)):
        warn(f"going on with a changed stage: {changed}")
    for part in folder.rglob(".*.part"):
        # What a killed run was writing.
        part.unlink()
    write_whole({folder / RECIPE_NAME: (dumps(recipe_to(recipe)) + "\n").encode()})
    return found


@dataclass
class _Run:
    """A run in progress."""

    recipe: Recipe
    folder: Path
    world: World
    data: Data
    progress: Progress
    warn: Warn
    rows: list[dict[str, Any]] = field(default_factory=list)
    plan: Plan | None = None
    constraints: Constraints = field(default_factory=Constraints)
    board: TensorBoard | None = None

    def go(self, start: Checkpoint | None) -> None:
        first = 0 if start is None else start.stage
        rehearsal = Rehearsal(self.recipe, self.folder, self.world, self.data)
        if start is None:
            self.constraints = constraints_at_start(self.recipe.model)
        else:
            self.constraints = Constraints.from_json(start.constraints)
        plans = rehearsal.plans(self._plan_at_start(start), first, self.constraints)
        torch.manual_seed(self.recipe.seed)
        if start is None:
            model = fresh(self.recipe.model)
        else:
            model = rebuilt(start, trust=self.recipe.model.name)
            self.rows = start.rows
            if self.world.leads:
                write_csv(self.folder, self.rows)
        if self.recipe.tensorboard and self.world.leads:
            self.board = TensorBoard(self.folder, len(self.rows))
        self.world.share(model.to(self.world.device))
        for i, spec in enumerate(self.recipe.stages[first:], first):
            state = None if start is None or i != first else start
            model = self._stage(i, spec, model, plans[i], state)
        if self.board is not None:
            self.board.close()

    def _plan_at_start(self, start: Checkpoint | None) -> Plan | None:
        """What the network was decomposed by before the first stage; `plan` is what it is by now."""
        if start is None:
            self.plan = plan_at_start(self.recipe.model)
            return self.plan
        if start.plan is not None:
            self.plan = plan_from_json(start.plan, "the checkpoint")
        done = self.recipe.stages[: start.stage]
        return None if any(spec.kind == "decompose" for spec in done) else self.plan

    def _teacher(self, spec: StageSpec) -> nn.Module:
        found = teacher_of(spec.distill, self.folder, self.world, self.recipe.model.name)
        return found.to(self.world.device)

    def _stage(
        self, i: int, spec: StageSpec, model: nn.Module, plan: Plan | None, state: Checkpoint | None
    ) -> nn.Module:
        layout = torch.channels_last if spec.channels_last else torch.contiguous_format
        model = model.to(memory_format=layout)  # type: ignore[call-overload]
        if spec.kind in PLANNED and plan is None and not spec.set:
            plan = self._found_plan(i)
        if spec.kind in TRAINED:
            self._train(i, spec, model, plan, state)
        else:
            model = self._transform(i, spec, model, plan)
        return model

    def _found_plan(self, i: int) -> Plan:
        """What the search before stage `i` found."""
        *_, name = (spec.name for spec in self.recipe.stages[:i] if spec.kind == "search")
        found = self.world.agreed(found_plan(self.folder, name) if self.world.leads else None)
        assert found is not None
        return found

    def _train(
        self, i: int, spec: StageSpec, model: nn.Module, plan: Plan | None, state: Checkpoint | None
    ) -> None:
        training = None if state is None else state.training
        if spec.set and training is None:
            self._settle(stages.aimed(spec, model, self.constraints))
        stages.check_amp(spec, self.world.device, self.warn)
        trainer = self._trainer(spec, model, plan, training)
        best, first = (-1.0, 0.0), 0
        if state is not None and training is not None:
            trainer.load_state_dict(training)
            best, first = tuple(training["best"]), state.epoch
        for epoch in range(first, spec.epochs):
            what = f"{spec.name}, epoch {epoch + 1} of {spec.epochs}"
            figures: dict[str, Any] = trainer.epoch(
                Moment(self.recipe.seed, i, epoch),
                partial(self.progress, what),
            )
            last = epoch + 1 == spec.epochs
            training = trainer.state_dict()
            if last and spec.kind == "search":
                figures |= end_search(
                    trainer.alternation, spec, model, self.folder, self.progress, self.warn
                )
            with trainer.averaged():
                if last and trainer.regulariser is not None:
                    # Of the weights that are kept.
                    figures |= stages.admm_end(trainer.regulariser, self.warn)
                best = self._keep(i, spec, model, figures, epoch, best, training)
        trainer.finish()

    def _trainer(
        self, spec: StageSpec, model: nn.Module, plan: Plan | None, state: dict[str, Any] | None
    ) -> Trainer:
        teacher = None
        if spec.distill.name != "none":
            teacher = self._teacher(spec)
        if spec.kind == "search":
            method = search_method(
                spec, model, teacher, self.data, self.folder, state, self.progress
            )
            return Trainer(model, spec, method, self.data.train, self.data.classes, self.world)
        loss = stages.make_loss(spec, model, teacher)
        regulariser = None
        if spec.kind == "admm":
            factor = self.world.size if spec.per_process else 1
            # The learning rate is multiplied, too.
            steps = max(len(self.data.train) // (spec.batch * factor), 1) * factor
            if spec.set:
                regulariser = stages.admm_to_sets(spec, model, self.constraints, steps)
            else:
                assert plan is not None
                regulariser = stages.admm_regulariser(spec, model, plan, steps)
        method = Method(loss, regulariser, stages.hold_of(model, self.constraints))
        return Trainer(model, spec, method, self.data.train, self.data.classes, self.world)

    def _transform(self, i: int, spec: StageSpec, model: nn.Module, plan: Plan | None) -> nn.Module:
        """A stage without epochs of its own: it is run again from its start if it is stopped."""
        self.progress(spec.name, 0, 1)
        moment = Moment(self.recipe.seed, i, 0)
        figures: dict[str, Any] = {}
        batches = SomeImages(
            self.data.train, moment, spec.batch, spec.init.images, self.world.device
        )
        if spec.kind == "slices":
            teacher = self._teacher(spec)
            figures = stages.fit_slices(spec, model, teacher, batches, self.warn)
        elif spec.kind == "project":
            if spec.set:
                self._settle(stages.aimed(spec, model, self.constraints))
            projected, figures = stages.projected(model, self.constraints)
            self._settle(projected)
        else:
            assert plan is not None
            model = stages.initialised(model, plan, spec.init.name, batches)
            self.plan = plan
        model = model.to(self.world.device)
        if spec.init.re_estimate:
            re_estimate(model, batches)
        self.world.share(model)
        self._keep(i, spec, model, figures, 0, (-1.0, 0.0), None)
        return model

    def _settle(self, constraints: Constraints) -> None:
        """Take the first process's: what is fitted to weights may differ in the last bits elsewhere."""
        if self.world.size > 1:
            constraints = Constraints.from_json(self.world.agreed(constraints.to_json()))
        self.constraints = constraints

    def _keep(
        self,
        i: int,
        spec: StageSpec,
        model: nn.Module,
        figures: dict[str, Any],
        epoch: int,
        best: tuple[float, float],
        training: dict[str, Any] | None,
    ) -> tuple[float, float]:
        """Evaluate, log and write what an epoch gave; return the stage's best accuracy and loss."""
        found = score(model, self.data.val, self.world)
        known = {"val_accuracy": found.accuracy, "val_loss": found.loss}
        row = {"stage": spec.name, "epoch": epoch + 1, **figures, **known}
        self.rows = [*self.rows, row]
        done = training is None or epoch + 1 == spec.epochs
        better = (found.accuracy, -found.loss) > best
        if better:
            best = (found.accuracy, -found.loss)
        if training is not None:
            training["best"] = list(best)
        checkpoint = Checkpoint(
            recipe=recipe_to(self.recipe),
            model=model.state_dict(),
            plan=None if self.plan is None else json.loads(dumps(plan_to_json(self.plan))),
            stage=i + done,
            epoch=0 if done else epoch + 1,
            training=None if done else training,
            rows=self.rows,
            figures=known,
            shape=list(self.data.shape),
            classes=self.data.classes,
            constraints=self.constraints.to_json(),
        )
        if self.world.leads:
            self._write(checkpoint, spec, better, done)
        return best

    def _write(self, checkpoint: Checkpoint, spec: StageSpec, better: bool, done: bool) -> None:
        """`last.pt` comes after the other models: stopped in between, the epoch is run again, and
        writes the same. The logs come after it: they are written from it.
        """
        bare = replace(checkpoint, training=None)
        if better:
            write_checkpoint(self.folder / BEST, bare)
        if done:
            write_checkpoint(stage_file(self.folder, spec.name), bare)
        write_last(self.folder, checkpoint)
        write_csv(self.folder, self.rows)
        if self.board is not None:
            self.board.write(len(self.rows), self.rows[-1])
