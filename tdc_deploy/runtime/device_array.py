"""An output that stays in GPU memory."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdc_deploy.runtime.arrays import DeviceView
from tdc_deploy.runtime.cuda import Cuda
from tdc_deploy.runtime.device import DeviceOwner, primary_context
from tdc_deploy.runtime.tensors import Shape

LEGACY_STREAM = 1  # CUDA's default stream, as __cuda_array_interface__ names it


class DeviceArray:
    """A fresh C-contiguous array on a GPU, freed with the object, even after its session closed.

    `torch.as_tensor(array, device="cuda")` and `cupy.asarray(array)` see it without a copy.
    """

    def __init__(
        self, owner: DeviceOwner, cuda: Cuda, shape: Shape, dtype: np.dtype[Any], stream: int
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self._device = owner.device
        self._cuda = cuda
        # The session's own stream is ordered with the default stream, which outlives it.
        self._stream = stream or LEGACY_STREAM
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self.pointer = owner.allocate(nbytes)
        weakref.finalize(self, owner.free, self.pointer)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, False),
            "strides": None,
            "version": 3,
            "stream": self._stream,
        }

    def view(self) -> DeviceView:
        """The array as the runtime sees others."""
        return DeviceView(self.pointer, self.shape, self.dtype, None, self)

    def numpy(self) -> NDArray[Any]:
        """A copy in host memory; waits for the stream that the session ran on."""
        array = np.empty(self.shape, self.dtype)
        with primary_context(self._device):
            self._cuda.copy_to_host(array, self.pointer, self._stream)
            self._cuda.synchronize(self._stream)
        return array
