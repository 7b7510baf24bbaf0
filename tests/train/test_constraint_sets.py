"""Constraint sets: the exact ones against all supports, patterns and level assignments there are; the
others feasible, idempotent, monotone in their budget, and never farther than what is usual.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from tdc_train.admm import Admm
from tdc_train.projections.sets import (
    NM,
    ConstraintSet,
    KernelPatterns,
    Periodic,
    PowersOfTwo,
    SparseBasis,
    Ternary,
    TernaryBasis,
    TernarySum,
    TopK,
    UniformLevels,
    make_set,
    obeys_n_m,
)
from tdc_train.projections.sets.indices import sparse_bits
from tdc_train.projections.sets.patterns import frequent_patterns
from tdc_train.projections.sets.scales import alternated_scale, exact_scale

from tdc_deploy.errors import TdcError
from tests.train.set_samples import EXACT, ROUNDED, distance, kernel, ready
from tests.train.small_models import relative

SETS: list[ConstraintSet] = [
    TopK(0.2),
    TopK(kept=7),
    NM(2, 4),
    NM(1, 8),
    KernelPatterns(patterns=4, kernels=0.6),
    Periodic(period=3, density=0.3),
    SparseBasis(basis=4, density=0.3),
    SparseBasis(basis=5, density=0.1),
    TernaryBasis(basis=4),
    UniformLevels(3),
    UniformLevels(8, scope="layer"),
    PowersOfTwo(3),
    PowersOfTwo(4, scope="channel"),
    Ternary(),
    Ternary(scope="layer"),
    TernarySum(2),
    TernarySum(3, scope="layer"),
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", SETS, ids=lambda kind: f"{kind.name} {kind.describe()}")
def test_a_projection_stays_where_it_is(kind: ConstraintSet, dtype: Any) -> None:
    weight = kernel(12, 16, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
    before = weight.clone()
    project = ready(kind, weight)
    found = project(weight)
    assert (found.shape, found.dtype, found.requires_grad) == (weight.shape, dtype, False)
    assert torch.equal(weight, before)
    if dtype == torch.bfloat16:
        # Its rounding leaves most sets again.
        assert relative(found, project(weight.float())) <= 0.01
        return
    assert relative(project(found), found) <= ROUNDED
    # What is zero is so in every bit.
    assert not torch.signbit(found[found == 0]).any()
    # It is no other one's set: it moved.
    assert relative(found, weight) >= 1e-3
    again = make_set(project.table())
    assert again == project and torch.equal(again(weight), found)


@pytest.mark.parametrize("kind", SETS, ids=lambda kind: f"{kind.name} {kind.describe()}")
def test_a_weight_of_zeros_is_in_every_set(kind: ConstraintSet) -> None:
    zeros = torch.zeros(12, 16, 3, 3)
    project = ready(kind, kernel(12, 16, 3, 3, dtype=torch.float32))
    assert torch.equal(project(zeros), zeros)
    assert project.footprint(zeros).bits >= 0


def test_top_k_is_the_nearest_of_all_supports() -> None:
    weight = kernel(2, 5)
    for kept in range(1, 10):
        found = TopK(kept=kept)(weight)
        nearest = min(
            distance(weight, weight * torch.isin(torch.arange(10), torch.tensor(some)).view(2, 5))
            for some in itertools.combinations(range(10), kept)
        )
        assert abs(distance(weight, found) - nearest) <= EXACT
        assert int(found.count_nonzero()) == kept


def test_top_k_of_a_network_takes_from_where_least_is_lost() -> None:
    weights = {"large": 3 * kernel(4, 5), "small": kernel(3, 5, seed=1)}
    sets = TopK(0.4, scope="network").prepared(weights)
    both = torch.cat([w.flatten() for w in weights.values()])
    found = torch.cat([sets[name](w).flatten() for name, w in weights.items()])
    assert torch.equal(found, TopK(kept=14)(both[None])[0])
    with pytest.raises(TdcError, match="density of the network for one layer"):
        TopK(0.4, scope="network")(weights["large"])
    # A layer that would lose all keeps one.
    tiny = TopK(0.4, scope="network").prepared({**weights, "tiny": 1e-9 * kernel(2, 3)})["tiny"]
    assert int(tiny(kernel(2, 3)).count_nonzero()) == 1


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 4), (2, 8)])
def test_n_m_is_the_nearest_of_all_supports(n: int, m: int) -> None:
    weight = kernel(2, m, 1, 2)
    found = NM(n, m)(weight)
    # Filters and positions have nothing to do with each other.
    nearest = 0.0
    for filter_, x in itertools.product(range(2), range(2)):
        group = weight[filter_, :, 0, x]
        nearest += min(
            float(group.square().sum() - group[list(some)].square().sum())
            for some in itertools.combinations(range(m), n)
        )
    assert abs(distance(weight, found) - nearest) <= EXACT
    assert obeys_n_m(found, n, m) and not obeys_n_m(weight, n, m)


def test_two_of_four_is_nvidias_rule() -> None:
    found = NM()(kernel(6, 8, 3, 3))
    values = found.numpy()
    # The check in NVIDIA's TensorRT Developer Guide, entry by entry.
    for k, c, r, s in itertools.product(range(6), range(0, 8, 4), range(3), range(3)):
        assert sum(values[k, c + i, r, s] != 0 for i in range(4)) == 2
    # Two zeros in four filters, or in four entries of memory, are not enough.
    assert not obeys_n_m(found.transpose(0, 1).repeat(1, 2, 1, 1))
    assert not obeys_n_m(NM()(found.flatten(1)).roll(1, 1).reshape(found.shape) + found)
    assert not obeys_n_m(torch.zeros(4, 6, 3, 3)) and not obeys_n_m(torch.zeros(4))
    with pytest.raises(TdcError, match="6 input channels are no multiple of 4"):
        NM()(kernel(4, 6, 3, 3))


def test_patterns_are_the_nearest_of_all_choices() -> None:
    weight = kernel(2, 2, 3, 3)
    library = ((0, 1, 3, 4), (1, 4, 5, 7), (2, 4, 6, 8))
    found = KernelPatterns(kernels=0.5, library=library)(weight)
    kernels, nearest = weight.reshape(4, 9), float("inf")
    for chosen in itertools.product((None, *library), repeat=4):
        if sum(pattern is not None for pattern in chosen) <= 2:
            member = torch.zeros_like(kernels)
            for i, pattern in enumerate(chosen):
                if pattern is not None:
                    member[i, list(pattern)] = kernels[i, list(pattern)]
            nearest = min(nearest, distance(kernels, member))
    assert abs(distance(weight, found) - nearest) <= EXACT


def test_the_library_is_what_the_trained_kernels_have_most() -> None:
    masks = torch.zeros(12, 9)
    # Seven kernels of one pattern, four of another, one of a third, whose centre is weak.
    for i, pattern in enumerate([(0, 1, 3, 4)] * 7 + [(4, 5, 7, 8)] * 4 + [(0, 2, 6, 4)]):
        masks[i, list(pattern)] = 1
    weight = masks * torch.linspace(1, 2, 9) + 0.01 * kernel(12, 9, dtype=torch.float32)
    weight[11, 4] = 0.0
    parts = {"a": weight[:6].reshape(3, 2, 3, 3), "b": weight[6:].reshape(2, 3, 3, 3)}
    wanted = ((0, 1, 3, 4), (4, 5, 7, 8), (0, 2, 4, 6))
    assert frequent_patterns(parts, 3) == wanted
    assert frequent_patterns(parts, 2) == wanted[:2]
    prepared = KernelPatterns(patterns=3).prepared(parts)["b"]
    assert isinstance(prepared, KernelPatterns) and prepared.library == wanted
    with pytest.raises(TdcError, match="without a library"):
        KernelPatterns()(parts["a"])


def test_periodic_supports_are_the_nearest_of_all() -> None:
    weight = kernel(5, 2, 1, 3)
    found = Periodic(period=2, density=1 / 3)(weight)
    nearest = 0.0
    for phase in range(2):
        filters = weight[phase::2].flatten(1)
        nearest += min(
            float(filters.square().sum() - filters[:, list(some)].square().sum())
            for some in itertools.combinations(range(6), 2)
        )
    assert abs(distance(weight, found) - nearest) <= EXACT
    assert torch.equal(found[0] != 0, found[4] != 0)


def nearest_of_all_levels(row: Any, levels: Any) -> float:
    """The least squared distance over all assignments, each with its best scale."""
    some = torch.tensor(list(itertools.product(levels, repeat=len(row))), dtype=torch.float64)
    scales = (some @ row) / some.square().sum(1).clamp_min(1)
    return float((row - scales[:, None] * some).square().sum(1).min())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("top", [1, 3])
def test_uniform_levels_and_ternary_are_the_nearest_of_all(top: int, seed: int) -> None:
    row = kernel(5, seed=seed)
    kind = Ternary("layer") if top == 1 else UniformLevels(3, scope="layer")
    nearest = nearest_of_all_levels(row, range(-top, top + 1))
    assert abs(distance(row, kind(row.reshape(1, 5))[0]) - nearest) <= EXACT
    # Each filter for itself.
    rows = torch.stack([row, 10 * kernel(5, seed=seed + 9)])
    other = nearest_of_all_levels(rows[1], range(-top, top + 1))
    own = Ternary() if top == 1 else UniformLevels(3)
    assert abs(distance(rows, own(rows)) - nearest - other) <= 100 * EXACT


@pytest.mark.parametrize("seed", range(3))
def test_levels_that_keep_zeros_are_the_nearest_of_all(seed: int) -> None:
    row = kernel(6, seed=seed)
    row[[1, 4]] = 0.0
    found = UniformLevels(3, scope="layer", keep_zeros=True)(row.reshape(1, 6))[0]
    assert torch.equal(found != 0, row != 0)
    nearest = nearest_of_all_levels(row[row != 0], [-3, -2, -1, 1, 2, 3])
    assert abs(distance(row, found) - nearest) <= EXACT


def large_layer(kind: str) -> Any:
    """512x512x3x3, more than any layer of ResNet-18 or VGG has."""
    weight = kernel(512, 512, 3, 3, dtype=torch.float32)
    if kind == "lognormal":
        return weight.sign() * (1.5 * kernel(512, 512, 3, 3, seed=1)).exp().float()
    weight[3, 5, 1, 1] = 60.0
    return weight


@pytest.mark.parametrize("kind", ["outlier", "lognormal"])
@pytest.mark.parametrize("scope", ["layer", "channel"])
def test_ternary_is_the_nearest_of_large_layers_too(scope: str, kind: str) -> None:
    """For each number k of the largest that stay, the best scale leaves ‖w‖² − (Σ top-k)² / k."""
    weight = large_layer(kind)
    found = Ternary(scope)(weight)
    rows = weight.double().reshape(1 if scope == "layer" else 512, -1)
    members = found.double().reshape(rows.shape)
    sums = rows.abs().sort(1, descending=True).values.cumsum(1)
    gains = sums.square() / torch.arange(1, rows.shape[1] + 1, dtype=torch.float64)
    nearest = rows.square().sum(1) - gains.amax(1)
    left = (rows - members).square().sum(1)
    # At the best scale, rounding it to float32 changes the error by the rounding's square.
    assert bool((left <= nearest * (1 + ROUNDED)).all())
    assert bool((left >= nearest * (1 - ROUNDED)).all())


@pytest.mark.parametrize("outlier", [0.0, 60.0])
@pytest.mark.parametrize("least", [0, 1])
def test_alternation_comes_within_a_hundredth_of_the_best_scale(least: int, outlier: float) -> None:
    sizes = kernel(8, 5000).abs()
    sizes[:, ::5] = 0.0
    if outlier:
        sizes[:, 3] = outlier
    ones = torch.ones_like(sizes)
    for top in (1, 3, 7):
        errors = []
        for find in (exact_scale, alternated_scale):
            scale = find(sizes, top, least, ones)
            levels = (sizes / scale).round().clamp(least, top) * (sizes > 0)
            errors.append((sizes - scale * levels).square().sum(1))
        assert bool((errors[0] <= errors[1] * (1 + EXACT)).all())
        assert bool((errors[1] <= 1.01 * errors[0]).all())


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_powers_of_two_are_the_nearest_of_all(bits: int) -> None:
    count = 2 ** (bits - 1) - 1
    for seed in range(5):
        row = kernel(7, seed=seed) * 10.0 ** (seed - 2)
        found = PowersOfTwo(bits)(row.reshape(1, 7))[0]
        nearest = float("inf")
        for top in range(-30, 12):
            powers = [2.0 ** (top - i) for i in range(count)]
            levels = torch.tensor([0.0, *powers, *[-p for p in powers]], dtype=torch.float64)
            nearest = min(nearest, float((row[:, None] - levels).abs().amin(1).square().sum()))
        assert abs(distance(row, found) - nearest) <= EXACT * max(1.0, float(row.square().sum()))


def test_sums_of_ternary_are_no_farther_than_the_greedy_expansion() -> None:
    weight = kernel(4, 60)
    errors = [distance(weight, Ternary()(weight))]
    for terms in (2, 3):
        greedy = torch.zeros_like(weight)
        for _ in range(terms):
            greedy = greedy + Ternary()(weight - greedy)
        found = TernarySum(terms)(weight)
        errors.append(distance(weight, found))
        # The sweeps gain much on what greed leaves.
        assert errors[-1] <= 0.95 * distance(weight, greedy)
        for row in found:
            assert len(row.abs().mul(1e9).round().unique()) <= (3**terms + 1) // 2
    assert errors[2] < 0.5 * errors[1] < 0.25 * errors[0]
    assert relative(TernarySum(1)(weight), Ternary()(weight)) <= EXACT


@pytest.mark.parametrize("seed", range(3))
def test_larger_budgets_come_nearer(seed: int) -> None:
    weight = kernel(16, 8, 3, 3, seed=seed)
    budgets: list[list[ConstraintSet]] = [
        [SparseBasis(4, density=d) for d in (0.05, 0.1, 0.2, 0.4, 0.8)],
        [SparseBasis(d, density=1.0) for d in (1, 2, 4, 8)],
        [TernaryBasis(d) for d in (1, 2, 4, 6)],
        [TernarySum(n) for n in (1, 2, 3)],
        [TopK(d) for d in (0.1, 0.3, 1.0)],
        [UniformLevels(b) for b in (2, 3, 4, 8)],
        [PowersOfTwo(b) for b in (2, 3, 4)],
        [KernelPatterns(kernels=d) for d in (0.2, 0.6, 1.0)],
        [KernelPatterns(patterns=n) for n in (1, 4, 16)],
        [Periodic(period=n) for n in (1, 2, 4, 8)],
        [NM(n, 8) for n in (1, 3, 7)],
    ]
    for sets in budgets:
        errors = [distance(weight, ready(kind, weight)(weight)) for kind in sets]
        assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize(
    ("places", "wanted"),
    [
        # 1,000 places: a bitmap; ten gaps of 99 in 7 bits; gaps of 499 in 9 bits.
        (range(0, 1000, 2), (500 * 8, 500 * 2)),
        (range(99, 1000, 100), (10 * 8, 10 * 7)),
        ([499, 999], (2 * 8, 2 * 9)),
        # One gap of 949 in 8 bits: three zeros are stored in it.
        ([*range(50), 999], (54 * 8, 54 * 8)),
        ([], (0, 1)),
    ],
)
def test_indices_are_counted_in_the_cheaper_format(places: Any, wanted: tuple[int, int]) -> None:
    mask = torch.zeros(1000, dtype=torch.bool)
    mask[list(places)] = True
    assert sparse_bits(mask, 8) == wanted


def test_what_members_take() -> None:
    weight = kernel(8, 16, 3, 3, dtype=torch.float32)
    count = weight.numel()

    def of(kind: ConstraintSet) -> tuple[int, int, int, int]:
        project = ready(kind, weight)
        found = project.footprint(project(weight))
        assert (found.dense_bits, found.dense_macs) == (32 * count, count)
        return found.value_bits, found.index_bits, found.shared_bits, found.macs

    assert of(NM()) == (32 * count // 2, 2 * count // 2, 0, count // 2)
    assert of(TopK(0.5)) == (16 * count, count, 0, count // 2)
    assert of(KernelPatterns(8, 0.5)) == (64 * 4 * 32, 128 + 64 * 3, 8 * 9, 64 * 4)
    assert of(Periodic(4, 0.25)) == (8 * 36 * 32, 0, 4 * 144, 8 * 36)
    assert of(Ternary())[:3] == (2 * count, 0, 8 * 32)
    assert of(TernarySum(2, "layer"))[:3] == (4 * count, 0, 2 * 32)
    assert of(UniformLevels(4))[:3] == (4 * count, 0, 8 * 32)
    assert of(PowersOfTwo(4))[:3] == (4 * count, 0, 8)
    kept = round(0.25 * 128 * 5)
    # 640 places for 160 coefficients: the bitmap costs as much as gaps of two bits and a few zeros.
    values, indices, shared, macs = of(SparseBasis(5, density=0.25))
    assert kept * 32 <= values and values + indices <= kept * 32 + 640
    assert (shared, macs) == (5 * 9 * 32, 16 * 45 + kept)
    assert of(TernaryBasis(5))[:3] == (2 * 640, 0, (45 + 8) * 32)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "topk"}, "set name is 'topk'(.|\n)*did you mean 'top_k'"),
        ({}, "set name is None"),
        ({"name": "top_k", "densty": 0.1}, "unknown key 'densty'(.|\n)*did you mean 'density'"),
        ({"name": "top_k", "density": 0}, "density is 0"),
        ({"name": "top_k", "density": [0.1]}, "density of set top_k is"),
        ({"name": "top_k", "scope": "filter"}, "scope is 'filter'"),
        ({"name": "n_m", "n": 4, "m": 4}, "n is 4"),
        ({"name": "n_m", "n": True}, "n is True"),
        ({"name": "patterns", "patterns": 57}, "patterns is 57"),
        ({"name": "patterns", "library": [[0, 9]]}, "library is"),
        ({"name": "patterns", "library": [1, 2]}, "library is"),
        ({"name": "sparse_basis", "basis": 2, "start": [1, 2]}, "start is"),
        ({"name": "sparse_basis", "basis": 2, "start": [[1.0], [1.0, 2.0]]}, "start is"),
        ({"name": "sparse_basis", "basis": 2, "start": [[1.0, 2.0]]}, "start is"),
        ({"name": ["top_k"]}, "set name is"),
        ({"name": "patterns", "library": 3}, "library of set patterns is 3"),
        ({"name": "sparse_basis", "basis": 10}, "basis is 10"),
        ({"name": "levels", "keep_zeros": 1}, "keep_zeros of set levels is 1"),
        ({"name": "levels", "bits": 1}, "bits is 1"),
        ({"name": "ternary_sum", "terms": 4}, "terms is 4"),
    ],
)
def test_what_is_no_set_is_said(table: dict[str, Any], message: str) -> None:
    with pytest.raises(TdcError, match=message):
        make_set(table)


@pytest.mark.parametrize("kind", [KernelPatterns(library=((4,),)), SparseBasis(5), TernaryBasis(5)])
def test_weights_of_another_kind_are_refused(kind: ConstraintSet) -> None:
    with pytest.raises(TdcError, match=r"of a weight of shape \(4, 4, 1, 1\)"):
        kind(torch.zeros(4, 4, 1, 1))


def test_admm_takes_every_set() -> None:
    for kind in SETS:
        weight = torch.nn.Parameter(kernel(12, 16, 3, 3, dtype=torch.float32))
        admm = Admm({"w": weight}, kind.prepared({"w": weight}), rho=1.0)
        start = admm.residuals().primal
        optimiser = torch.optim.SGD([weight], lr=0.2)
        for _ in range(12):
            admm.start_epoch()
            for _ in range(5):
                optimiser.zero_grad()
                admm.penalty().backward()
                optimiser.step()
        assert admm.residuals().primal < 0.5 * start, kind.describe()
