"""Which layers of a network stay float32 where the rest computes in float16, by what data say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tdc_calibration.fallback import fall_back
from tdc_calibration.half_network import HalfNetwork
from tdc_deploy.progress import Progress

# Ranges need few; each layer alone is run on all of these.
SAMPLES = 32

# A layer that alone moves the output by more than this share stays float32, whatever the limits.
MOST_ERROR = 0.01


def exact_nodes(
    half: HalfNetwork, holds: Callable[[Sequence[str]], bool], progress: Progress
) -> list[str]:
    """The nodes that stay float32: what overflows, layers that lose more than MOST_ERROR, and of the
    others as few as it takes for the limits to hold.

    Args:
        half: the network, measured on calibration data.
        holds: whether the limits hold where these layers stay float32 besides what overflows.
        progress: told of the layers that are measured.
    """
    errors = {}
    for done, layer in enumerate(half.layers):
        progress("measuring what float16 costs each layer", done, len(half.layers))
        errors[layer] = half.error_alone(layer)
    # A NaN fails the comparison.
    costly = [layer for layer in half.layers if not errors[layer] <= MOST_ERROR]
    free = [layer for layer in half.layers if layer not in costly]
    kept = fall_back(free, errors.__getitem__, lambda layers: holds([*costly, *layers]), progress)
    return [*half.overflowing, *costly, *(kept or [])]
