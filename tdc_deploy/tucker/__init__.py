"""Tucker-2 and SVD of convolution kernels: pure NumPy, no ONNX and no torch."""

from tdc_deploy.tucker.cost import Cost, chain_cost, dense_cost
from tdc_deploy.tucker.decompose import Bases, Factors, decompose, mode_bases, reconstruct, tucker2
from tdc_deploy.tucker.errors import svd_errors, tucker2_errors

__all__ = [
    "Bases",
    "Cost",
    "Factors",
    "chain_cost",
    "decompose",
    "dense_cost",
    "mode_bases",
    "reconstruct",
    "svd_errors",
    "tucker2",
    "tucker2_errors",
]
