from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.types import (
    DENSE,
    FORMS,
    Candidate,
    ConvLayer,
    Ranks,
    Timing,
    from_mapping,
)

LAYER = ConvLayer(
    name="conv",
    c_in=16,
    c_out=24,
    kernel=(3, 5),
    strides=(2, 1),
    pads=(1, 2, 0, 3),
    dilations=(1, 2),
    groups=1,
    dtype="float32",
    batch=4,
    in_hw=(20, 30),
)


@pytest.mark.parametrize("value", [0, -1, 1.0, 1.5, "8", None, True])
@pytest.mark.parametrize("field", ["r_in", "r_out"])
def test_ranks_are_positive_whole_numbers(field: str, value: Any) -> None:
    with pytest.raises(TdcError, match=field) as caught:
        Ranks(**({"r_in": 8, "r_out": 8} | {field: value}))
    assert repr(value) in str(caught.value)


def test_values_are_frozen() -> None:
    for made, field in ((Ranks(1, 2), "r_in"), (DENSE, "form"), (LAYER, "c_in")):
        with pytest.raises(FrozenInstanceError):
            setattr(made, field, 3)


def test_output_size_of_a_convolution() -> None:
    # (20 + 1 + 0 - 3) // 2 + 1 and (30 + 2 + 3 - (2 * 4 + 1)) // 1 + 1
    assert LAYER.out_hw == (10, 27)
    assert not LAYER.is_pointwise
    assert replace(LAYER, kernel=(1, 1)).is_pointwise


@pytest.mark.parametrize(
    "change",
    [
        {"c_in": 0},
        {"c_out": -1},
        {"kernel": (0, 3)},
        {"strides": (1, 0)},
        {"pads": (0, 0, 0, -1)},
        {"dilations": (0, 1)},
        {"groups": 0},
        {"batch": 0},
        {"in_hw": (0, 8)},
    ],
)
def test_impossible_convolutions_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(TdcError, match="impossible convolution"):
        replace(LAYER, **change)


def test_a_kernel_larger_than_its_input_is_refused() -> None:
    # One pixel less than the kernel spans, then exactly as much.
    replace(LAYER, in_hw=(2, 30))
    with pytest.raises(TdcError, match="empty output"):
        replace(LAYER, in_hw=(1, 30))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"form": "cp"}, "form is 'cp'"),
        ({"form": "tucker2"}, "ranks None"),
        ({"form": "dense", "ranks": Ranks(8, 8)}, "form dense"),
        ({"form": "svd", "ranks": Ranks(8, 4)}, "svd"),
        ({"form": "svd", "ranks": Ranks(8, 8), "implementation": "fused"}, "marked fused"),
        ({"form": "dense", "implementation": "fused"}, "marked fused"),
        ({"form": "dense", "implementation": "gpu"}, "implementation is 'gpu'"),
        ({"form": "dense", "precision": "int4"}, "precision is 'int4'"),
        ({"form": "dense", "error": -0.1}, "error is -0.1"),
        ({"form": "dense", "error": math.nan}, "error is nan"),
        ({"form": "dense", "error": math.inf}, "error is inf"),
    ],
)
def test_impossible_candidates_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TdcError, match=message) as caught:
        Candidate(**arguments)
    assert caught.value.expected


def test_every_form_can_be_made() -> None:
    for form in FORMS:
        ranks = None if form == "dense" else Ranks(8, 8)
        assert Candidate(form, ranks).form == form


@pytest.mark.parametrize(
    ("candidate", "text"),
    [
        (DENSE, "dense"),
        (Candidate("tucker2", Ranks(8, 16), "fused"), "tucker2 8→16"),
        (Candidate("svd", Ranks(8, 8)), "svd 8"),
    ],
)
def test_candidates_are_written_for_people(candidate: Candidate, text: str) -> None:
    assert str(candidate) == text


@pytest.mark.parametrize("change", [{"median": 0.0}, {"median": math.nan}, {"runs": 0}])
def test_a_timing_is_of_something(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a timing"):
        Timing(**({"median": 1, "p10": 1, "p90": 1, "p95": 1, "p99": 1, "runs": 1} | change))


def test_spread_is_relative_to_the_median() -> None:
    assert Timing(median=2.0, p10=1.5, p90=2.5, p95=3.0, p99=4.0, runs=9).spread == 0.5


def test_from_mapping_copies_what_it_checks() -> None:
    data = {"r_in": 1}
    values = from_mapping(Ranks, data, "here")
    assert values == data
    assert values is not data


@pytest.mark.parametrize("data", [[], "r_in", None, 3])
def test_from_mapping_wants_a_mapping(data: Any) -> None:
    with pytest.raises(TdcError, match="here is"):
        from_mapping(Ranks, data, "here")


def test_from_mapping_names_the_unknown_field_and_the_known() -> None:
    with pytest.raises(TdcError, match="here has unknown field 'rin'") as caught:
        from_mapping(Ranks, {"rin": 3, "r_out": 3}, "here")
    assert caught.value.expected == "fields of r_in, r_out"


def test_an_error_says_what_was_received_expected_and_how_to_fix_it() -> None:
    error = TdcError("three legs", expected="four", fix="add one")
    assert str(error) == "three legs\n  expected: four\n  fix: add one"
    assert str(TdcError("three legs")) == "three legs"
