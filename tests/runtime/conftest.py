"""Stand-ins for a GPU and an engine: nothing here ran on a GPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.engines import eventually
from tests.runtime.fake_gpu import FakeGpu


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    """A machine with a GPU, whose rules the test must not have broken."""
    fake = FakeGpu()
    fake.install(monkeypatch)
    monkeypatch.setattr("tdc_deploy.runtime.device._THREAD", threading.local())
    yield fake
    assert fake.violations == []
    # What is freed last is freed by a thread of the device's own.
    assert eventually(lambda: logged(fake, "push") == logged(fake, "pop"))


def logged(gpu: FakeGpu, what: str) -> list[Any]:
    return sorted(entry[1] for entry in list(gpu.log) if entry[0] == what)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "model.engine"
    path.write_bytes(b"engine")
    return path
