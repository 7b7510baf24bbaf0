"""The model that Triton's Python backend runs for `--variant python`: our Session on the artifact.

A version folder's model.py imports it. `triton_python_backend_utils` exists only inside Triton.
"""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdc_deploy.errors import TdcError
from tdc_deploy.plugin.locate import PLUGIN_VARIABLE
from tdc_deploy.runtime.session import Session, load

Arrays = dict[str, NDArray[Any]]

MODEL_PY = '''"""Serves the artifact beside this file; tdc-deploy must be installed in Triton's Python."""

from tdc_deploy.serving.python_backend import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


class TritonPythonModel:
    """Triton's interface of a Python model; its methods are called by Triton."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the artifact of this version."""
        config = json.loads(args["model_config"])
        given = {key: value["string_value"] for key, value in config["parameters"].items()}
        model = Path(args["model_repository"])
        if "plugin" in given:
            os.environ.setdefault(PLUGIN_VARIABLE, str(model.parent / given["plugin"]))
        path = model / args["model_version"] / given["artifact"]
        self._utils = import_module("triton_python_backend_utils")
        self._session = load(path, threads=int(given.get("threads", "0")))
        self._batches = config["max_batch_size"] > 0

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response for each request; what Triton batched runs as one."""
        feeds = [self._feeds(request) for request in requests]
        if self._batches and len(feeds) > 1:
            try:
                results = run_together(self._session, feeds)
            except TdcError:
                pass  # one of them is at fault: alone, each gets its own answer
            else:
                return [self._response(*pair) for pair in zip(requests, results, strict=True)]
        return [
            self._respond_alone(request, feed)
            for request, feed in zip(requests, feeds, strict=True)
        ]

    def finalize(self) -> None:
        """Free the model."""
        self._session.close()

    def _feeds(self, request: Any) -> Arrays:
        return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}

    def _respond_alone(self, request: Any, feeds: Arrays) -> Any:
        try:
            return self._response(request, run(self._session, feeds))
        except TdcError as error:
            return self._utils.InferenceResponse(error=self._utils.TritonError(str(error)))

    def _response(self, request: Any, outputs: Arrays) -> Any:
        wanted = request.requested_output_names()
        tensors = [self._utils.Tensor(name, outputs[name]) for name in outputs if name in wanted]
        return self._utils.InferenceResponse(output_tensors=tensors)


def run(session: Session, feeds: Arrays) -> Arrays:
    """The outputs by name, whether the model has one or several."""
    result = session(**feeds)
    if isinstance(result, dict):
        return result
    return {session.outputs[0].name: result}


def run_together(session: Session, feeds: list[Arrays]) -> list[Arrays]:
    """Run several requests, [n_i, …] each, as one batch; the outputs of each."""
    merged = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
    outputs = run(session, merged)
    ends = np.cumsum([len(next(iter(feed.values()))) for feed in feeds])
    parts = {name: np.split(value, ends[:-1]) for name, value in outputs.items()}
    return [{name: parts[name][i] for name in outputs} for i in range(len(feeds))]
