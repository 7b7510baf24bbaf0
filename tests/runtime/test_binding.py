from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdc_deploy.errors import TdcError
from tdc_deploy.runtime.binding import InputBinder, bind_outputs, check_separate
from tdc_deploy.runtime.tensors import TensorInfo

NAMES = ["a", "b", "c", "d"]
FLOAT = np.dtype(np.float32)


def infos(names: list[str], shape: tuple[Any, ...] = (2,)) -> list[TensorInfo]:
    return [TensorInfo(name, FLOAT, shape) for name in names]


names = st.lists(st.sampled_from(NAMES), unique=True, min_size=1)


@given(names, st.data())
def test_every_way_to_give_all_inputs_binds_them(declared: list[str], data: st.DataObject) -> None:
    values = {name: object() for name in declared}
    split = data.draw(st.integers(0, len(declared)))
    rest = data.draw(st.permutations(declared[split:]))
    binder = InputBinder(infos(declared))
    expected = {name: id(value) for name, value in values.items()}

    def ids(bound: dict[str, Any]) -> dict[str, int]:
        return {name: id(value) for name, value in bound.items()}

    positional = [values[name] for name in declared[:split]]
    assert ids(binder.bind(positional, {name: values[name] for name in rest})) == expected
    first = {name: values[name] for name in declared[:split]}
    assert ids(binder.bind([first], {name: values[name] for name in rest})) == expected


@given(names, st.integers(0, 6), st.lists(st.sampled_from([*NAMES, "other"]), unique=True))
def test_binding_takes_exactly_the_inputs(
    declared: list[str], positional: int, keywords: list[str]
) -> None:
    """Stated over sets: no name twice, none unknown, none missing."""
    given_names = declared[:positional] + keywords
    fits = positional <= len(declared) and sorted(given_names) == sorted(declared)
    arguments = [[0] * positional, dict.fromkeys(keywords, 0)]
    binder = InputBinder(infos(declared))
    if fits:
        assert set(binder.bind(*arguments)) == set(declared)  # type: ignore[arg-type]
    else:
        with pytest.raises(TdcError):
            binder.bind(*arguments)  # type: ignore[arg-type]


sizes = st.integers(0, 9)
limits = st.tuples(sizes, sizes).map(sorted)


@given(st.lists(st.tuples(limits, sizes), min_size=1, max_size=4), st.booleans())
def test_a_shape_fits_a_range_if_every_size_does(axes: list[Any], surplus: bool) -> None:
    low, high = (tuple(limit[i] for limit, _ in axes) for i in (0, 1))
    shape = tuple(size for _, size in axes) + ((1,) if surplus else ())
    declared = tuple(a if a == b else None for a, b in zip(low, high, strict=True))
    info = TensorInfo("x", FLOAT, declared, low, high)
    within = all(limit[0] <= size <= limit[1] for limit, size in axes)
    assert info.fits(shape) == (within and not surplus)


def test_a_range_is_named_in_the_error() -> None:
    binder = InputBinder([TensorInfo("x", FLOAT, (None, 3), (1, 3), (8, 3))])
    with pytest.raises(TdcError) as caught:
        binder.check({"x": np.zeros((9, 3), np.float32)})
    assert caught.value.expected == "(1, 3) to (8, 3)"


def test_buffers_by_order_and_name() -> None:
    outputs = infos(["y", "z"])
    y, z = np.empty(2), np.empty(2)
    for out in ([y, z], (y, z), {"y": y, "z": z}):
        bound = bind_outputs(outputs, out)
        assert bound["y"] is y
        assert bound["z"] is z
    assert bind_outputs(outputs, None) == {}
    assert list(bind_outputs(outputs, [None, z])) == ["z"]
    assert list(bind_outputs(outputs, {"z": z, "y": None})) == ["z"]
    assert bind_outputs(infos(["y"]), y)["y"] is y


@pytest.mark.parametrize(
    ("out", "message"), [(np.empty(2), "1 output"), ([1, 2, 3], "3 output"), ({"q": 1}, "'q'")]
)
def test_buffers_that_are_no_outputs(out: Any, message: str) -> None:
    with pytest.raises(TdcError, match=message):
        bind_outputs(infos(["y", "z"]), out)


def test_buffers_must_not_overlap() -> None:
    memory = np.zeros(8, np.float32)
    check_separate({"x": memory[:4]}, {"y": memory[4:6], "z": memory[6:]})
    with pytest.raises(TdcError, match="'y' overlaps the memory of 'x'"):
        check_separate({"x": memory[:4]}, {"y": memory[3:6]})
    with pytest.raises(TdcError, match="'z' overlaps the memory of 'y'"):
        check_separate({}, {"y": memory[4:6], "z": memory[5:]})
