"""Arrays in and out of a TensorRT session, in host memory and on the GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.runtime.session import load
from tests.runtime.engines import all_freed, batch, eventually
from tests.runtime.fake_gpu import LEGACY, FakeGpu, read


def test_host_arrays_in_and_out(gpu: FakeGpu, engine: Path) -> None:
    with load(engine) as session:
        assert [(i.name, i.shape, i.minimum, i.maximum) for i in session.inputs] == [
            ("x", (None, 3), (1, 3), (8, 3))
        ]
        for rows in (1, 8, 3):
            result = session(batch(rows))
            assert isinstance(result, np.ndarray)
            assert np.array_equal(result, 2 * batch(rows))
    assert all_freed(gpu)


def test_an_array_with_gaps_in_host_memory(gpu: FakeGpu, engine: Path) -> None:
    with load(engine) as session:
        assert np.array_equal(session(batch(8)[::2]), 2 * batch(8)[::2])
    assert all_freed(gpu)


def test_several_outputs_by_name(gpu: FakeGpu, engine: Path) -> None:
    gpu.two_outputs = True
    with load(engine) as session:
        mine = np.empty((2, 3), np.float32)
        result = session(x=batch(2), out={"y2": mine})
    assert list(result) == ["y", "y2"]
    assert result["y2"] is mine
    assert np.array_equal(result["y"], 2 * batch(2))
    assert np.array_equal(mine, -batch(2))


def test_arrays_on_the_gpu_are_used_where_they_are(gpu: FakeGpu, engine: Path) -> None:
    x, y = gpu.array(batch(4)), gpu.array(np.zeros((4, 3), np.float32))
    with load(engine) as session:
        assert session(x, out=y) is y
        assert np.array_equal(read(y), 2 * batch(4))
        assert not {"cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "allocate"} & set(gpu.names())
        assert "cuStreamSynchronize" not in gpu.names()


def test_a_tensor_with_a_gradient(gpu: FakeGpu, engine: Path) -> None:
    """As torch's: its memory is not shown before `detach`."""

    class Tensor:
        def __init__(self, array: Any) -> None:
            self.detach = lambda: array

        @property
        def __cuda_array_interface__(self) -> Any:
            raise RuntimeError("requires grad")

    x, y = gpu.array(batch(4)), gpu.array(batch(4))
    with load(engine) as session:
        session(Tensor(x), out=Tensor(y))
    assert np.array_equal(read(y), 2 * batch(4))


def test_fresh_outputs_stay_on_the_gpu_with_such_inputs(gpu: FakeGpu, engine: Path) -> None:
    with load(engine) as session:
        result = session(gpu.array(batch(4)))
        assert "cuStreamSynchronize" not in gpu.names()
        assert np.array_equal(result.numpy(), 2 * batch(4))
        assert result.__cuda_array_interface__["stream"] == LEGACY
        again = session(result)
        assert np.array_equal(again.numpy(), 4 * batch(4))
    # They outlive the session, and are freed once, by the thread that made them.
    assert np.array_equal(result.numpy(), 2 * batch(4))
    assert len(gpu.freed) == 0
    del result, again
    assert eventually(lambda: all_freed(gpu))


def test_contiguous_strides_may_be_given(gpu: FakeGpu, engine: Path) -> None:
    with load(engine) as session:
        result = session(gpu.array(batch(4), strides=(12, 4)))
        assert np.array_equal(result.numpy(), 2 * batch(4))
        one = session(gpu.array(batch(1), strides=(999, 4)))
        assert np.array_equal(one.numpy(), 2 * batch(1))


def test_inputs_and_outputs_in_float16(gpu: FakeGpu, engine: Path) -> None:
    gpu.dtype = "HALF"
    with load(engine) as session:
        assert {info.dtype for info in (*session.inputs, *session.outputs)} == {np.dtype("float16")}
        x = batch(4).astype(np.float16)
        for result in (session(x), session(gpu.array(x)).numpy()):
            assert result.dtype == np.float16
            assert np.array_equal(result, 2 * x)
        with pytest.raises(TdcError, match="is float32"):
            session(batch(4))
