"""Layers that compute a convolution or a fully connected layer as a chain of smaller ones."""

from tdc_train.layers.basis_conv import BasisConv2d
from tdc_train.layers.factorised import FactorisedLayer, Init
from tdc_train.layers.svd import SvdConv2d, SvdLinear
from tdc_train.layers.tucker_conv import TuckerConv2d

__all__ = ["BasisConv2d", "FactorisedLayer", "Init", "SvdConv2d", "SvdLinear", "TuckerConv2d"]
