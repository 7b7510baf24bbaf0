"""Models from checkpoints."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from tdc_deploy.errors import TdcError
from tdc_deploy.plan_file import plan_from_json
from tdc_train.models.registry import make_model
from tdc_train.models.weights import load_weights
from tdc_train.recipe import DistillSpec, ModelSpec
from tdc_train.recipe_file import recipe_from
from tdc_train.training import stages
from tdc_train.training.checkpoint import BEST, Checkpoint, read_checkpoint

STAGES = "stages"


def rebuilt(checkpoint: Checkpoint) -> nn.Module:
    """The checkpoint's model, of the form and with the weights it had.

    Raises:
        TdcError: the network that it names has changed.
    """
    recipe = recipe_from(checkpoint.recipe, "the checkpoint's recipe")
    model = make_model(recipe.model.name, **recipe.model.options)
    if checkpoint.plan is not None:
        model = stages.decomposed(model, plan_from_json(checkpoint.plan, "the checkpoint's plan"))
    try:
        model.load_state_dict(checkpoint.model)
    except RuntimeError as error:
        raise TdcError(
            f"the checkpoint's weights are not those of {recipe.model.name}: {error}",
            expected="the code that it was made with",
        ) from None
    return model


def fresh(spec: ModelSpec) -> nn.Module:
    """The network that a run starts with."""
    model = make_model(spec.name, **spec.options)
    if spec.weights:
        load_weights(model, Path(spec.weights))
    return model


def teacher_of(spec: DistillSpec, folder: Path) -> nn.Module:
    """The teacher: of an earlier stage of the run in `folder`, of a checkpoint, or of the registry.

    Raises:
        TdcError: there is none such.
    """
    for path in (stage_file(folder, spec.teacher), Path(spec.teacher)):
        if path.is_file():
            return rebuilt(read_checkpoint(path))
    return fresh(ModelSpec(spec.teacher, spec.options, spec.weights))


def stage_file(folder: Path, name: str) -> Path:
    """Where a run keeps a stage's model."""
    return folder / STAGES / f"{name}.pt"


def find_checkpoint(path: Path) -> Path:
    """A run's best checkpoint, or the file itself."""
    if not path.is_dir():
        return path
    if (path / BEST).is_file():
        return path / BEST
    raise TdcError(
        f"no {BEST} in {path}", expected="a folder of tdc-train fit after an epoch", fix="fit first"
    )
