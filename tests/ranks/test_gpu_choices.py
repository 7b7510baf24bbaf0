"""What is worth an engine's build."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest

from tdc_deploy.backends.tensorrt.embedded import Embedding
from tdc_deploy.backends.tensorrt.embedded_kernels import why_not
from tdc_deploy.profiling.analytical.chips import find_device
from tdc_deploy.profiling.analytical.shapes import TuckerShape
from tdc_deploy.profiling.bounds import Roofline
from tdc_deploy.profiling.layers import layer_model
from tdc_deploy.ranks.candidates import candidate_errors
from tdc_deploy.ranks.gpu_choices import MOST_FUSED, MOST_NATIVE, GpuChoices
from tdc_deploy.types import Candidate, ConvLayer, Ranks
from tests.helpers import decaying
from tests.ranks.tables import conv_layer

A100 = find_device("A100")
CHOICES = GpuChoices(A100, "fp16")
LAYER = conv_layer("conv", 96, 96)
ANY = Roofline(1e30)
FUSED = Candidate("tucker2", Ranks(16, 24), "fused")


def errors_of(layer: ConvLayer, candidates: list[Candidate], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    weight = decaying(rng, layer.c_out, layer.c_in, *layer.kernel, decay=0.7)
    return np.array([candidate_errors(weight, candidates, None)])


def kept(choices: GpuChoices, layer: ConvLayer, dense_ms: float = 1e9) -> list[Candidate]:
    offered = choices.offered(layer)
    errors = errors_of(layer, offered)
    return [offered[i] for i in choices.worth_measuring(layer, offered, errors, dense_ms, ANY)]


def kind(candidate: Candidate) -> tuple[str, str]:
    return candidate.implementation, candidate.form


@pytest.mark.parametrize("paper_grid", [False, True])
@pytest.mark.parametrize("channels", [24, 32, 100, 256])
def test_ranks_are_whole_vectors(channels: int, paper_grid: bool) -> None:
    layer = conv_layer("conv", channels, channels)
    offered = replace(CHOICES, paper_grid=paper_grid).offered(layer)
    assert offered
    for candidate in offered:
        assert candidate.ranks is not None
        for rank in (candidate.ranks.r_in, candidate.ranks.r_out):
            assert rank % 8 == 0 or rank == channels


def test_every_pair_of_ranks_is_offered_both_ways() -> None:
    offered = CHOICES.offered(LAYER)
    pairs = {
        how: {c.ranks for c in offered if c.form == "tucker2" and c.implementation == how}
        for how in ("fused", "native")
    }
    assert pairs["fused"] == pairs["native"] != set()
    others = {c.form: c.implementation for c in offered if c.form != "tucker2"}
    assert others == {"tucker_in": "native", "tucker_out": "native"}


def test_the_operator_takes_no_pointwise_and_no_large_kernels() -> None:
    for size in (1, 9):
        offered = CHOICES.offered(conv_layer("conv", 64, 64, size, (28, 28)))
        assert offered and {c.implementation for c in offered} == {"native"}


@pytest.mark.parametrize("paper_grid", [False, True])
@pytest.mark.parametrize("hw", [7, 56])
def test_the_number_of_builds_is_bounded(hw: int, paper_grid: bool) -> None:
    layer = conv_layer("conv", 160, 160, 3, (hw, hw))
    choices = replace(CHOICES, paper_grid=paper_grid)
    found = kept(choices, layer)
    assert len(choices.offered(layer)) > 25
    counts = Counter((c.implementation, c.form) for c in found)
    assert 4 <= counts.pop(("fused", "tucker2")) <= MOST_FUSED
    assert counts and all(2 <= n <= MOST_NATIVE[form] for (_, form), n in counts.items())


def test_what_is_kept_is_the_best_of_its_form_at_its_predicted_time() -> None:
    offered = CHOICES.offered(LAYER)
    errors = errors_of(LAYER, offered)[0]
    found = CHOICES.worth_measuring(LAYER, offered, errors[None], 1e9, ANY)
    times = [CHOICES.predicted(LAYER, c) for c in offered]
    for i in found:
        for j, candidate in enumerate(offered):
            if kind(candidate) == kind(offered[i]):
                assert not (times[j] <= times[i] and errors[j] < errors[i])
    for own_kind in {kind(c) for c in offered}:
        own = [i for i, c in enumerate(offered) if kind(c) == own_kind]
        assert min(own, key=lambda i: (times[i], errors[i])) in found, "the fastest"
        assert min(own, key=lambda i: errors[i]) in found, "the closest"


def test_what_the_dense_layer_beats_by_any_roofline_is_dropped() -> None:
    offered = CHOICES.offered(LAYER)
    bounds = [CHOICES.lower_bound(LAYER, c) for c in offered]
    assert min(bounds) > 0
    limit = float(np.median(bounds))
    found = kept(CHOICES, LAYER, limit)
    assert found and all(CHOICES.lower_bound(LAYER, c) < limit for c in found)
    errors = errors_of(LAYER, offered)
    assert not CHOICES.worth_measuring(LAYER, offered, errors, 1e-3, Roofline(1e3))


def test_a_lower_bound_is_below_what_is_predicted() -> None:
    for candidate in CHOICES.offered(LAYER):
        assert 0 < CHOICES.lower_bound(LAYER, candidate) < CHOICES.predicted(LAYER, candidate)


def test_a_lower_bound_is_bytes_and_flops_at_full_rate() -> None:
    """By hand, for the first of two convolutions: 96 → 16 channels of 14 x 14 pixels, then 16 → 96 3x3."""
    candidate = Candidate("tucker_in", Ranks(16, 96))
    pixels = 196
    elements = [(96 + 16) * pixels + 96 * 16, (16 + 96) * pixels + 9 * 16 * 96]
    macs = [96 * 16 * pixels, 9 * 16 * 96 * pixels]
    by_hand = sum(
        max(2 * n / (A100.f16_tflops * 1e12), 2 * size / (A100.dram_gb_s * 1e9))
        for n, size in zip(macs, elements, strict=True)
    )
    assert CHOICES.lower_bound(LAYER, candidate) == pytest.approx(by_hand * 1e3, rel=1e-3)


def test_a_chain_that_no_kernel_holds_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tdc_deploy.ranks.gpu_choices.rank", lambda *_, **__: [])
    found = kept(CHOICES, LAYER)
    assert found and {c.implementation for c in found} == {"native"}


def test_where_kernels_travel_in_engines_those_that_fit_are_measured_in_their_own_order() -> None:
    """The library's kernels hold more than those, and are faster."""
    layer = conv_layer("conv", 256, 256, 3, (28, 28))
    embedding = Embedding(A100, "fp16", A100)
    choices = replace(CHOICES, fused_us=embedding.predicted_us)

    def refused(candidate: Candidate) -> bool:
        assert candidate.ranks is not None
        shape = TuckerShape.of_layer(layer, candidate.ranks)
        return why_not(shape, A100, "fp16", A100) is not None

    before, after = (
        [c for c in kept(which, layer) if c.implementation == "fused"]
        for which in (CHOICES, choices)
    )
    assert any(map(refused, before)), "a layer that some of the library's choices do not fit"
    assert after and not any(map(refused, after))
    times = [choices.predicted(layer, c) for c in after]
    assert times == sorted(times)
    assert all(t > CHOICES.predicted(layer, c) for t, c in zip(times, after, strict=True))


def test_the_model_is_the_operator_or_its_convolutions() -> None:
    fused = CHOICES.model(LAYER, FUSED)
    onnx.checker.check_model(fused)
    assert [(n.domain, n.op_type) for n in fused.graph.node] == [("tdc", "TuckerConv")]
    native = replace(FUSED, implementation="native")
    assert CHOICES.model(LAYER, native) == layer_model(LAYER, native)
