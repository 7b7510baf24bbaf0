"""What ONNX Runtime makes of a model: which operators compute in 8 bits."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import onnx
import onnxruntime

from tdc_deploy.backends.onnxruntime import LOG_ERRORS_ONLY, PROVIDER, onnxruntime_errors

# The operators that hold weights, in 8 bits and in others.
INT8_OPERATORS = ("QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat")
FLOAT_OPERATORS = ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")


def operators_run(model: onnx.ModelProto) -> Counter[str]:
    """How often each operator stands in the graph that ONNX Runtime runs, after its optimisations."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_ERRORS_ONLY
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(path)
        with onnxruntime_errors("ONNX Runtime cannot load the model"):
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[PROVIDER])
        optimised = onnx.load(str(path), load_external_data=False)
    return Counter(node.op_type for node in optimised.graph.node)


def weighted_counts(operators: Counter[str]) -> dict[str, int]:
    """How many operators with weights compute in int8, and how many in floating point."""
    return {
        "int8": sum(operators[name] for name in INT8_OPERATORS),
        "float": sum(operators[name] for name in FLOAT_OPERATORS),
    }
