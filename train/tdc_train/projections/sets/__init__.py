"""Constraint sets of compression methods other than low rank, for ADMM and for training inside them."""

from tdc_train.projections.sets.base import ConstraintSet, Footprint
from tdc_train.projections.sets.kernel_basis import KernelBasis
from tdc_train.projections.sets.levels import PowersOfTwo, UniformLevels
from tdc_train.projections.sets.n_m import NM, obeys_n_m
from tdc_train.projections.sets.patterns import KernelPatterns
from tdc_train.projections.sets.periodic import Periodic
from tdc_train.projections.sets.registry import ChosenSet, chosen_set, make_set
from tdc_train.projections.sets.sparse_basis import SparseBasis
from tdc_train.projections.sets.ternary import Ternary, TernarySum
from tdc_train.projections.sets.ternary_basis import TernaryBasis
from tdc_train.projections.sets.top_k import TopK

__all__ = [
    "NM",
    "ChosenSet",
    "ConstraintSet",
    "Footprint",
    "KernelBasis",
    "KernelPatterns",
    "Periodic",
    "PowersOfTwo",
    "SparseBasis",
    "Ternary",
    "TernaryBasis",
    "TernarySum",
    "TopK",
    "UniformLevels",
    "chosen_set",
    "make_set",
    "obeys_n_m",
]
