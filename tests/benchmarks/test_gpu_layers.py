from __future__ import annotations

import pytest

from benchmarks.gpu.layers import CORES, MODELS, cases


@pytest.mark.parametrize(
    ("model", "count", "saved_gmacs"),
    [("resnet18", 16, 1.814 - 0.786), ("resnet50", 16, 4.089 - 2.583)],
)
def test_the_tables_save_what_they_are_known_to_save(
    model: str, count: int, saved_gmacs: float
) -> None:
    """Whole-model multiply-accumulates before and after, as the tables' authors count them."""
    found = cases(model)
    assert sum(len(case.names) for case in found) == count
    saved = sum(len(case.names) * (case.dense_macs - case.chain_macs) for case in found)
    assert saved / 1e9 == pytest.approx(saved_gmacs, abs=2e-3)


def test_vgg16_has_its_convolutions_at_their_places() -> None:
    found = {name: case for case in cases("vgg16") for name in case.names}
    assert len(found) == 12
    assert found["features.3"].layer.in_hw == (224, 224)
    assert found["features.24"].layer.c_in == 256 and found["features.24"].layer.c_out == 512
    assert found["features.40"].layer.in_hw == (14, 14)


def test_strides_halve_where_resnet_does() -> None:
    found = {name: case.layer for case in cases("resnet50") for name in case.names}
    assert found["layer2.0.conv2"].strides == (2, 2)
    assert found["layer2.0.conv2"].out_hw == found["layer2.1.conv2"].out_hw == (28, 28)


def test_the_cores_are_those_of_layers_in_the_tables() -> None:
    cores = cases(CORES)
    assert len(cores) == len({case.name for case in cores}) == 18
    known = {
        (case.ranks, case.layer.c_in, case.layer.c_out, case.layer.in_hw)
        for model in MODELS
        for case in cases(model)
        if case.layer.strides == (1, 1)
    }
    for case in cores:
        outer = (case.layer.c_in, case.layer.c_out)
        # DenseNet's bottlenecks are not among the three networks.
        assert outer == (128, 32) or (case.ranks, *outer, case.layer.in_hw) in known, case.name


def test_a_batch_multiplies_the_arithmetic_but_not_the_weights() -> None:
    case = cases("resnet18")[0]
    eight = case.at_batch(8)
    assert eight.chain_macs == 8 * case.chain_macs
    weights = 64 * 64 + 9 * 64 * 32 + 32 * 64
    activations = 2 * 64 * 56 * 56
    assert case.chain_bytes(2) == 2 * (weights + activations)
    assert eight.chain_bytes(2) == 2 * (weights + 8 * activations)
