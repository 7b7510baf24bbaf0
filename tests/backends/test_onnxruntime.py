from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend


def test_an_output_that_is_an_input_has_memory_of_its_own() -> None:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1024]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [x, y])
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    given = np.arange(1024, dtype=np.float32)
    with OnnxRuntimeBackend(1).runner(model) as runner:
        found = dict(runner.infer({"x": given}, check_inputs=False))
    given[:] = -1
    np.testing.assert_array_equal(found["x"], np.arange(1024))
    np.testing.assert_array_equal(found["y"], np.arange(1024))
