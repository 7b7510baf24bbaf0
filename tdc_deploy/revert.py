"""Take back, chain by chain, what makes an engine slower than it could be.

A plugin is a wall for TensorRT's fusions, and may ask for conversions around it: a chain that is faster
alone may make the network slower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tdc_deploy.compress import last_node
from tdc_deploy.profiling.measure import FINAL, NETWORK, Effort
from tdc_deploy.types import Ratio

MOST_NATIVE = 16
MOST_DENSE = 6
"""So many engines are built at most to try chains without the plugin, and layers as they came; each round
builds one more, of all that helped."""


@dataclass(frozen=True)
class Reverted:
    """What differs from the plan: fused operators, by name, that are chains of convolutions again, and
    layers that are as they came.
    """

    native: frozenset[str] = frozenset()
    dense: frozenset[str] = frozenset()

    def __or__(self, other: Reverted) -> Reverted:
        return Reverted(self.native | other.native, self.dense | other.dense)


PLANNED = Reverted()

Compare = Callable[[Reverted, Sequence[Reverted], Effort], Sequence[Ratio | None]]
"""Builds the engines of all that are named, then measures each of the second against the first; None for
one that cannot be built, or loses more than is allowed."""


def revert(fused: Sequence[str], layers: Sequence[str], compare: Compare) -> Reverted:
    """What to take back of a plan; every step that is kept was measured to be faster.

    Args:
        fused: the names of the fused operators, the most suspect first.
        layers: the layers that may be left dense, likewise.
        compare: builds and measures.
    """
    groups = _groups(fused, MOST_NATIVE)
    current = _round(PLANNED, [Reverted(native=frozenset(g)) for g in groups], compare)
    # A chain that the plugin made slower is the first to be suspected of being none at all.
    suspects = sorted(layers, key=lambda name: last_node(name) not in current.native)
    dense = [Reverted(dense=frozenset({name})) for name in suspects[:MOST_DENSE]]
    return _round(current, dense, compare)


def _groups(names: Sequence[str], most: int) -> list[Sequence[str]]:
    """Each name alone, or neighbours together where there are more than `most`."""
    size = max(1, -(-len(names) // most))
    return [names[i : i + size] for i in range(0, len(names), size)]


def _round(base: Reverted, steps: Sequence[Reverted], compare: Compare) -> Reverted:
    """The base with every step that is measurably faster alone, if they are so together; else with
    the best of them, if a longer measurement confirms it; else the base.
    """
    if not steps:
        return base
    ratios = compare(base, [base | step for step in steps], NETWORK)
    faster = sorted(
        (ratio.value, i) for i, ratio in enumerate(ratios) if ratio is not None and ratio.upper < 1
    )
    if not faster:
        return base
    together = base
    for _, i in faster:
        together |= steps[i]
    for candidate in dict.fromkeys((together, base | steps[faster[0][1]])):
        (ratio,) = compare(base, [candidate], FINAL)
        if ratio is not None and ratio.upper < 1:
            return candidate
    return base
