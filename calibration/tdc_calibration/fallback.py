"""Which layers go back to float32, so that a network in fewer bits keeps its limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tdc_deploy.progress import Progress

Layers = Sequence[str]


def fall_back(
    layers: Layers,
    error_alone: Callable[[str], float],
    holds: Callable[[Layers], bool],
    progress: Progress,
) -> list[str] | None:
    """The layers to keep exact: none if the limits hold so, else as few as possible of those that cost
    the most.

    Args:
        layers: all that compute in fewer bits.
        error_alone: the network's error where only this layer does.
        holds: whether the network keeps its limits where these layers are exact. It is asked about
            log2(layers) times, since more exact layers make less error.

    Returns:
        The layers, most costly first; None if the limits do not hold even with all of them exact.
    """
    if holds([]):
        return []
    if not holds(layers):
        return None
    errors = {}
    for done, layer in enumerate(layers):
        progress("measuring each layer's part in the rounding", done, len(layers))
        errors[layer] = error_alone(layer)
    order = sorted(layers, key=lambda layer: -errors[layer])
    missed, enough = 0, len(order)
    while enough - missed > 1:
        middle = (missed + enough) // 2
        if holds(order[:middle]):
            enough = middle
        else:
            missed = middle
    return order[:enough]
