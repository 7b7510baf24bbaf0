"""What the stages take from the methods: ADMM, decomposition, constraint sets, distillation, slices.

The methods are imported where they are used: dense training needs none of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from tdc_deploy.cpu import flags
from tdc_deploy.errors import TdcError
from tdc_deploy.plan_file import LayerChoice, Plan, plan_from_json
from tdc_deploy.tucker import Factors
from tdc_deploy.types import Candidate, Ranks
from tdc_train.recipe import DistillSpec, RanksSpec, StageSpec
from tdc_train.training.losses import CrossEntropy
from tdc_train.training.protocols import Loss, Regulariser
from tdc_train.training.schedule import rate

if TYPE_CHECKING:
    from tdc_train.constraints import Constraints
    from tdc_train.projections.protocol import Projection
    from tdc_train.training.hold import Hold

Warn = Callable[[str], None]

# What computes in bfloat16, or at least converts, as Linux spells it.
BFLOAT16 = {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"}


def plan_for(spec: RanksSpec, model: nn.Module) -> Plan:
    """The plan that a recipe's ranks give for a model, checked against it.

    Raises:
        TdcError: a layer that the model lacks, ranks above a layer's, or no layer at all.
    """
    from tdc_train.conversion import selection_of

    if spec.layers:
        plan = plan_from_json({"layers": dict(spec.layers)}, "[stages.ranks.layers]")
    else:
        plan = _by_rule(spec, model)
    if not selection_of(model, plan):
        raise TdcError(
            "ranks that decompose no layer",
            fix="lower min_channels or ratio, or name layers that tdc-train's conversion can take",
        )
    return plan


def _by_rule(spec: RanksSpec, model: nn.Module) -> Plan:
    from tdc_train.conversion import decomposable

    chosen = {}
    for path, layer in decomposable(model).items():
        if isinstance(layer, nn.Conv2d) and math.prod(layer.kernel_size) > 1:
            channels = (layer.in_channels, layer.out_channels)
            ranks = [max(1, round(n * spec.ratio / spec.step)) * spec.step for n in channels]
            # A rank that is all of the channels makes the chain dearer than the layer.
            if min(channels) >= spec.min_channels and all(
                rank < n for rank, n in zip(ranks, channels, strict=True)
            ):
                chosen[path] = LayerChoice(Candidate("tucker2", Ranks(*ranks)))
    return Plan(chosen)


def stand_in(model: nn.Module) -> Plan:
    """A plan for what a search will find, to try later stages with: half of the ranks everywhere."""
    return _by_rule(RanksSpec(ratio=0.5, step=1, min_channels=2), model)


def decomposed(model: nn.Module, plan: Plan) -> nn.Module:
    """The model with the plan's layers as chains, in place."""
    from tdc_train.conversion import apply_plan

    return apply_plan(model, plan)


def initialised(model: nn.Module, plan: Plan, init: str, batches: Iterable[Tensor]) -> nn.Module:
    """The trained dense model decomposed: hosvd or hooi of the weights, or data-aware.

    Args:
        batches: training images for the data-aware start, each [n, C, H, W].
    """
    from tdc_train.conversion import apply_plan

    if init != "data-aware":
        return apply_plan(model, plan, init=init)  # type: ignore[arg-type]
    return apply_plan(model, plan, _data_aware(model, plan, batches))


def _data_aware(model: nn.Module, plan: Plan, batches: Iterable[Tensor]) -> dict[str, Factors]:
    from tdc_deploy.tucker.data_aware import data_aware_decompose
    from tdc_train.conversion import selection_of
    from tdc_train.statistics import patch_moments

    chosen = selection_of(model, plan)
    moments = patch_moments(model, list(chosen), batches)
    factors = {}
    for path, candidate in chosen.items():
        weight = cast(Tensor, model.get_submodule(path).weight).detach().cpu().double().numpy()
        # A linear layer is a convolution of one pixel.
        kernel = weight.reshape(*weight.shape[:2], *(weight.shape[2:] or (1, 1)))
        moment = moments[path].cpu().double().numpy()
        assert candidate.ranks is not None
        factors[path] = data_aware_decompose(kernel, moment, candidate.form, candidate.ranks)
    return factors


def admm_regulariser(spec: StageSpec, model: nn.Module, plan: Plan, steps: int) -> Regulariser:
    """ADMM towards the plan's constraint sets; `steps` an epoch and the rates scale ρ if it is 0."""
    from tdc_train.projections.planned import planned_projections

    weights, projections = planned_projections(model, plan)
    return _admm(spec, weights, projections, steps)


def admm_to_sets(
    spec: StageSpec, model: nn.Module, constraints: Constraints, steps: int
) -> Regulariser:
    """The same towards the constraints' aim."""
    from tdc_train.constraints import weights_of

    return _admm(spec, weights_of(model, constraints.aim), constraints.aim, steps)


def _admm(
    spec: StageSpec,
    weights: Mapping[str, nn.Parameter],
    projections: Mapping[str, Projection],
    steps: int,
) -> Regulariser:
    from tdc_train.admm import Admm, scaled_rho

    return Admm(weights, projections, spec.admm.rho or scaled_rho(steps * sum_of_rates(spec)))


