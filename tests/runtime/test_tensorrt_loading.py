"""Which engines a TensorRT session loads."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.runtime.session import Session, load
from tests.runtime.engines import all_freed, batch, eventually, write_sidecar
from tests.runtime.fake_gpu import FakeGpu


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
