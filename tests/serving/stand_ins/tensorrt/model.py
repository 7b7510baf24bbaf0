"""Stands in for Triton's TensorRT backend: takes the configuration, and answers with zeros.

No engine is loaded: it says only that the server takes the configuration and finds the file.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self.utils = import_module("triton_python_backend_utils")
        self.config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        files = self.config["cc_model_filenames"] or {"": "model.plan"}
        for file in files.values():
            if not (folder / file).is_file():
                raise FileNotFoundError(folder / file)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.utils.InferenceResponse(self.zeros(request)) for request in requests]

    def zeros(self, request: Any) -> list[Any]:
        batch = [len(request.inputs()[0].as_numpy())] if self.config["max_batch_size"] else []
        return [
            self.utils.Tensor(
                entry["name"],
                np.zeros(
                    [*batch, *map(int, entry["dims"])],
                    self.utils.triton_string_to_numpy(entry["data_type"]),
                ),
            )
            for entry in self.config["output"]
        ]
