"""TensorRT replaced for whole builds: ONNX Runtime runs what its parser would get, and times are given."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from tdc_deploy import engine_builds, engine_forms, engine_sidecar
from tdc_deploy.backends.onnxruntime import NumpyOnnxrtRunner
from tdc_deploy.backends.tensorrt import compatibility, machine
from tdc_deploy.backends.tensorrt.engine import Engine
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.backends.tensorrt.precision import BuiltPrecision
from tdc_deploy.backends.tensorrt.prepare import Prepared
from tdc_deploy.backends.tensorrt.profiles import Ranges
from tdc_deploy.graph.functions import function_body
from tdc_deploy.profiling.analytical.chips import find_device
from tdc_deploy.types import Ratio
from tests.builders import chain_cnn, images, save_model, save_npz, small_cnn
from tests.fakes import constant_timing

PLAN = {
    "layers": {"conv2": {"form": "tucker2", "r_in": 24, "r_out": 24, "implementation": "fused"}}
}

# A form's time against the source's own.
RATIOS = {"source": 1.0, "native": 0.8, "fused": 0.6}


class FakeTensorRT:
    """Engines are ONNX models whose plugin nodes have their bodies back; times are given."""

    def __init__(self, patch: pytest.MonkeyPatch, plugin: Path) -> None:
        self.ratios = dict(RATIOS)
        self.width = 0.01
        self.built: list[Prepared] = []
        self.loaded: list[Path] = []
        trt = SimpleNamespace(__version__="10.9.0.34")
        patch.setattr(engine_builds, "check_engine_builds", lambda *_: None)
        patch.setattr(engine_builds, "check_engine_plans", lambda *_: None)
        patch.setattr(machine, "tensorrt", lambda: trt)
        patch.setattr(machine, "this_device", lambda: find_device("A100"))
        patch.setattr(machine, "find_plugin", lambda *_: plugin)
        patch.setattr(machine, "register_plugin", lambda _, path: self.loaded.append(path))
        patch.setattr(engine_forms, "build_engine", self._build)
        patch.setattr(engine_forms, "EngineRunner", self._runner)
        patch.setattr(engine_forms, "compare_fresh", self._compare)
        self.architectures = "80,90"
        patch.setattr(engine_sidecar, "Library", self._library)
        patch.setattr(compatibility, "Library", self._library)

    def _build(
        self, prepared: Prepared, ranges: Ranges, options: EngineOptions, _progress: object
    ) -> Engine:
        self.built.append(prepared)
        name = options.precision
        dtype = "float16" if name == "fp16" else "float32"
        of_input = prepared.model.graph.input[0].type.tensor_type.elem_type
        io_type = np.dtype(helper.tensor_dtype_to_np_dtype(of_input)).name
        return Engine(
            with_bodies(prepared.model).SerializeToString(),
            "10.9.0.34",
            BuiltPrecision(name, {dtype: 4}),
            (),
            {key: (io_type, (-1, *found.opt[1:])) for key, found in ranges.items()},
            {"logits": (io_type, (-1, 10))},
        )

    def _library(self, _path: Path) -> Any:
        info = {"version": 1, "architectures": self.architectures}
        return SimpleNamespace(build_info=lambda: info)

    def _runner(self, engine: Engine, name: str = "engine", _flush_bytes: int = 0) -> Any:
        runner: Any = NumpyOnnxrtRunner(lambda: session_of(engine.plan), {})
        runner.name = name
        # As EngineRunner does.
        infer = runner.infer_impl
        types = {key: np.dtype(dtype) for key, (dtype, _) in engine.inputs.items()}
        runner.infer_impl = lambda feeds: infer({k: x.astype(types[k]) for k, x in feeds.items()})
        return runner

    def _compare(self, before: Any, after: Any, _feeds: object, _effort: object) -> Ratio:
        before(), after()
        value = list(self.ratios.values())[self._form()]
        bounds = (value, value - self.width, value + self.width)
        return Ratio(*bounds, constant_timing(1.0), constant_timing(value))

    def restart(self) -> None:
        """Forget what was built and timed."""
        self.built.clear()
        self._compared = -1

    def _form(self) -> int:
        self._compared = getattr(self, "_compared", -1) + 1
        return self._compared


def session_of(content: bytes) -> onnxruntime.InferenceSession:
    """A session that computes Q/DQ as it stands: ONNX Runtime quantises biases too, and in float16 divides
    by products of scales that are 0 there.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def with_bodies(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that ONNX Runtime runs."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    slopes = {name: {0.0, 0.5} for name in ("first_slope", "core_slope", "slope")}
    for name in ("TuckerConv", "TuckerConvAdd"):
        copied.functions.append(function_body(name, copied.opset_import[0].version, slopes))
    return copied


def fill(folder: Path) -> Path:
    """Put model.onnx, chain.onnx, inputs.npz, plan.json and plugin.so into a folder."""
    save_model(small_cnn(batch="n"), folder / "model.onnx")
    save_model(chain_cnn(), folder / "chain.onnx")
    save_npz(folder / "inputs.npz", image=images(16))
    (folder / "plan.json").write_text(json.dumps(PLAN))
    (folder / "plugin.so").write_bytes(b"plugin")
    return folder


def scaled(folder: Path, **factors: float) -> None:
    """Multiply some weights of the folder's model, by their names with _ for dots."""
    model = onnx.load(str(folder / "model.onnx"))
    for tensor in model.graph.initializer:
        factor = factors.get(tensor.name.replace(".", "_"))
        if factor is not None:
            values = onnx.numpy_helper.to_array(tensor) * factor
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype("float32"), tensor.name))
    onnx.save(model, str(folder / "model.onnx"))
