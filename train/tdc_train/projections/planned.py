"""The constraint sets of a plan."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from tdc_deploy.errors import TdcError
from tdc_deploy.plan_file import Plan
from tdc_deploy.types import Candidate
from tdc_train.conversion import decomposable, selection_of
from tdc_train.projections.protocol import Projection
from tdc_train.projections.svd import SvdProjection
from tdc_train.projections.tucker import TuckerProjection


def planned_projections(
    model: nn.Module, plan: Plan, onnx_model: Path | None = None
) -> tuple[dict[str, nn.Parameter], dict[str, Projection]]:
    """Module path → the weight, and → the projection onto what the plan's form can represent.

    Raises:
        TdcError: the plan does not fit the model (see `selection_of`).
    """
    selection = selection_of(model, plan, onnx_model)
    layers = decomposable(model)
    weights = {path: layers[path].get_parameter("weight") for path in selection}
    return weights, {path: projection_of(candidate) for path, candidate in selection.items()}


def projection_of(candidate: Candidate) -> Projection:
    """The projection onto the weights that a candidate represents exactly.

    Raises:
        TdcError: it is dense.
    """
    if candidate.ranks is None:
        raise TdcError("a dense candidate has no constraint", expected="a form with ranks")
    if candidate.form == "svd":
        return SvdProjection(candidate.ranks.r_in)
    return TuckerProjection(candidate.ranks)
