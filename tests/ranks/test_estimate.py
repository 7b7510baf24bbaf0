"""Ranks from weights alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.ranks import estimate
from tdc_deploy.ranks.estimate import by_energy, by_vbmf
from tdc_deploy.tucker import chain_cost, decompose, dense_cost, reconstruct, tucker2_errors
from tdc_deploy.types import DENSE, Candidate, Ranks
from tests.helpers import Array, decaying
from tests.ranks.tables import conv_layer


def planted(r_out: int, r_in: int, noise: float = 0.05) -> Array:
    """A kernel [64, 64, 3, 3] of these ranks, with noise."""
    rng = np.random.default_rng(0)
    core = rng.standard_normal((r_out, r_in, 3, 3))
    left, right = rng.standard_normal((64, r_out)), rng.standard_normal((64, r_in))
    kernel = np.einsum("ma,abyx,cb->mcyx", left, core, right)
    return np.asarray(kernel / kernel.std() + noise * rng.standard_normal(kernel.shape))


def lost(kernel: Array, candidate: Candidate) -> float:
    assert candidate.ranks is not None
    near = reconstruct(decompose(kernel, candidate.form, candidate.ranks))
    return float(((kernel - near) ** 2).sum() / (kernel**2).sum())


def test_vbmf_finds_what_was_planted_in_steps() -> None:
    kernel = planted(21, 11)
    exact = by_vbmf(step=1)(conv_layer(), kernel)
    assert (exact.form, exact.ranks) == ("tucker2", Ranks(11, 21))
    assert abs(exact.error - lost(kernel, exact)) <= 1e-12
    assert by_vbmf()(conv_layer(), kernel).ranks == Ranks(16, 24)


def test_noise_keeps_one_step() -> None:
    noise = np.random.default_rng(1).standard_normal((64, 64, 3, 3))
    assert by_vbmf()(conv_layer(), noise).ranks == Ranks(8, 8)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ((20, 33), Candidate("tucker2", Ranks(24, 40), "fused")),
        ((9, 60), Candidate("tucker_in", Ranks(16, 64))),
        ((64, 9), Candidate("tucker_out", Ranks(64, 16))),
        ((64, 64), DENSE),
        # No rank is left out, but the chain has more arithmetic than the layer.
        ((56, 56), DENSE),
    ],
)
def test_a_full_mode_has_no_rank_and_a_dear_chain_is_dense(
    monkeypatch: pytest.MonkeyPatch, found: tuple[int, int], wanted: Candidate
) -> None:
    monkeypatch.setattr(estimate, "kernel_ranks", lambda _: found)
    kernel = decaying(np.random.default_rng(1), 64, 64, 3, 3)
    assert replace(by_vbmf()(conv_layer(), kernel), error=0.0) == wanted


def test_a_pointwise_kernel_gets_an_svd() -> None:
    rng = np.random.default_rng(2)
    kernel = rng.standard_normal((64, 10)) @ rng.standard_normal((10, 64))
    kernel = (kernel + 0.1 * rng.standard_normal(kernel.shape))[:, :, None, None]
    layer = conv_layer(size=1)
    assert by_vbmf()(layer, kernel).ranks == Ranks(16, 16)
    found = by_energy(0.99)(layer, kernel)
    assert (found.form, found.ranks) == ("svd", Ranks(16, 16))
    assert by_energy(0.9999)(layer, kernel).form == "dense"


@pytest.mark.parametrize("energy", [0.3, 0.5, 0.8])
def test_energy_takes_the_cheapest_that_keeps_it(energy: float) -> None:
    layer, kernel = conv_layer(), decaying(np.random.default_rng(3), 64, 64, 3, 3, decay=0.4)
    found = by_energy(energy)(layer, kernel)
    assert lost(kernel, found) <= 1 - energy
    macs = chain_cost(layer, found).macs
    assert macs < dense_cost(layer).macs
    errors = tucker2_errors(kernel)
    cheaper = [
        (r_in, r_out)
        for r_in in range(8, 64, 8)
        for r_out in range(8, 64, 8)
        if chain_cost(layer, Candidate("tucker2", Ranks(r_in, r_out), "fused")).macs < macs
    ]
    assert cheaper
    assert all(errors[r_out, r_in] > 1 - energy for r_in, r_out in cheaper)


def test_bad_values() -> None:
    for energy in (0.0, 1.0, float("nan")):
        with pytest.raises(TdcError, match="energy is"):
            by_energy(energy)
    for make in (by_vbmf, lambda step: by_energy(0.9, step)):
        with pytest.raises(TdcError, match="step is 0"):
            make(0)
