"""Jobs of a small CNN, in fake time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders import chain_cnn, small_cnn
from tests.building.jobs import Job, job_of
from tests.fakes import FakeTime


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    return FakeTime(monkeypatch)


@pytest.fixture
def job(tmp_path: Path, fake_time: FakeTime) -> Job:
    """A small CNN in fake time."""
    del fake_time
    return job_of(tmp_path, small_cnn())


@pytest.fixture
def chains(tmp_path: Path, fake_time: FakeTime) -> Job:
    """A CNN that came in with a Tucker chain, in fake time."""
    del fake_time
    return job_of(tmp_path, chain_cnn())
