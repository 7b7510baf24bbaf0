"""Constraint sets for ADMM: each is its projection, and nothing else is asked of it."""

from tdc_train.projections.planned import planned_projections
from tdc_train.projections.protocol import Projection, WarmProjection
from tdc_train.projections.svd import SvdProjection
from tdc_train.projections.tensor_train import TensorTrainProjection
from tdc_train.projections.tucker import TuckerProjection

__all__ = [
    "Projection",
    "SvdProjection",
    "TensorTrainProjection",
    "TuckerProjection",
    "WarmProjection",
    "planned_projections",
]
