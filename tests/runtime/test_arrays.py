from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.runtime.arrays import any_view, host_view, out_view


class DlpackOnly:
    """An array of a library that has nothing but DLPack."""

    def __init__(self, array: Any, device: int = 1) -> None:
        self.array = array
        self.device = device

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self.device, 0)


def test_numpy_is_itself() -> None:
    array = np.zeros(3)
    assert host_view("x", array) is array
    assert any_view("x", array) is array


def test_dlpack_shares_its_memory() -> None:
    array = np.arange(3.0)
    assert np.shares_memory(host_view("x", DlpackOnly(array)), array)
    assert np.shares_memory(any_view("x", DlpackOnly(array)), array)


@pytest.mark.parametrize(
    "value",
    [
        DlpackOnly(np.zeros(3), device=2),
        SimpleNamespace(__cuda_array_interface__={}),
        SimpleNamespace(
            device=SimpleNamespace(type="cuda"), detach=lambda: None, numpy=lambda: None
        ),
    ],
)
def test_what_is_on_a_gpu_is_not_copied_silently(value: Any) -> None:
    with pytest.raises(TdcError, match="'x' is on a GPU") as caught:
        host_view("x", value)
    assert ".cpu()" in caught.value.fix


@pytest.mark.parametrize("value", [[1.0], (1.0,), 1.0, None, "x", b"x"])
def test_what_is_no_array(value: Any) -> None:
    for view in (host_view, any_view):
        with pytest.raises(TdcError, match="'x' is "):
            view("x", value)


def test_torch_shares_its_memory() -> None:
    torch = pytest.importorskip("torch")
    for tensor in (torch.arange(6.0), torch.arange(6.0, requires_grad=True)):
        for view in (
            host_view("x", tensor),
            any_view("x", tensor),
            out_view("x", tensor, device=False),
        ):
            assert isinstance(view, np.ndarray)
            assert view.__array_interface__["data"][0] == tensor.data_ptr()
    transposed = torch.arange(6.0).reshape(2, 3).T
    assert np.array_equal(host_view("x", transposed), transposed.numpy())


def test_torch_types_that_numpy_has_not() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TdcError, match="cannot be seen as NumPy"):
        host_view("x", torch.zeros(2, dtype=torch.bfloat16))
    with pytest.raises(TdcError, match="cannot be seen as NumPy"):
        host_view("x", torch.zeros(2).to_sparse())


def test_half_of_dlpack() -> None:
    with pytest.raises(TdcError, match="cannot be seen as NumPy"):
        host_view("x", SimpleNamespace(__dlpack__=lambda: None))


def test_buffers_must_be_writable_and_whole() -> None:
    array = np.zeros((2, 3))
    with pytest.raises(TdcError, match="not contiguous"):
        out_view("y", array.T, device=False)
    array.flags.writeable = False
    with pytest.raises(TdcError, match="read-only"):
        out_view("y", array, device=False)
    misaligned = np.zeros(17, np.uint8)[1:].view(np.float64)
    with pytest.raises(TdcError, match="not aligned"):
        out_view("y", misaligned, device=False)
