"""Arithmetic, parameters and memory traffic of a convolution and of the chains that replace it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tdc_deploy.types import Candidate, ConvLayer


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates, parameters (biases not counted) and activation bytes read and written."""

    macs: int
    params: int
    activation_bytes: int

    @property
    def flops(self) -> int:
        """Two per multiply-accumulate."""
        return 2 * self.macs

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.macs + other.macs,
            self.params + other.params,
            self.activation_bytes + other.activation_bytes,
        )


ZERO = Cost(0, 0, 0)


def dense_cost(layer: ConvLayer) -> Cost:
    """What the layer costs as it is; each activation is counted once read and once written."""
    h, w = layer.out_hw
    params = layer.c_out * layer.c_in // layer.groups * layer.kernel[0] * layer.kernel[1]
    elements = layer.c_in * layer.in_hw[0] * layer.in_hw[1] + layer.c_out * h * w
    itemsize = 2 if layer.dtype == "float16" else 4
    return Cost(params * h * w * layer.batch, params, elements * layer.batch * itemsize)


def chain_cost(layer: ConvLayer, candidate: Candidate) -> Cost:
    """What the layer costs as `candidate`; a fused chain neither writes nor reads its intermediates."""
    total = sum((dense_cost(part) for part in chain_layers(layer, candidate)), ZERO)
    if candidate.implementation == "fused":
        return replace(total, activation_bytes=dense_cost(layer).activation_bytes)
    return total


def chain_layers(layer: ConvLayer, candidate: Candidate) -> list[ConvLayer]:
    """The convolutions that `candidate` runs, in order, at the shapes they run at.

    An svd chain strides in its first convolution: a 1x1 kernel reads only the pixels it keeps.
    """
    if candidate.ranks is None:
        return [layer]
    r_in, r_out = candidate.ranks.r_in, candidate.ranks.r_out
    name = layer.name
    pointwise = replace(layer, kernel=(1, 1), strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1))
    expand = replace(pointwise, name=f"{name}/last", c_in=r_out, in_hw=layer.out_hw)
    if candidate.form == "svd":
        return [replace(layer, name=f"{name}/first", c_out=r_in), expand]
    reduce = replace(pointwise, name=f"{name}/first", c_out=r_in)
    if candidate.form == "tucker_in":
        return [reduce, replace(layer, name=f"{name}/core", c_in=r_in)]
    if candidate.form == "tucker_out":
        return [replace(layer, name=f"{name}/core", c_out=r_out), expand]
    return [reduce, replace(layer, name=f"{name}/core", c_in=r_in, c_out=r_out), expand]
