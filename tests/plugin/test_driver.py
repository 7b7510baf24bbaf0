from __future__ import annotations

import ctypes
from typing import Any

import pytest

from tdc_deploy.plugin.driver import compute_capabilities


class FakeDriver:
    """libcuda with these GPUs, as (major, minor)."""

    def __init__(self, *gpus: tuple[int, int], init: int = 0) -> None:
        self.gpus = gpus
        self.init = init

    def cuInit(self, flags: int) -> int:
        assert flags == 0
        return self.init

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(self.gpus)
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: int) -> int:
        value._obj.value = self.gpus[device][{75: 0, 76: 1}[attribute]]
        return 0


@pytest.mark.parametrize(
    ("driver", "found"),
    [
        (FakeDriver((9, 0), (8, 6)), [90, 86]),
        (FakeDriver(), []),
        (FakeDriver((9, 0), init=100), []),
    ],
)
def test_gpus(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver, found: list[int]) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)  # noqa: ARG005
    assert compute_capabilities() == found


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert compute_capabilities() == []
