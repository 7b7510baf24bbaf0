"""The TensorRT session against stand-ins that know the libraries' rules: nothing here ran on a GPU."""

from __future__ import annotations

import ast
import gc
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tdc_deploy.errors import TdcError
from tdc_deploy.runtime.session import Session, load
from tdc_deploy.sidecar import FORMAT, VERSION
from tests.runtime.fake_cuda import FakeCuda11Driver
from tests.runtime.fake_gpu import LEGACY, FakeGpu, read


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    """A machine with a GPU, whose rules the test must not have broken."""
    fake = FakeGpu()
    fake.install(monkeypatch)
    monkeypatch.setattr("tdc_deploy.runtime.device._THREAD", threading.local())
    yield fake
    assert fake.violations == []
    pushed = [entry[1] for entry in fake.log if entry[0] == "push"]
    popped = [entry[1] for entry in fake.log if entry[0] == "pop"]
    assert sorted(pushed) == sorted(popped)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "model.engine"
    path.write_bytes(b"engine")
    return path


def batch(rows: int, first: float = 0) -> NDArray[np.float32]:
    return np.arange(first, first + rows * 3, dtype=np.float32).reshape(rows, 3)


def write_sidecar(
    engine: Path,
    *,
    version: str = "10.3.0",
    capability: str = "9.0",
    version_compatible: bool = False,
    hardware: str = "none",
    **content: Any,
) -> None:
    """As tdc_deploy.engine_sidecar does; a test there holds the two together."""
    described = {
        "format": FORMAT,
        "version": VERSION,
        "artifact": {"sha256": hashlib.sha256(engine.read_bytes()).hexdigest()},
        "backend": {"version": version, "compute_capability": capability},
        "engine": {
            "version_compatible": version_compatible,
            "hardware_compatibility_level": hardware,
        },
        "plugin": None,
        **content,
    }
    engine.with_name(engine.name + ".json").write_text(json.dumps(described))


