"""Stands in for Triton's ONNX Runtime backend: the same file, parameters and checks, from Python.

It runs each request alone, so that its outputs are exactly those of a session that runs it alone.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import onnxruntime

TYPES = {
    "TYPE_FP32": "tensor(float)",
    "TYPE_FP16": "tensor(float16)",
    "TYPE_INT64": "tensor(int64)",
}


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self.utils = import_module("triton_python_backend_utils")
        config = json.loads(args["model_config"])
        options = onnxruntime.SessionOptions()
        threads = config["parameters"].get("intra_op_thread_count")
        options.intra_op_num_threads = int(threads["string_value"]) if threads else 0
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(path), options)
        batched = config["max_batch_size"] > 0
        check(config["input"], self.session.get_inputs(), batched)
        check(config["output"], self.session.get_outputs(), batched)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.respond(request) for request in requests]

    def respond(self, request: Any) -> Any:
        feeds = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        wanted = list(request.requested_output_names())
        try:
            values = self.session.run(wanted, feeds)
        except Exception as error:
            return self.utils.InferenceResponse(error=self.utils.TritonError(str(error)))
        pairs = zip(wanted, values, strict=True)
        return self.utils.InferenceResponse(
            [self.utils.Tensor(name, value) for name, value in pairs]
        )


def check(entries: list[Any], nodes: list[Any], batched: bool) -> None:
    """What the backend checks against the file: every name, type and size."""
    declared = {
        entry["name"]: (entry["data_type"], config_shape(entry, batched)) for entry in entries
    }
    for node in nodes:
        dtype, shape = declared.pop(node.name)
        known = [size if isinstance(size, int) else -1 for size in node.shape]
        if TYPES[dtype] != node.type or shape != known:
            raise ValueError(f"{node.name}: {dtype} {shape}, the model has {node.type} {known}")
    if declared:
        raise ValueError(f"not in the model: {sorted(declared)}")


def config_shape(entry: Any, batched: bool) -> list[int]:
    reshape = entry.get("reshape")
    dims = [int(size) for size in (entry["dims"] if reshape is None else reshape["shape"])]
    return [-1, *dims] if batched else dims
