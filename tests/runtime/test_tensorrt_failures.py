"""Calls of a TensorRT session that do not fit, or that TensorRT refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.runtime.session import load
from tests.runtime.engines import all_freed, batch
from tests.runtime.fake_gpu import FakeGpu


def test_a_context_that_could_not_be_made_is_tried_again(gpu: FakeGpu, engine: Path) -> None:
    gpu.makes_contexts = False
    with load(engine, concurrency=1) as session:
        for _ in range(2):
            with pytest.raises(TdcError, match="no execution context"):
                session(batch(2))
        gpu.makes_contexts = True
        assert np.array_equal(session(batch(2)), 2 * batch(2))
    assert all_freed(gpu)


def test_no_memory_left(gpu: FakeGpu, engine: Path) -> None:
    gpu.limit = 50
    with load(engine) as session:
        with pytest.raises(TdcError, match="has no 96 bytes") as caught:
            session(batch(8))
        assert "concurrency" in caught.value.fix


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: batch(9), r"shape \(9, 3\)"),
        (lambda _: batch(4).astype(np.float64), "is float64"),
        (lambda gpu: gpu.array(batch(9)), r"shape \(9, 3\)"),
        (lambda gpu: gpu.array(batch(4).astype(np.float16)), "is float16"),
        (lambda gpu: gpu.array(batch(4), offset=64), "at address"),
        (lambda gpu: gpu.array(batch(4), data=(0, False)), "at address 0x0"),
        (lambda gpu: gpu.array(batch(4), data=(256, False)), "not in GPU memory"),
        (lambda gpu: gpu.array(batch(4), strides=(24, 4)), "not contiguous"),
        (lambda gpu: gpu.array(batch(4), mask=object()), "mask"),
        (lambda _: [1.0], "is list"),
    ],
)
def test_inputs_that_do_not_fit_launch_nothing(
    gpu: FakeGpu, engine: Path, make: Callable[[FakeGpu], Any], message: str
) -> None:
    with load(engine) as session:
        with pytest.raises(TdcError, match=message):
            session(make(gpu))
        assert not {"execute", "cuMemcpyHtoDAsync"} & set(gpu.names())
        assert np.array_equal(session(batch(1)), 2 * batch(1))


def test_buffers_that_do_not_fit_launch_nothing(gpu: FakeGpu, engine: Path) -> None:
    x = gpu.array(batch(4))
    with load(engine) as session:
        for out, message in (
            (np.empty((3, 3), np.float32), r"shape \(3, 3\)"),
            (np.empty((4, 3), np.float16), "float16"),
            (np.empty((3, 4), np.float32).T, "not contiguous"),
            (gpu.array(batch(3)), r"shape \(3, 3\)"),
            (gpu.array(batch(4), data=(gpu.allocate(99), True)), "read-only"),
            (x, "overlaps"),
            ({"z": x}, "'z' is no output"),
        ):
            with pytest.raises(TdcError, match=message):
                session(x, out=out)
        assert "execute" not in gpu.names()


def test_an_output_whose_shape_depends_on_the_data(gpu: FakeGpu, engine: Path) -> None:
    gpu.data_dependent = True
    with load(engine) as session, pytest.raises(TdcError, match="depends on the data"):
        session(batch(2))
    assert "execute" not in gpu.names()


def test_a_launch_that_tensorrt_refuses(gpu: FakeGpu, engine: Path) -> None:
    gpu.executes = False
    with load(engine) as session:
        for _ in range(3):
            with pytest.raises(TdcError, match="did not run"):
                session(batch(2))
    assert all_freed(gpu)
