"""Taking chains back, in made-up worlds whose best answer is known."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from tdc_deploy.profiling.measure import Effort
from tdc_deploy.revert import MOST_DENSE, MOST_NATIVE, PLANNED, Reverted, revert
from tdc_deploy.types import Ratio
from tests.fakes import constant_timing

LAYERS = [f"conv{i}" for i in range(5)]
CHAINS = [f"{name}/last" for name in LAYERS]


@dataclass
class World:
    """The time of a network by a formula; an interval reaches `width` to each side."""

    ms: Callable[[Reverted], float]
    width: float = 0.01
    cannot: set[Reverted] = field(default_factory=set)
    built: set[Reverted] = field(default_factory=lambda: {PLANNED})

    def compare(
        self, base: Reverted, others: Sequence[Reverted], _effort: Effort
    ) -> list[Ratio | None]:
        assert base in self.built
        self.built |= set(others)
        return [None if other in self.cannot else self._ratio(base, other) for other in others]

    def _ratio(self, base: Reverted, other: Reverted) -> Ratio:
        times = [self.ms(base), self.ms(other)]
        value = times[1] / times[0]
        bounds = (value, value - self.width, value + self.width)
        return Ratio(*bounds, *map(constant_timing, times))


def additive(native: dict[str, float], dense: dict[str, float] | None = None) -> World:
    """Each chain changes the time of 10 ms by so much when it is native, each layer when it is dense."""

    def ms(back: Reverted) -> float:
        total = sum(native.get(name, 1) for name in back.native if name[:-5] not in back.dense)
        return 10 + total + sum((dense or {}).get(name, 1) for name in back.dense)

    return World(ms)


@pytest.mark.parametrize(
    "bad",
    list(itertools.chain.from_iterable(itertools.combinations(CHAINS, n) for n in (0, 1, 2, 5))),
)
def test_finds_every_bad_chain_and_keeps_the_good_ones(bad: tuple[str, ...]) -> None:
    world = additive(dict.fromkeys(bad, -0.5))
    assert revert(CHAINS, LAYERS, world.compare) == Reverted(native=frozenset(bad))


def test_a_layer_may_be_best_dense() -> None:
    native = {"conv1/last": -0.5, "conv3/last": -0.5}
    world = additive(native, {"conv3": -2.0, "conv4": -0.7})
    kept = revert(CHAINS, LAYERS, world.compare)
    every = [Reverted(frozenset(a), frozenset(b)) for a in subsets(CHAINS) for b in subsets(LAYERS)]
    assert world.ms(kept) == min(map(world.ms, every))
    assert kept.dense == {"conv3", "conv4"}


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    return [s for n in range(len(names) + 1) for s in itertools.combinations(names, n)]


def test_what_is_within_the_noise_is_kept() -> None:
    world = additive(dict.fromkeys(CHAINS, -0.05))
    assert revert(CHAINS, LAYERS, world.compare) == PLANNED


def test_steps_that_only_help_alone() -> None:
    """Each is faster alone, both are slower: the better one is kept."""

    def ms(back: Reverted) -> float:
        first, second = (name in back.native for name in CHAINS[:2])
        return 12.0 if first and second else 10 - 0.5 * first - 0.8 * second + len(back.dense)

    world = World(ms)
    assert revert(CHAINS[:2], [], world.compare) == Reverted(native=frozenset({"conv1/last"}))


def test_a_gain_that_a_longer_measurement_does_not_confirm() -> None:
    seen: list[Reverted] = []

    def ms(back: Reverted) -> float:
        seen.append(back)
        once = back.native == {"conv0/last"} and seen.count(back) == 1
        return 9.0 if once else 10.0 + len(back.native)

    assert revert(CHAINS, [], World(ms).compare) == PLANNED


def test_what_cannot_be_built_is_no_step() -> None:
    world = additive({"conv0/last": -5, "conv1/last": -0.5})
    world.cannot = {Reverted(native=frozenset({"conv0/last"}))}
    assert revert(CHAINS, LAYERS, world.compare).native == {"conv1/last"}


@pytest.mark.parametrize("count", [1, 16, 17, 53])
def test_the_number_of_engines_is_bounded(count: int) -> None:
    layers = [f"conv{i}" for i in range(count)]
    chains = [f"{name}/last" for name in layers]
    # All of them help, so that every round also builds what they make together.
    world = additive(dict.fromkeys(chains, -0.1), dict.fromkeys(layers, -0.15))
    world.width = 1e-6
    kept = revert(chains, layers, world.compare)
    assert len(world.built - {PLANNED}) <= MOST_NATIVE + 1 + MOST_DENSE + 1
    assert kept.native == set(chains)
    assert len(kept.dense) == min(count, MOST_DENSE)


def test_what_was_taken_back_is_the_first_to_be_tried_dense() -> None:
    layers = [f"conv{i}" for i in range(12)]
    chains = [f"{name}/last" for name in layers]
    world = additive({"conv11/last": -0.5}, {"conv11": -2.0})
    assert revert(chains, layers, world.compare).dense == {"conv11"}
