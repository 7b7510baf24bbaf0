"""A session on a TensorRT engine."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tdc_deploy.errors import TdcError
from tdc_deploy.plugin.locate import find_plugin
from tdc_deploy.runtime import libraries
from tdc_deploy.runtime.arrays import DeviceView, View, any_view, out_view
from tdc_deploy.runtime.binding import bind_outputs, check_fits, check_separate
from tdc_deploy.runtime.cuda import Cuda, stream_address
from tdc_deploy.runtime.device import DeviceOwner, compute_capability, primary_context
from tdc_deploy.runtime.engine import Engine
from tdc_deploy.runtime.engine_info import EngineInfo, read_engine_info
from tdc_deploy.runtime.execution import Execution
from tdc_deploy.runtime.plugin_library import register_plugin
from tdc_deploy.runtime.pool import ExecutionPool
from tdc_deploy.runtime.session import Session


class TensorRtSession(Session):
    """An engine on a GPU. Inputs and outputs are in host or GPU memory.

    Without `out`, outputs are NumPy arrays if every input is in host memory, else `DeviceArray`s, for
    which no call waits: the stream orders them. Without `stream`, a call is ordered with CUDA's
    default stream only.
    """

    def __init__(
        self, path: Path, concurrency: int, device: int, plugin: Path | None, cuda_graphs: bool
    ) -> None:
        tensorrt, content = libraries.tensorrt(), path.read_bytes()
        info = read_engine_info(path, content)
        if info is not None:
            info.check_tensorrt(tensorrt.__version__)
        capability = compute_capability(device)
        if info is not None:
            info.check_device(capability)
        cuda = Cuda()
        _prepare_plugin(tensorrt, info, plugin)
        compatible = info is not None and info.version_compatible
        owner = DeviceOwner(device)
        try:
            engine = owner.call(
                lambda: Engine(tensorrt, path, content, version_compatible=compatible)
            )
        except BaseException:
            owner.close()
            raise
        contexts = concurrency if engine.shares_profile else 1

        def make() -> Execution:
            return owner.call(
                lambda: Execution(engine.make_context(), engine.outputs, owner, cuda, cuda_graphs)
            )

        super().__init__(engine.inputs, engine.outputs, contexts)
        self._device = device
        self._cuda = cuda
        self._device_owner = owner
        self._pool = ExecutionPool(make, contexts)
        # Also when the session is dropped without `close`, or the program ends.
        self._finalizer = weakref.finalize(self, _release, self._pool, engine, owner)

    def _run(self, feeds: dict[str, Any], out: Any, stream: Any) -> Any:
        used = None if stream is None else stream_address(stream)
        given = bind_outputs(self.outputs, out)
        views = {name: any_view(name, value) for name, value in feeds.items()}
        self._binder.check(views)
        targets = self._targets(given)
        check_separate(views, targets)
        on_device = any(isinstance(view, DeviceView) for view in views.values())
        shapes = {name: view.shape for name, view in views.items()}
        with self._pool.lend(shapes) as execution, primary_context(self._device):
            self._check_device(views)
            self._check_device(targets)
            fresh = execution.run(views, targets, used, on_device)
        if self._single:
            (name,) = (info.name for info in self.outputs)
            return given[name] if name in given else fresh[name]
        names = [info.name for info in self.outputs]
        return {name: given[name] if name in given else fresh[name] for name in names}

    def _targets(self, given: Mapping[str, Any]) -> dict[str, View]:
        targets = {name: out_view(name, value, device=True) for name, value in given.items()}
        for info in self.outputs:
            if info.name in targets:
                check_fits(info, targets[info.name])
        return targets

    def _check_device(self, views: Mapping[str, View]) -> None:
        for name, view in views.items():
            if not isinstance(view, DeviceView):
                continue
            device = self._cuda.device_of(view.pointer)
            if device != self._device:
                raise TdcError(
                    f"{name!r} is {'not in GPU memory' if device is None else f'on GPU {device}'}",
                    expected=f"GPU {self._device}, which this session runs on",
                )

    def _release(self) -> None:
        self._finalizer()


def _prepare_plugin(tensorrt: Any, info: EngineInfo | None, plugin: Path | None) -> None:
    if plugin is not None:
        register_plugin(tensorrt, plugin)
    elif info is not None and info.needs_plugin:
        register_plugin(tensorrt, find_plugin(int(tensorrt.__version__.split(".")[0])))


def _release(pool: ExecutionPool, engine: Engine, owner: DeviceOwner) -> None:
    """Free everything in the owner's thread; knows no session, so that one can be collected."""
    executions = pool.close()

    def release() -> None:
        for execution in executions:
            execution.release()
        engine.release()

    try:
        owner.call(release)
    finally:
        owner.close()
