"""Streams and CUDA graphs of a TensorRT session."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.runtime.session import load
from tests.runtime.engines import all_freed, batch
from tests.runtime.fake_cuda import FakeCuda11Driver
from tests.runtime.fake_gpu import LEGACY, FakeGpu, read


def test_the_stream_is_synchronised_only_for_host_outputs(gpu: FakeGpu, engine: Path) -> None:
    with load(engine) as session:
        session(batch(4), out=gpu.array(batch(4)))
        assert "cuStreamSynchronize" not in gpu.names()
        session(gpu.array(batch(4)), out=np.empty((4, 3), np.float32))
        assert gpu.names().count("cuStreamSynchronize") == 1


@pytest.mark.parametrize(
    "stream",
    [
        77,
        SimpleNamespace(cuda_stream=77),
        SimpleNamespace(ptr=77),
        SimpleNamespace(handle=77),
        SimpleNamespace(__cuda_stream__=lambda: (0, 77)),
    ],
)
def test_the_callers_stream(gpu: FakeGpu, engine: Path, stream: Any) -> None:
    x, y = gpu.array(batch(4)), gpu.array(batch(4))
    with load(engine) as session:
        session(x, out=y, stream=stream)
        assert ("execute", 77) in gpu.log
        with pytest.raises(TdcError, match="stream is str"):
            session(x, stream="main")


def test_calls_on_different_streams_are_ordered(gpu: FakeGpu, engine: Path) -> None:
    # They share the context's memory.
    x, y = gpu.array(batch(4)), gpu.array(batch(4))
    with load(engine, concurrency=1) as session:
        session(x, out=y, stream=77)
        assert "cuStreamWaitEvent" not in gpu.names()
        session(x, out=y, stream=77)
        assert "cuStreamWaitEvent" not in gpu.names()
        session(x, out=y, stream=78)
        (wait,) = [entry for entry in gpu.log if entry[0] == "cuStreamWaitEvent"]
        records = [entry for entry in gpu.log if entry[0] == "cuEventRecord"]
        assert wait[1] == 78
        assert (wait[2], 77) == records[1][1:]


def test_the_producers_stream_is_waited_for(gpu: FakeGpu, engine: Path) -> None:
    y = gpu.array(batch(4))
    with load(engine) as session:
        session(gpu.array(batch(4), stream=55), out=y)
        (wait,) = [entry for entry in gpu.log if entry[0] == "cuStreamWaitEvent"]
        assert ("cuEventRecord", wait[2], 55) in gpu.log
        # The default stream orders itself with the session's own, not with the caller's.
        session(gpu.array(batch(4), stream=LEGACY), out=y)
        assert gpu.names().count("cuStreamWaitEvent") == 1


def test_a_graph_is_captured_once_per_shape_and_replayed(gpu: FakeGpu, engine: Path) -> None:
    with load(engine) as session:
        for i in range(5):
            for rows in (2, 5) if i % 2 else (5, 2):
                x = batch(rows, first=i)
                assert np.array_equal(session(x), 2 * x)
        names = gpu.names()
        # Per shape: once to run, once to capture, four replays.
        assert names.count("execute") == 4
        assert names.count("cuStreamBeginCapture") == 2
        assert names.count("cuGraphLaunch") == 8
        assert names.count("set_input_shape") == 2
    assert all_freed(gpu)
    assert gpu.alive["graph"] == 0


def test_one_context_drops_the_graph_of_other_shapes(gpu: FakeGpu, engine: Path) -> None:
    with load(engine, concurrency=1) as session:
        for rows in (2, 2, 2, 5, 2):
            assert np.array_equal(session(batch(rows)), 2 * batch(rows))
        assert gpu.names().count("cuStreamBeginCapture") == 1
        assert gpu.names().count("execute") == 4
        assert gpu.alive["exec"] == 0
    assert gpu.contexts_made == 1


def test_other_buffers_void_the_graph(gpu: FakeGpu, engine: Path) -> None:
    x, y = gpu.array(batch(4)), gpu.array(batch(4))
    with load(engine) as session:
        for _ in range(3):
            session(x, out=y)
        assert gpu.names().count("cuGraphLaunch") == 2
        other = gpu.array(batch(4))
        session(x, out=other)
        assert np.array_equal(read(other), 2 * batch(4))
        assert gpu.names().count("cuGraphLaunch") == 2


def test_an_engine_that_cannot_be_captured_still_runs(gpu: FakeGpu, engine: Path) -> None:
    gpu.refuse_capture = True
    with load(engine) as session:
        for i in range(4):
            assert np.array_equal(session(batch(2, first=i)), 2 * batch(2, first=i))
    assert gpu.names().count("cuStreamBeginCapture") == 1
    assert "cuGraphLaunch" not in gpu.names()


def test_graphs_of_cuda_11(gpu: FakeGpu, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    monkeypatch.setitem(sys.modules, "cuda.cuda", FakeCuda11Driver(gpu))
    with load(engine) as session:
        for i in range(4):
            assert np.array_equal(session(batch(2, first=i)), 2 * batch(2, first=i))
    assert gpu.names().count("cuGraphInstantiateWithFlags") == 1
    assert gpu.names().count("cuGraphLaunch") == 3
    assert all_freed(gpu)


def test_graphs_can_be_switched_off(gpu: FakeGpu, engine: Path) -> None:
    with load(engine, cuda_graphs=False) as session:
        for _ in range(3):
            session(batch(2))
    assert "cuStreamBeginCapture" not in gpu.names()
