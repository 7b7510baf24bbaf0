"""Models from checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from tdc_deploy.errors import TdcError
from tdc_deploy.plan_file import Plan, plan_from_json
from tdc_train.constraints import Constraints
from tdc_train.models.registry import MODELS, make_model
from tdc_train.models.weights import load_weights, read_tensors
from tdc_train.recipe import DistillSpec, ModelSpec
from tdc_train.recipe_file import recipe_from
from tdc_train.training import stages
from tdc_train.training.checkpoint import BEST, FORMAT, Checkpoint, read_checkpoint
from tdc_train.training.distributed import World

STAGES = "stages"


def rebuilt(checkpoint: Checkpoint, *, trust: bool | str = False) -> nn.Module:
    """The checkpoint's model, of the form and with the weights it had.

    Args:
        trust: whether code that the checkpoint names (a network `module:factory`) may be run, or the one
            such name that may. Whoever wrote the file chose that code: any function, any arguments.

    Raises:
        TdcError: the network that it names has changed, or is code that is not trusted.
    """
    recipe = recipe_from(checkpoint.recipe, "the checkpoint's recipe")
    name = recipe.model.name
    if ":" in name and trust is not True and trust != name:
        raise TdcError(
            f"the checkpoint names code to be run: {name}",
            expected="a network that comes with tdc-train, unless you trust who made the file",
            fix="--trust (trust=True); for a teacher give its module:factory, and the file as weights",
        )
    model = make_model(name, **recipe.model.options)
    if checkpoint.plan is not None:
        model = stages.decomposed(model, plan_from_json(checkpoint.plan, "the checkpoint's plan"))
    try:
        model.load_state_dict(checkpoint.model)
    except RuntimeError as error:
        raise TdcError(
            f"the checkpoint's weights are not those of {name}: {error}",
            expected="the code that it was made with",
        ) from None
    return model


def fresh(spec: ModelSpec) -> nn.Module:
    """The network that a run starts with: decomposed if its weights are a checkpoint that is."""
    model = make_model(spec.name, **spec.options)
    plan = plan_at_start(spec)
    if plan is not None:
        model = stages.decomposed(model, plan)
    if spec.weights:
        load_weights(model, Path(spec.weights))
    return model


def plan_at_start(spec: ModelSpec) -> Plan | None:
    """What the network that a run starts with is decomposed by."""
    found = _of_checkpoint(spec, "plan")
    return plan_from_json(found, f"the plan in {spec.weights}") if found else None


def constraints_at_start(spec: ModelSpec) -> Constraints:
    """What the network that a run starts with is held in."""
    found = Constraints.from_json(_of_checkpoint(spec, "constraints"))
    return Constraints({}, found.held)


def _of_checkpoint(spec: ModelSpec, part: str) -> Any:
    """A part of the checkpoint that a run's weights are; None if they are another kind of file."""
    if not spec.weights:
        return None
    found = read_tensors(Path(spec.weights))
    is_checkpoint = isinstance(found, dict) and found.get("format") == FORMAT
    return found.get(part) if is_checkpoint else None


def teacher_of(spec: DistillSpec, folder: Path, world: World, trust: str) -> nn.Module:
    """The teacher: of an earlier stage of the run in `folder`, of a checkpoint, or of the registry.

    The first process reads the checkpoint: it is the one that wrote it.

    Args:
        trust: as of `rebuilt`; the run's own network.

    Raises:
        TdcError: there is none such.
    """
    checkpoint = world.agreed(_teachers_checkpoint(spec, folder) if world.leads else None)
    if checkpoint is not None:
        return rebuilt(checkpoint, trust=trust)
    if spec.weights:
        return fresh(ModelSpec(spec.teacher, spec.options, spec.weights))
    if spec.teacher in MODELS or ":" in spec.teacher:
        raise TdcError(
            f"teacher {spec.teacher!r} has random weights",
            expected="a trained teacher",
            fix="weights = a file, in the stage's distill",
        )
    raise TdcError(
        f"no teacher {spec.teacher!r}",
        expected="an earlier stage's name, a checkpoint, or a network with its weights",
    )


def _teachers_checkpoint(spec: DistillSpec, folder: Path) -> Checkpoint | None:
    for path in (stage_file(folder, spec.teacher), Path(spec.teacher)):
        if path.is_file():
            return read_checkpoint(path)
    return None


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
