"""Decompose layer after layer, each for the input that those before it leave and the output that it had.

Decomposed for its input x in the dense network, a layer knows nothing of what the layers before it lost.
With x̃ its input behind them, the output that the dense network had, y = Wx + b, is met best by the kernel
that minimises E‖W(x−μ) − W̃(x̃−μ̃)‖², means taken out since the bias is free. Up to a constant that is
‖(W*−W̃)Σ̃^½‖² with W* = W·E[(x−μ)(x̃−μ̃)ᵀ]·Σ̃⁻¹: the data-aware problem of another kernel and moment.

Source: the asymmetric problem of Zhang, Zou, He and Sun, "Accelerating Very Deep Convolutional Networks for
Classification and Detection" (TPAMI 2016), there for one-sided low rank and with the nonlinearity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from polygraphy.backend.base import BaseRunner

from tdc_calibration.patches import patch_rows
from tdc_deploy.backends.base import Backend
from tdc_deploy.compress import Selection, decompose_layers
from tdc_deploy.graph.convs import kernel
from tdc_deploy.graph.decompose import decompose_conv
from tdc_deploy.graph.network import Network, model_of
from tdc_deploy.graph.prefix import prefix_of
from tdc_deploy.repair import Repair, sample_rows
from tdc_deploy.samples import Samples
from tdc_deploy.source import Source
from tdc_deploy.tucker import Factors
from tdc_deploy.tucker.data_aware import data_aware_decompose
from tdc_deploy.types import ConvLayer
from tdc_deploy.verify import compare_outputs, run_all

Array = NDArray[np.float64]

# The price of leaving W: λ‖W−W̃‖² is added to what is minimised, λ this share of the mean eigenvalue of Σ̃
# times elements over patches: few patches say little but noise. On a trained VGG-16 whose last layers have
# four patches of 1152 elements an image, 0.03, 0.3 and 3 left errors of 0.206, 0.200 and 0.200.
SHRINKAGE = 0.3
# At least this share of the mean square, means included: float32 activations that should be the same differ
# by 1e-6 of their size after some layers, and nothing is to be fitted to that.
NOISE = 1e-12

# So many patches for each of a patch's elements make a covariance that is good enough; more than these
# samples are not looked at, fewer than those never.
PATCHES_PER_ELEMENT = 128
MOST_SAMPLES = 512
LEAST_SAMPLES = 32

# Every so many samples one is held out, to tell whether the sequence is better.
HELD_OUT = 4
MIN_SAMPLES = 16
"""Fewer show nothing."""


@dataclass(frozen=True, eq=False)
class SequentialChoice:
    """Decomposes selections in sequence where that is better on samples that it has not seen.

    `samples` are split for it: three quarters decompose and correct, the last one decides.
    """

    samples: Samples
    backend: Backend

    def __call__(self, source: Source, selection: Selection) -> dict[str, Factors]:
        """The factors, or none if the network is no closer to the source than it is decomposed as ever."""
        if len(self.samples) < MIN_SAMPLES or not self.samples.real:
            return {}
        numbers = np.arange(len(self.samples))
        held_out = self.samples.take(numbers[numbers % HELD_OUT == 0])
        seen = self.samples.take(numbers[numbers % HELD_OUT != 0])
        tensors = [source.convs[name].node.outputs[0].name for name in selection]
        repair = Repair(source.network, tensors, seen, self.backend)
        factors = sequential_factors(source, selection, seen, repair, self.backend)
        before, after = (
            self._error(source, selection, repair, held_out, given) for given in ({}, factors)
        )
        return factors if after < before else {}

    def _error(
        self,
        source: Source,
        selection: Selection,
        repair: Repair,
        samples: Samples,
        given: Mapping[str, Factors],
    ) -> float:
        model = model_of(decompose_layers(source, selection, repair, refine=True, given=given))
        with (
            self.backend.runner(model_of(source.network)) as one,
            self.backend.runner(model) as other,
        ):
            before, after = run_all(one, samples), run_all(other, samples)
        return compare_outputs(before, after, samples).error


@dataclass(frozen=True, eq=False)
class JointMoments:
    """Covariance Σ̃ of a layer's patches x̃ in one network [P, P], and E[(x−μ)(x̃−μ̃)ᵀ] [P, P] with
    those in another, the shrinkage in both.
    """

    own: Array
    crossed: Array


Target = Callable[[NDArray[np.floating], JointMoments], Array]
"""The kernel [M, C, kh, kw] to decompose in the place of a layer's own."""