def aimed(spec: StageSpec, model: nn.Module, constraints: Constraints) -> Constraints:
    """The constraints with the stage's set as their aim, prepared from the weights as they are.

    Raises:
        TdcError: the model has no layer for the set, or its weights are held in more than zeros already.
    """
    from tdc_train.projections.sets import chosen_set

    aim = chosen_set(spec.set).sets_for(model)
    taken = sorted(
        path
        for path in aim
        if (kind := constraints.held.get(path)) and (kind.keeps_values or not kind.keeps_support)
    )
    if taken and spec.kind == "admm":
        raise TdcError(
            f"stage {spec.name!r}: {taken[0]!r} is held in {constraints.held[taken[0]].describe()}",
            expected="ADMM of weights that are free, or of which only zeros are held",
        )
    return replace(constraints, aim=aim)


def hold_of(model: nn.Module, constraints: Constraints) -> Hold | None:
    """What keeps the weights where they have been projected to."""
    from tdc_train.training.hold import Hold

    return Hold(model, constraints.held) if constraints.held else None


def projected(model: nn.Module, constraints: Constraints) -> tuple[Constraints, dict[str, float]]:
    """Project the model to its aim, in place; for the log: how far that was, and the size it gives."""
    from tdc_train.constraints import moved, sizes, weights_of

    before = {path: w.detach().clone() for path, w in weights_of(model, constraints.aim).items()}
    done = constraints.projected(model)
    distance = moved(before, weights_of(model, constraints.aim))
    return done, {"projected": distance, "compression": sizes(model, done.held)["compression"]}


def sum_of_rates(spec: StageSpec) -> float:
    """Effective learning rates of a stage by SGD, summed over its epochs."""
    shares = (rate(spec.schedule, epoch + 0.5, spec.epochs) for epoch in range(spec.epochs))
    return sum(shares) * spec.optimizer.lr / (1 - spec.optimizer.momentum)


def check_amp(spec: StageSpec, device: torch.device, warn: Warn) -> None:
    """Warn of half precision on a processor without instructions for it (14 s an epoch became 150)."""
    found = flags()
    if spec.amp and device.type == "cpu" and found and not found & BFLOAT16:
        warn(
            f"stage {spec.name!r} has amp = true, but this processor has no instructions for bfloat16, "
            "which is several times slower than float32 without them: amp = false trains faster here"
        )


def admm_end(regulariser: Regulariser, warn: Warn) -> dict[str, Any]:
    """The relative primal residual at a stage's end, over all layers and of the worst, for the log.

    Warns if ADMM came to nothing, for all or for that layer.
    """
    from tdc_train.admm import VALID_BELOW, Admm

    assert isinstance(regulariser, Admm)
    residuals = regulariser.residuals()
    layers = regulariser.layer_residuals()
    worst = max(layers, key=layers.__getitem__)
    if not residuals.valid:
        warn(
            f"ADMM ended with a primal residual of {residuals.primal:.3f}, above {VALID_BELOW}: "
            "the weights are not near their constraint sets; raise rho or train longer"
        )
    elif not layers[worst] < VALID_BELOW:
        warn(
            f"ADMM left layer {worst} a primal residual of {layers[worst]:.3f}, above {VALID_BELOW}: "
            "decomposing changes it; raise rho, train longer, or give it larger ranks"
        )
    return {
        "admm_final": residuals.primal,
        "admm_worst": layers[worst],
        "admm_worst_layer": worst,
    }


def make_loss(
    spec: StageSpec,
    model: nn.Module,
    teacher: nn.Module | None,
    layers: Sequence[str] | None = None,
) -> Loss:
    """Cross-entropy, or distillation from the teacher.

    Args:
        layers: those whose features are compared; by default the decomposed ones.
    """
    if teacher is None:
        return CrossEntropy(spec.label_smoothing)
    return _distillation(spec.distill, spec.label_smoothing, model, teacher, layers)


def _distillation(
    spec: DistillSpec,
    label_smoothing: float,
    model: nn.Module,
    teacher: nn.Module,
    layers: Sequence[str] | None,
) -> Loss:
    from tdc_train import distill

    if spec.name == "hard":
        return distill.HardDistillation(
            teacher, weight=spec.weight, label_smoothing=label_smoothing
        )
    if spec.name == "soft":
        return distill.SoftDistillation(
            teacher,
            weight=spec.weight,
            temperature=spec.temperature,
            label_smoothing=label_smoothing,
        )
    return distill.FeatureDistillation(
        model, teacher, layers, weight=spec.weight, label_smoothing=label_smoothing
    )


def check_slices(model: nn.Module, teacher: nn.Module) -> None:
    """Raise TdcError if the model has no slices, or the teacher lacks one of them."""
    from tdc_train.features import module_at
    from tdc_train.slices import slices_of

    paths = slices_of(model)
    if not paths:
        raise TdcError("slices of a dense model", expected="a decompose stage before")
    for path in paths:
        module_at(teacher, path)


def fit_slices(
    spec: StageSpec, model: nn.Module, teacher: nn.Module, batches: Iterable[Tensor], warn: Warn
) -> dict[str, float]:
    """Fit each slice of the decomposed model to the teacher's feature maps, in place.

    Returns:
        For the log: the mean of the slices' errors before and after, and how many stayed as they were.
    """
    from tdc_train.slices import Fitting, distill_slices

    by = spec.optimizer
    fitting = Fitting(spec.epochs, by.lr, by.weight_decay, (by.beta1, by.beta2))
    results = distill_slices(model, teacher, batches, fitting=fitting)
    put_back = [result.path for result in results if not result.after < result.before]
    if put_back:
        warn(
            f"{len(put_back)} of {len(results)} slices came no nearer to the teacher and were put back: "
            f"{', '.join(put_back)}; lower the learning rate"
        )
    return {
        "slices_before": sum(result.before for result in results) / len(results),
        "slices_after": sum(result.after for result in results) / len(results),
        "slices_put_back": len(put_back),
    }
