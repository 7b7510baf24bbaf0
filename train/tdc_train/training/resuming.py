"""Which changes of a recipe a run that was stopped can go on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tdc_deploy.errors import TdcError
from tdc_train.recipe import Recipe
from tdc_train.recipe_file import recipe_from, recipe_to
from tdc_train.training.checkpoint import Checkpoint

# What each step looks at anew, and no state depends on: a stage that diverged can go on with less.
STEERING = ("schedule", "clip")


def check_resumed(recipe: Recipe, found: Checkpoint) -> str | None:
    """Raise TdcError if what was done is not what the recipe says.

    Free are the stages to come (also more of them) and where the data and the weights lie; of a stage
    whose epochs have begun the optimizer's `lr` and STEERING, from its last epoch on.

    Returns:
        What changed in the stage that has begun, if anything did.
    """
    before = recipe_from(found.recipe, "the checkpoint's recipe")
    old, new = _done(before, found), _done(recipe, found)
    steered, steering = _taken_steering(old, found), _taken_steering(new, found)
    if difference := _difference(old, new):
        raise TdcError(
            f"the run was begun with another recipe: {difference}",
            expected="changes of stages to come only; of the one that has begun of "
            f"optimizer.lr, {', '.join(STEERING)}",
            fix="resume with that recipe and --set (recipe.json holds it), or begin another folder",
        )
    return _difference(steered, steering)


def _done(recipe: Recipe, found: Checkpoint) -> dict[str, Any]:
    """What the checkpoint's weights depend on, files by their names without the folders."""
    data = recipe_to(recipe)
    count = found.stage + (found.epoch > 0)
    model = {**data["model"], "weights": _file_name(data["model"]["weights"])}
    stages = []
    for stage in data["stages"][:count]:
        names = {key: _file_name(stage["distill"][key]) for key in ("teacher", "weights")}
        # A search's times are in its checkpoints.
        search = {**stage["search"], "store": None}
        stages.append({**stage, "search": search, "distill": {**stage["distill"], **names}})
    kept = {key: data[key] for key in ("seed", "deterministic")}
    return {**kept, "model": model, "data": {**data["data"], "root": None}, "stages": stages}


def _file_name(path: str | None) -> str | None:
    return Path(path).name if path else path


def _taken_steering(data: dict[str, Any], found: Checkpoint) -> dict[str, Any]:
    """Take what may change out of the stage that has begun, and return it; nothing if none has."""
    if not found.epoch or len(data["stages"]) <= found.stage:
        return {}
    stage = data["stages"][found.stage]
    taken = {"lr": stage["optimizer"].pop("lr"), **{key: stage.pop(key) for key in STEERING}}
    return {stage["name"]: taken}


def _difference(old: Any, new: Any, where: str = "") -> str | None:
    """The first key that differs, or None."""
    if old == new:
        return None
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *new]:
            if old.get(key) != new.get(key):
                return _difference(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return f"{where} had {len(old)} entries, has {len(new)}"
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            if a != b:
                return _difference(a, b, f"{where}.{i}")
    return f"{where} was {old!r}, is {new!r}"
