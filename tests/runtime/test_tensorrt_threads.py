"""Threads, closing and collection of a TensorRT session."""

from __future__ import annotations

import ast
import gc
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.runtime.session import load
from tests.runtime.engines import all_freed, batch, eventually
from tests.runtime.fake_gpu import FakeGpu


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
