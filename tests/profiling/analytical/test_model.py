"""What must hold of any prediction, and orders that are right whatever the constants' exact values."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tdc_deploy.errors import TdcError
from tdc_deploy.profiling.analytical.chips import DEVICES, find_device
from tdc_deploy.profiling.analytical.devices import Device
from tdc_deploy.profiling.analytical.fused import FusedPlan
from tdc_deploy.profiling.analytical.model import (
    MOST_TACTICS,
    PRECISIONS,
    PrecisionName,
    is_legal,
    predict,
    rank,
    roofline,
    shared_bytes,
    tactics_attribute,
)
from tdc_deploy.profiling.analytical.shapes import TuckerShape
from tdc_deploy.profiling.analytical.tactics import FusedConfig, Tactic, all_tactics, decode
from tdc_deploy.types import ConvLayer, Ranks
from tests.helpers import fixed
from tests.profiling.analytical.shapes import (
    LAYER1,
    LAYER1_BATCH,
    LAYER2,
    LAYER4,
    LAYER4_DOWN,
    shapes,
)

H200, A100, T4 = find_device("H200"), find_device("A100"), find_device("T4")
LAYERS = [LAYER1, LAYER2, LAYER4, LAYER4_DOWN, LAYER1_BATCH]

tactics = st.sampled_from(all_tactics())
devices = st.sampled_from(DEVICES)

# Sums of floats that are equal in exact arithmetic.
ROUNDING = 1 + 1e-9


def named(name: str) -> Tactic:
    return next(tactic for tactic in all_tactics() if str(tactic) == name)


def best(shape: TuckerShape, device: Device, split: bool) -> float:
    """The least predicted time of the fused fp16 tactics with or without a split."""
    ranked = rank(shape, device, ("f16",), limit=None)
    chosen = [p for p in ranked if p.tactic.family == "fused"]
    return min(p.us for p in chosen if (p.tactic.split != "none") == split)


def grown(shape: TuckerShape, field: str) -> TuckerShape:
    step = 8 if field in ("r_in", "r_out") else 1
    return replace(shape, **{field: getattr(shape, field) + step})


@given(shapes(), tactics, devices, st.sampled_from(["n", "h", "w", "c", "m", "r_in", "r_out"]))
@fixed(400)
def test_more_work_is_not_faster(
    shape: TuckerShape, tactic: Tactic, device: Device, field: str
) -> None:
    larger = grown(shape, field)
    assume(is_legal(tactic, shape, device) and is_legal(tactic, larger, device))
    assert predict(tactic, shape, device).us <= predict(tactic, larger, device).us * ROUNDING


@given(shapes(), tactics, devices)
@fixed(200)
def test_a_residual_is_not_free(shape: TuckerShape, tactic: Tactic, device: Device) -> None:
    assume(is_legal(tactic, shape, device))
    without = predict(tactic, replace(shape, residual=False), device).us
    assert without <= predict(tactic, replace(shape, residual=True), device).us * ROUNDING


@given(shapes(), tactics, devices, st.integers(1, 100))
@fixed(200)
def test_fewer_multiprocessors_are_not_faster(
    shape: TuckerShape, tactic: Tactic, device: Device, count: int
) -> None:
    """Each at the same rate: only their number falls."""
    assume(is_legal(tactic, shape, device) and count < device.multiprocessors)
    part = count / device.multiprocessors
    rates = {f"{a}_tflops": part * getattr(device, f"{a}_tflops") for a in ("f16", "tf32", "f32")}
    smaller = replace(device, multiprocessors=count, **rates)
    assert predict(tactic, shape, device).us <= predict(tactic, shape, smaller).us * ROUNDING


@given(shapes(), tactics, devices, st.sampled_from(["clock_mhz", "dram_gb_s", "l2_gb_s"]))
@fixed(200)
def test_a_slower_device_is_not_faster(
    shape: TuckerShape, tactic: Tactic, device: Device, field: str
) -> None:
    assume(is_legal(tactic, shape, device))
    slower = replace(device, **{field: getattr(device, field) / 2})
    assert predict(tactic, shape, device).us <= predict(tactic, shape, slower).us * ROUNDING


@given(shapes(), tactics, devices)
@fixed(200)
def test_no_prediction_beats_the_roofline(
    shape: TuckerShape, tactic: Tactic, device: Device
) -> None:
    assume(is_legal(tactic, shape, device))
    assert roofline(shape, device, tactic.arithmetic).us <= predict(tactic, shape, device).us


def test_roofline_by_hand() -> None:
    """LAYER1: 3136 pixels of 64, 32, 32 and 64 channels, 3x3."""
    roof = roofline(LAYER1, H200, "f16")
    assert roof.flops == 2 * 3136 * (64 * 32 + 9 * 32 * 32 + 32 * 64)
    weights = 64 * 32 + 32 + 9 * 32 * 32 + 32 + 32 * 64 + 64
    assert roof.bytes == 2 * (2 * 3136 * 64 + weights)
    assert abs(roof.memory_us - roof.bytes / 4.8e6) <= 1e-12
    assert abs(roof.compute_us - roof.flops / 989.4e6) <= 1e-12


def test_channels_are_padded_to_vectors_in_fp16_only() -> None:
    odd, even = replace(LAYER1, c=57), replace(LAYER1, c=64)
    weights = 7 * 32
    f16 = roofline(even, H200, "f16").bytes - roofline(odd, H200, "f16").bytes
    f32 = roofline(even, H200, "f32").bytes - roofline(odd, H200, "f32").bytes
    assert f16 == 2 * weights
    assert f32 == 4 * (weights + 7 * 3136)


def test_shared_memory_by_hand() -> None:
    """8x8 tile, 3x3: a halo of 100 pixels; vectors of 8 halves; pitches are odd."""
    tactic = named("fused f16 8x8 r64 w2x4 c64 s3")
    t1 = 100 * 5
    rows, columns = 3 * 64 * 9, 3 * 64 * 9
    offsets, pixels, places = 2 * 40 // 4, 100 // 4, -(-101 // 4)
    assert rows > 64 * 5  # X's buffers are larger than T2, which takes their place
    tables = offsets + pixels + places
    assert shared_bytes(tactic, LAYER1) == 16 * (t1 + rows + columns + tables)


def test_a_cluster_keeps_its_part_of_t2_beside_t2() -> None:
    """160 output ranks: T2 has 20 + 1 vectors a pixel, its fp32 sums 40 + 1; r_in is cut to 24."""
    tactic = named("fused f16 8x8 r64 w2x4 c64 s3 cluster8")
    t1, t2, sums, columns = 100 * 3, 64 * 21, 64 * 41, 3 * 64 * 9
    tables = 2 * 32 // 4 + 100 // 4 + -(-101 // 4)
    assert shared_bytes(tactic, LAYER4) == 16 * (t1 + t2 + sums + columns + tables)


@pytest.mark.parametrize(
    ("name", "shape", "inside"),
    [
        # 7x7 with a margin of 1: a tile of 4 rows reaches 5 rows of the image, one of 8 all 7.
        ("fused f16 4x4 r48 w1x4 c64 s4", LAYER4, 5 * 5),
        ("fused f16 8x8 r64 w2x4 c64 s3", LAYER4, 7 * 7),
        # Tiles in the middle of 56x56 have a whole halo.
        ("fused f16 8x8 r64 w2x4 c64 s3", LAYER1, 10 * 10),
        # Stride 2 on 14x14: the one tile of 8 begins a row before the image and takes 17 rows.
        ("fused f16 8x8 r64 w2x4 c64 s3", LAYER4_DOWN, 14 * 14),
        ("fused f16 8x8 r64 w2x4 c64 s3", replace(LAYER1, h=1, w=1), 1),
    ],
)
def test_only_pixels_inside_the_image_are_reduced(
    name: str, shape: TuckerShape, inside: int
) -> None:
    tactic = named(name)
    assert isinstance(tactic.config, FusedConfig)
    assert FusedPlan(tactic, tactic.config, shape).inside_pixels == inside


@pytest.mark.parametrize(
    ("name", "shape", "device", "legal"),
    [
        ("fused f16 4x4 r48 w1x4 c64 s4", LAYER4, A100, True),
        ("fused f16 4x4 r48 w1x4 c64 s4", LAYER4, T4, False),
        ("fused tf32 4x4 r48 w1x4 c64 s4", LAYER4, A100, True),
        ("fused f16 4x4 r48 w1x4 c64 s4 cluster2", LAYER4, A100, False),
        ("fused f16 4x4 r48 w1x4 c64 s4 cluster2", LAYER4, H200, True),
        ("fused f16 4x4 r48 w1x4 c64 s4 ticket2", LAYER4, A100, True),
        # Every block needs 8 channels of r_in; of M too in a cluster.
        ("fused f16 4x4 r48 w1x4 c64 s4 ticket8", replace(LAYER4, r_in=64), H200, True),
        ("fused f16 4x4 r48 w1x4 c64 s4 ticket8", replace(LAYER4, r_in=56), H200, False),
        ("fused f16 4x4 r48 w1x4 c64 s4 cluster8", replace(LAYER4, m=57), H200, True),
        ("fused f16 4x4 r48 w1x4 c64 s4 cluster8", replace(LAYER4, m=56), H200, False),
        ("fused f16 4x4 r48 w1x4 c64 s4 ticket8", replace(LAYER4, m=1), H200, True),
        # T1 of a 21x37 halo with 512 channels is 808 kB.
        (
            "fused f16 8x16 r128 w4x2 c64 s2",
            replace(LAYER4_DOWN, r_in=512, h=99, w=99),
            H200,
            False,
        ),
        ("unfused f16 128x128 w4x2 s3", replace(LAYER4_DOWN, r_in=512, h=99, w=99), H200, True),
        ("unfused f16 16x64 w1x4 s4", LAYER4, T4, False),
    ],
)
def test_legality(name: str, shape: TuckerShape, device: Device, legal: bool) -> None:
    tactic = named(name)
    assert is_legal(tactic, shape, device) == legal
    if not legal:
        with pytest.raises(TdcError, match="cannot run this layer"):
            predict(tactic, shape, device)


def test_a_split_wins_on_a_small_map_at_batch_1() -> None:
    """4 tiles of 4x4 leave 128 of 132 multiprocessors idle."""
    assert best(LAYER4, H200, split=True) < best(LAYER4, H200, split=False)


def test_no_split_wins_where_tiles_fill_the_device() -> None:
    """Thousands of tiles: a split only computes halves of padded passes."""
    assert best(LAYER1_BATCH, H200, split=False) < best(LAYER1_BATCH, H200, split=True)


def test_large_tiles_win_on_large_maps_and_small_ones_on_small_maps() -> None:
    large, small = (
        named(f"fused f16 {c}") for c in ("8x16 r128 w4x2 c64 s2", "4x4 r48 w1x4 c64 s4")
    )
    for shape, faster, slower in ((LAYER1_BATCH, large, small), (LAYER4, small, large)):
        assert predict(faster, shape, H200).us < predict(slower, shape, H200).us


@pytest.mark.parametrize("shape", LAYERS)
def test_less_precise_is_faster(shape: TuckerShape) -> None:
    f16, tf32, f32 = (rank(shape, A100, (a,), 1)[0].us for a in ("f16", "tf32", "f32"))
    assert f16 < tf32 < f32


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", LAYERS)
def test_rank_is_sorted_legal_limited_and_of_the_precision(
    shape: TuckerShape, precision: PrecisionName
) -> None:
    ranked = rank(shape, H200, PRECISIONS[precision])
    assert 0 < len(ranked) <= MOST_TACTICS == 16
    times = [prediction.us for prediction in ranked]
    assert times == sorted(times)
    for prediction in ranked:
        assert prediction.tactic.arithmetic in PRECISIONS[precision]
        assert is_legal(prediction.tactic, shape, H200)
    everything = rank(shape, H200, PRECISIONS[precision], limit=None)
    assert [p.tactic for p in everything[:16]] == [p.tactic for p in ranked]


@pytest.mark.parametrize("shape", LAYERS)
def test_the_attribute_is_the_ranking_and_has_an_unfused_tactic(shape: TuckerShape) -> None:
    numbers = tactics_attribute(shape, H200, "fp16")
    ranked = [p.tactic.number for p in rank(shape, H200, ("f16",))]
    assert len(numbers) == len(set(numbers)) == len(ranked)
    assert numbers[:-1] == ranked[:-1]
    assert any(decode(number).family == "unfused" for number in numbers)


def test_the_breakdown_adds_up() -> None:
    for prediction in rank(LAYER4, H200, ("f16", "tf32", "f32"), limit=None):
        (first, *_) = prediction.launches
        assert len(prediction.launches) == (1 if prediction.tactic.family == "fused" else 3)
        total = 0.0
        for launch in prediction.launches:
            busy = sum(stage.us for stage in launch.stages)
            total += launch.start_us + max(busy, launch.dram_us)
        assert abs(total - prediction.us) <= 1e-9
        assert first.start_us > 2


def test_waves_and_blocks_by_hand() -> None:
    """32 images of 7 x 7 tiles of 8 x 8 pixels on 132 multiprocessors: 12 blocks on the busiest.

    72 kB of shared memory a block: 3 fit, but 128 registers x 256 threads allow 2.
    """
    (launch,) = predict(named("fused f16 8x8 r64 w2x4 c64 s3"), LAYER1_BATCH, H200).launches
    assert (launch.blocks, launch.occupancy.blocks, launch.waves) == (32 * 49, 2, 6)


def test_split_blocks_by_hand() -> None:
    (launch,) = predict(named("fused f16 4x4 r48 w1x4 c64 s4 cluster8"), LAYER4, H200).launches
    assert (launch.blocks, launch.waves) == (2 * 2 * 8, 1)


def test_intermediates_that_l2_cannot_keep_cost_dram() -> None:
    tactic = named("unfused f16 128x64 w4x2 s3")
    shape = replace(LAYER1_BATCH, n=512)
    plenty = replace(H200, l2_bytes=1 << 40)
    assert predict(tactic, shape, plenty).us < predict(tactic, shape, H200).us


def test_shapes_of_layers_round_ranks_up() -> None:
    layer = ConvLayer("a", 64, 48, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1, "float32", 2, (14, 15))
    shape = TuckerShape.of_layer(layer, Ranks(20, 33), residual=True)
    assert (shape.n, shape.h, shape.w, shape.c, shape.m) == (2, 14, 15, 64, 48)
    assert (shape.r_in, shape.r_out, shape.out_hw, shape.residual) == (24, 40, (7, 8), True)
    with pytest.raises(TdcError, match="ranks 20 and 32"):
        replace(shape, r_in=20, r_out=32)
    with pytest.raises(TdcError, match="empty output"):
        replace(shape, h=1, kernel=(5, 5))