def eventually(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not true() and time.monotonic() < end:
        time.sleep(0.001)
    return true()


def all_freed(gpu: FakeGpu) -> bool:
    allocated = [entry[1] for entry in gpu.log if entry[0] == "allocate"]
    return sorted(allocated) == sorted(gpu.freed) and not any(
        count for kind, count in gpu.alive.items() if kind != "graph"
    )


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


def test_eight_threads_share_a_bounded_pool(gpu: FakeGpu, engine: Path) -> None:
    with load(engine, concurrency=3) as session, ThreadPoolExecutor(8) as threads:
        xs = [batch(1 + i % 4, first=i) for i in range(400)]
        results = list(threads.map(session, xs))
    for x, result in zip(xs, results, strict=True):
        assert np.array_equal(result, 2 * x)
    assert 1 <= gpu.contexts_made <= 3
    assert all_freed(gpu)


def test_calls_wait_for_a_free_context(gpu: FakeGpu, engine: Path) -> None:
    gpu.gate = threading.Event()
    with load(engine, concurrency=2) as session:
        futures = [session.submit(batch(2, first=i)) for i in range(6)]
        assert eventually(lambda: gpu.names().count("execute") == 2)
        gpu.gate.set()
        for i, future in enumerate(futures):
            assert np.array_equal(future.result(10), 2 * batch(2, first=i))
    assert gpu.contexts_made == 2


def test_each_thread_retains_and_pushes_for_itself(gpu: FakeGpu, engine: Path) -> None:
    with load(engine) as session:
        with ThreadPoolExecutor(1) as thread:
            ident = thread.submit(threading.get_ident).result()
            for _ in range(3):
                thread.submit(session, batch(2)).result()
        mine = [entry[0] for entry in gpu.log if entry[1:] == (ident,)]
    assert mine == ["retain", "push", "pop", "push", "pop", "push", "pop"]


def test_before_tensorrt_10_dynamic_engines_have_one_context(
    gpu: FakeGpu, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu.version = "8.5.3"
    gpu.install(monkeypatch)
    with load(engine) as session:
        session(batch(2))
        session(batch(3))
    assert gpu.contexts_made == 1


def test_closing_waits_for_the_calls_that_run(gpu: FakeGpu, engine: Path) -> None:
    gpu.gate = threading.Event()
    session = load(engine)
    with ThreadPoolExecutor(2) as threads:
        running = threads.submit(session, batch(2))
        assert eventually(lambda: "execute" in gpu.names())
        closing = threads.submit(session.close)
        time.sleep(0.02)
        assert not closing.done()
        gpu.gate.set()
        closing.result(10)
        assert np.array_equal(running.result(10), 2 * batch(2))
    with pytest.raises(TdcError, match="closed"):
        session(batch(2))
    assert all_freed(gpu)


def test_a_session_that_is_dropped_frees_everything(gpu: FakeGpu, engine: Path) -> None:
    session = load(engine)
    session(batch(2))
    holder = [session]
    del session
    # The last reference goes in another thread than any that ran it.
    thread = threading.Thread(target=holder.clear)
    thread.start()
    thread.join(10)
    gc.collect()
    assert eventually(lambda: all_freed(gpu))


def test_a_session_that_is_collected_in_the_devices_thread(gpu: FakeGpu, engine: Path) -> None:
    session: Any = load(engine)
    owner = session._device_owner
    holder = [session]
    del session
    owner.call(holder.clear)
    assert eventually(lambda: all_freed(gpu))


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


def test_contiguous_strides_may_be_given(gpu: FakeGpu, engine: Path) -> None:
    with load(engine) as session:
        result = session(gpu.array(batch(4), strides=(12, 4)))
        assert np.array_equal(result.numpy(), 2 * batch(4))
        one = session(gpu.array(batch(1), strides=(999, 4)))
        assert np.array_equal(one.numpy(), 2 * batch(1))


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


@pytest.mark.usefixtures("gpu")
def test_a_sidecar_of_this_machine(engine: Path) -> None:
    write_sidecar(engine)
    with load(engine) as session:
        assert np.array_equal(session(batch(2)), 2 * batch(2))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"version": "10.2.0"}, "built by TensorRT 10.2.0, installed is 10.3.0"),
        ({"version": "11.0.0", "version_compatible": True}, "built by TensorRT 11.0.0"),
        ({"version": "10.4.0", "version_compatible": True}, "built by TensorRT 10.4.0"),
        ({"version": "8.6.1", "version_compatible": True}, "built by TensorRT 8.6.1"),
        ({"capability": "8.0"}, "compute capability 8.0, this GPU has 9.0"),
        ({"capability": "8.6"}, "compute capability 8.6"),
        (
            {"capability": "8.0", "hardware": "same_compute_capability"},
            "compute capability 8.0",
        ),
        ({"artifact": {"sha256": "0"}}, "belongs to another file"),
        ({"artifact": []}, "is no sidecar"),
    ],
)
def test_engines_of_other_machines_are_not_deserialised(
    gpu: FakeGpu, engine: Path, content: dict[str, Any], message: str
) -> None:
    write_sidecar(engine, **content)
    with pytest.raises(TdcError, match=message):
        load(engine)
    assert "deserialize" not in gpu.names()


@pytest.mark.parametrize(
    "content",
    [
        {"version": "10.2.1", "version_compatible": True},
        {"capability": "8.0", "hardware": "ampere_plus"},
        {"version": "10.3.0.26"},
    ],
)
def test_engines_that_run_here(gpu: FakeGpu, engine: Path, content: dict[str, Any]) -> None:
    write_sidecar(engine, **content)
    load(engine).close()
    assert "deserialize" in gpu.names()