def sequential_factors(
    source: Source,
    selection: Selection,
    samples: Samples,
    repair: Repair | None,
    backend: Backend,
    target: Target | None = None,
) -> dict[str, Factors]:
    """Factors of the selected layers with statistics, in graph order, each decomposed behind those before
    it, decomposed and corrected by `repair`; what is decomposed is `target`, by default `best_kernel`.

    Layers whose statistics are by channel, or that have none, are decomposed as ever.
    """
    network = source.network.copy()
    factors: dict[str, Factors] = {}
    for name in [node.name for node in source.network.graph.nodes if node.name in selection]:
        candidate, layer = selection[name], source.plannable[name]
        if candidate.ranks is None:
            continue
        node = next(node for node in network.graph.nodes if node.name == name)
        made = source.decompositions.factors(name, candidate, refine=True)
        if source.decompositions.is_data_aware(name) and not source.decompositions.by_channel(name):
            few = samples.spread(_enough(layer))
            joint = joint_moments(source.network, network, layer, few, backend)
            wanted = (target or best_kernel)(kernel(node), joint)
            made = data_aware_decompose(wanted, joint.own, candidate.form, candidate.ranks)
        factors[name] = made
        ends = decompose_conv(network.graph, node, made)[-1:]
        if repair is not None:
            repair.correct(network, ends)
    return factors


def best_kernel(weight: NDArray[np.floating], joint: JointMoments) -> Array:
    """W* [M, C, kh, kw], which on x̃ comes closest to what `weight` gives on x."""
    w = np.asarray(weight, np.float64)
    if not joint.own.any():
        return w
    wanted = w.reshape(len(w), -1) @ joint.crossed
    return np.asarray(np.linalg.solve(joint.own, wanted.T).T.reshape(w.shape))


def joint_moments(
    dense: Network, network: Network, layer: ConvLayer, samples: Samples, backend: Backend
) -> JointMoments:
    """Measure a layer's patches in a network and in the dense one, on the same samples."""
    before, after = (_input_of(each, layer.name) for each in (dense, network))
    size = layer.c_in * layer.kernel[0] * layer.kernel[1]
    own, crossed = np.zeros((size, size)), np.zeros((size, size))
    sums, count = np.zeros((2, size)), 0
    origin: tuple[NDArray[np.floating], ...] = ()
    with backend.runner(model_of(before)) as one, backend.runner(model_of(after)) as other:
        for feeds, rows in samples.batches():
            inputs = (
                sample_rows(_run(runner, prefix, feeds), rows, samples.batch)
                for runner, prefix in ((one, before), (other, after))
            )
            for x, y in zip(*(patch_rows(value, layer) for value in inputs), strict=True):
                # Products in float32, rounded by a share of what is multiplied: of how far values lie
                # from the first ones' mean, not from zero. A channel that never changes leaves zero.
                origin = origin or (_mean(x), _mean(y))
                x, y = x - origin[0], y - origin[1]
                own += y.T @ y
                crossed += x.T @ y
                sums += x.sum(0, np.float64), y.sum(0, np.float64)
                count += len(x)
    mean_x, mean_y = sums / count
    own = own / count - np.outer(mean_y, mean_y)
    crossed = crossed / count - np.outer(mean_x, mean_y)
    square = float(np.mean(own.diagonal() + (origin[1] + mean_y) ** 2))
    ridge = max(SHRINKAGE * own.trace() / count, NOISE * square)
    shrinkage = ridge * np.eye(size)
    return JointMoments((own + own.T) / 2 + shrinkage, crossed + shrinkage)


def _mean(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    """Of each column, in the rows' type; of equal numbers exactly that number."""
    mean: NDArray[np.floating] = rows.mean(0, dtype=np.float64).astype(rows.dtype)
    return mean


def _enough(layer: ConvLayer) -> int:
    """So many samples, each with the layer's outputs as patches."""
    elements = layer.c_in * layer.kernel[0] * layer.kernel[1]
    wanted = PATCHES_PER_ELEMENT * elements // math.prod(layer.out_hw)
    return min(max(wanted, LEAST_SAMPLES), MOST_SAMPLES)


def _input_of(network: Network, name: str) -> Network:
    (node,) = (node for node in network.graph.nodes if node.name == name)
    return prefix_of(network, [node], inputs=True)


def _run(
    runner: BaseRunner, prefix: Network, feeds: Mapping[str, NDArray[np.float32]]
) -> NDArray[np.float32]:
    fed = {tensor.name for tensor in prefix.graph.inputs}
    used = {name: array for name, array in feeds.items() if name in fed}
    (value,) = runner.infer(used, check_inputs=False).values()
    return np.asarray(value, np.float32)  # of a float16 model too, whose sums would overflow
