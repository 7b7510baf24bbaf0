"""What a recipe would run into later, found before anything is trained."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from tdc_deploy.errors import TdcError
from tdc_deploy.plan_file import Plan
from tdc_train.constraints import Constraints
from tdc_train.data.base import Data
from tdc_train.modes import evaluating
from tdc_train.recipe import HOLDING, PLANNED, Recipe, StageSpec
from tdc_train.training import stages
from tdc_train.training.distributed import World
from tdc_train.training.loop import check_batch
from tdc_train.training.rebuild import fresh, teacher_of
from tdc_train.training.searching import check_search, searched_layers

TRAINED = ("dense", "admm", "search", "finetune")


@dataclass(frozen=True)
class Rehearsal:
    """A recipe's stages, gone through without training: on networks of their forms, with random weights."""

    recipe: Recipe
    folder: Path
    world: World
    data: Data

    def plans(self, plan: Plan | None, first: int, constraints: Constraints) -> list[Plan | None]:
        """Each stage's plan, None where a search finds it; the stages from `first` on are checked.

        Args:
            plan: what the network is decomposed by at the start.
            constraints: what it is held in before stage `first`.

        Raises:
            TdcError: ranks, batches, teachers or losses that a stage could not be run with.
        """
        plans: list[Plan | None] = []
        found = False
        dense = fresh(replace(self.recipe.model, weights=None))
        check_model(dense, self.recipe.model.name, self.data)
        model = dense if plan is None else stages.decomposed(copy.deepcopy(dense), plan)
        ends: dict[str, nn.Module] = {}
        for i, spec in enumerate(self.recipe.stages):
            if spec.kind in (*PLANNED, "project", "search") and model is not dense:
                raise TdcError(
                    f"stage {spec.name!r} of a network that is decomposed already",
                    expected="weights of a dense one",
                )
            if i >= first:
                _check_held(spec, constraints)
            if spec.ranks.given:
                plan, found = stages.plan_for(spec.ranks, dense), False
            if spec.kind == "search":
                plan, found = stages.stand_in(dense), True
            plans.append(None if found else plan)
            if i >= first and spec.set:
                constraints = stages.aimed(spec, dense, constraints)
            if i >= first and spec.kind == "project":
                constraints = Constraints({}, {**constraints.held, **constraints.aim})
            if spec.kind == "decompose":
                assert plan is not None
                model = stages.decomposed(copy.deepcopy(dense), plan)
            if i >= first:
                self._check(spec, model, ends)
            ends[spec.name] = model
        return plans

    def _check(self, spec: StageSpec, model: nn.Module, ends: dict[str, nn.Module]) -> None:
        if spec.kind in TRAINED:
            check_batch(spec, len(self.data.train), self.world)
        if spec.kind == "search":
            self._check_search(spec, model)
        if spec.distill.name == "none" and spec.kind != "slices":
            return
        teacher = ends.get(spec.distill.teacher)
        if teacher is None:
            if spec.distill.teacher in [stage.name for stage in self.recipe.stages]:
                raise TdcError(
                    f"teacher {spec.distill.teacher!r} of stage {spec.name!r} is not an earlier stage",
                    expected=f"one of {', '.join(ends) or 'the stages before'}",
                )
            teacher = teacher_of(spec.distill, self.folder, self.world, self.recipe.model.name)
            check_model(teacher, spec.distill.teacher, self.data)
        if spec.kind == "slices":
            stages.check_slices(model, teacher)
        else:
            self._try_loss(spec, model, copy.deepcopy(teacher))

    def _check_search(self, spec: StageSpec, model: nn.Module) -> None:
        if self.world.size > 1:
            raise TdcError(
                f"stage {spec.name!r} on {self.world.size} processes",
                expected="one, for a search",
                fix="tdc-train search by itself, then torchrun … fit --resume",
            )
        check_search(spec, model, self.data)

    def _try_loss(self, spec: StageSpec, model: nn.Module, teacher: nn.Module) -> None:
        """On one black image: the layers whose features are compared have one shape."""
        layers = None
        if spec.kind == "search":
            layers = searched_layers(model)
        loss = stages.make_loss(spec, model, teacher, layers)
        image, target = torch.zeros(1, *self.data.shape), torch.zeros(1, dtype=torch.int64)
        with torch.no_grad(), evaluating(model):
            loss(model, image, target)


def _check_held(spec: StageSpec, constraints: Constraints) -> None:
    """Raise TdcError if a stage would take the weights out of the sets that the first weights came in.

    What a recipe projects itself it checks itself.
    """
    drawn_elsewhere = spec.kind == "admm" and not spec.set
    if constraints.held and (spec.kind not in HOLDING or drawn_elsewhere):
        path = next(iter(constraints.held))
        raise TdcError(
            f"stage {spec.name!r} ({spec.kind}) of weights that are held in sets: "
            f"{path!r} in {constraints.held[path].describe()}",
            expected=f"{', '.join(HOLDING)}; admm with a set",
        )


def check_model(model: nn.Module, name: str, data: Data) -> None:
    """Raise TdcError if a network does not take the images or give the classes."""
    try:
        with torch.no_grad(), evaluating(model):
            logits = model(torch.zeros(1, *data.shape))
    except RuntimeError as error:
        raise TdcError(
            f"{name} does not take images {data.shape}: {error}",
            fix="another network, or an option such as small_images = true",
        ) from None
    if logits.shape != (1, data.classes):
        raise TdcError(
            f"{name} gives {tuple(logits.shape[1:])} outputs",
            expected=f"{data.classes}, the classes of the data",
            fix=f"num_classes = {data.classes} in its options",
        )
