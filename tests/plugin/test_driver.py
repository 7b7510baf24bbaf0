from __future__ import annotations

import ctypes
from typing import Any

import pytest

from tdc_deploy.plugin.driver import compute_capabilities, driver_cuda


class FakeDriver:
    """libcuda with these GPUs, as (major, minor)."""

    def __init__(self, *gpus: tuple[int, int], init: int = 0, attribute: int = 0) -> None:
        self.gpus = gpus
        self.init = init
        self.attribute = attribute

    def cuInit(self, flags: int) -> int:
        assert flags == 0
        return self.init

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(self.gpus)
        return 0

    def cuDeviceGet(self, handle: Any, ordinal: int) -> int:
        handle._obj.value = ordinal + 10
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = 12080
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        value._obj.value = self.gpus[device.value - 10][{75: 0, 76: 1}[attribute]]
        return self.attribute


@pytest.mark.parametrize(
    ("driver", "found"),
    [
        (FakeDriver((9, 0), (8, 6)), [90, 86]),
        (FakeDriver(), []),
        (FakeDriver((9, 0), init=100), []),
        (FakeDriver((9, 0), attribute=1), []),
    ],
)
def test_gpus(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver, found: list[int]) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)  # noqa: ARG005
    assert compute_capabilities() == found


@pytest.mark.parametrize(("gpus", "version"), [(((9, 0),), (12, 8)), ((), None)])
def test_the_cuda_that_the_driver_knows(
    monkeypatch: pytest.MonkeyPatch, gpus: Any, version: tuple[int, int] | None
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: FakeDriver(*gpus))
    assert driver_cuda() == version


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert compute_capabilities() == []
    assert driver_cuda() is None
