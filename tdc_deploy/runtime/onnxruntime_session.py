"""A session on ONNX Runtime's CPU provider; its `run` may be called from several threads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdc_deploy.backends.onnxruntime import make_session, onnxruntime_errors
from tdc_deploy.errors import TdcError
from tdc_deploy.runtime.arrays import address, host_view, out_view
from tdc_deploy.runtime.binding import bind_outputs, check_fits, check_separate
from tdc_deploy.runtime.session import Session, closed
from tdc_deploy.runtime.tensors import TensorInfo

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
}


class OnnxRuntimeSession(Session):
    """An ONNX model on the CPU. Inputs and outputs are in host memory."""

    def __init__(self, path: Path, threads: int, concurrency: int) -> None:
        self._session: Any = make_session(path, threads)
        inputs = [_info(node) for node in self._session.get_inputs()]
        outputs = [_info(node) for node in self._session.get_outputs()]
        super().__init__(inputs, outputs, concurrency)

    def _run(self, feeds: dict[str, Any], out: Any, stream: Any) -> Any:
        if stream is not None:
            raise TdcError(
                "a CUDA stream",
                expected="none: this session runs on the CPU, and returns when done",
            )
        session = self._session  # a `close` meanwhile does not take it away from this call
        if session is None:
            raise closed()
        views = {name: host_view(name, value) for name, value in feeds.items()}
        self._binder.check(views)
        if out is not None:
            return self._run_into(session, views, bind_outputs(self.outputs, out))
        with onnxruntime_errors("the model cannot be run on these inputs"):
            values = session.run(None, views)
        if self._single:
            return values[0]
        return {info.name: value for info, value in zip(self.outputs, values, strict=True)}

    def _run_into(
        self, session: Any, views: Mapping[str, NDArray[Any]], out: Mapping[str, Any]
    ) -> Any:
        targets = {name: out_view(name, value, device=False) for name, value in out.items()}
        for info in self.outputs:
            if info.name in targets:
                check_fits(info, targets[info.name])
        check_separate(views, targets)
        binding = session.io_binding()
        # ONNX Runtime gets addresses: these keep what they point to.
        kept = {name: np.ascontiguousarray(view) for name, view in views.items()}
        for name, array in kept.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, address(array))
        for info in self.outputs:
            if (target := targets.get(info.name)) is None:
                binding.bind_output(info.name)
            else:
                where = address(target)
                binding.bind_output(info.name, "cpu", 0, target.dtype, target.shape, where)
        try:
            session.run_with_iobinding(binding)
        except RuntimeError as error:  # unlike `run`, it has no types of its own
            raise TdcError(
                f"the model cannot be run on these inputs and buffers: {str(error).splitlines()[0]}",
                expected="shapes that the model takes, and buffers of those that it gives",
            ) from None
        values = binding.get_outputs()
        result = {
            info.name: out[info.name] if info.name in out else value.numpy()
            for info, value in zip(self.outputs, values, strict=True)
        }
        return result[self.outputs[0].name] if self._single else result

    def _release(self) -> None:
        self._session = None


def _info(node: Any) -> TensorInfo:
    if node.type not in _DTYPES:
        raise TdcError(f"{node.name!r} is {node.type}", expected="a tensor of numbers")
    return TensorInfo(node.name, np.dtype(_DTYPES[node.type]), tuple(node.shape))