def test_the_plugin_is_registered_once_and_first(
    gpu: FakeGpu, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sidecar(engine, plugin={"name": "TuckerConv"})
    library = tmp_path / "libtdc.so"
    monkeypatch.setenv("TDC_PLUGIN", str(library))
    with pytest.raises(TdcError, match="TDC_PLUGIN"):
        load(engine)
    library.touch()
    load(engine).close()
    load(engine).close()
    names = gpu.names()
    assert names.count("load_library") == 1
    assert names.index("load_library") < names.index("deserialize")


def test_a_plugin_that_is_none(gpu: FakeGpu, engine: Path, tmp_path: Path) -> None:
    with pytest.raises(TdcError, match="no plugin library at"):
        load(engine, plugin=tmp_path / "none.so")
    (tmp_path / "wrong.so").touch()
    with pytest.raises(TdcError, match="finds no TuckerConv"):
        load(engine, plugin=tmp_path / "wrong.so")
    assert "deserialize" not in gpu.names()


def test_a_file_that_is_no_engine(gpu: FakeGpu, tmp_path: Path) -> None:
    path = tmp_path / "bad.plan"
    path.write_bytes(b"junk")
    # Sessions of other tests that no collection has found yet have threads, too.
    before = set(threading.enumerate())
    with pytest.raises(TdcError, match="magic tag") as caught:
        load(path)
    assert str(path) in caught.value.received
    assert eventually(lambda: all_freed(gpu))
    assert eventually(lambda: not {*threading.enumerate()} - before)


def test_inputs_and_outputs_in_float16(gpu: FakeGpu, engine: Path) -> None:
    gpu.dtype = "HALF"
    with load(engine) as session:
        assert {info.dtype for info in (*session.inputs, *session.outputs)} == {np.dtype("float16")}
        x = batch(4).astype(np.float16)
        for given in (x, gpu.array(x)):
            result = np.asarray(session(given) if given is x else session(given).numpy())
            assert result.dtype == np.float16
            assert np.array_equal(result, 2 * x)
        with pytest.raises(TdcError, match="is float32"):
            session(batch(4))


def test_a_type_that_numpy_has_not(gpu: FakeGpu, engine: Path) -> None:
    gpu.dtype = "BF16"
    with pytest.raises(TdcError, match="'x' is BF16") as caught:
        load(engine)
    assert eventually(lambda: all_freed(gpu))
    del caught  # until here the error lived, whose frames must not hold the engine


def test_a_format_that_is_not_numpys(gpu: FakeGpu, engine: Path) -> None:
    gpu.format = "HWC8"
    with pytest.raises(TdcError, match="has format"):
        load(engine)


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


@pytest.mark.usefixtures("gpu")
def test_a_gpu_that_is_not_there(engine: Path) -> None:
    with pytest.raises(TdcError, match="device 1"):
        load(engine, device=1)


def test_without_tensorrt(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(TdcError, match="tensorrt cannot be imported") as caught:
        load(engine)
    assert ".onnx" in caught.value.fix


@pytest.mark.usefixtures("gpu")
def test_both_kinds_are_sessions(engine: Path) -> None:
    with load(engine) as session:
        assert isinstance(session, Session)


def test_a_program_that_ends_without_closing() -> None:
    """Nothing aborts, and the device's thread does not keep the program alive."""
    program = """
import atexit, tempfile
from pathlib import Path
import numpy as np, pytest
from tests.runtime.fake_cuda import FakeCuda11Driver
from tests.runtime.fake_gpu import FakeGpu
import tdc_deploy
gpu = FakeGpu()
gpu.install(pytest.MonkeyPatch())
atexit.register(lambda: print(gpu.violations, gpu.alive))  # before the sessions', so after them
path = Path(tempfile.mkdtemp()) / "model.engine"
path.write_bytes(b"engine")
session = tdc_deploy.load(path)
session.submit(np.zeros((2, 3), np.float32)).result(10)
kept = session(gpu.array(np.zeros((2, 3), np.float32)))
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    violations, alive = done.stdout.strip().split("] ")
    assert violations == "["
    assert all(count == 0 for count in ast.literal_eval(alive).values())
