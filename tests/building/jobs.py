"""A folder with a model and inputs, and builds in fake time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from tdc_deploy import api
from tdc_deploy.artifact import Artifact
from tdc_deploy.plan_file import LayerChoice, Plan
from tdc_deploy.runtime.session import Session
from tdc_deploy.sidecar import read_sidecar
from tdc_deploy.types import Candidate, Ranks
from tests.builders import LAYERS, images, save_model, save_npz

SAMPLES = 16


# Half the time is reached at an error of 0.12 on these inputs, a tenth not at all.
BUDGET = 0.5


MAX_ERROR = 0.3


# The two are the same file in the same library.
SAME = 0.0


# Fusing reorders float32 sums; logits are of size 10.
FUSED = 1e-3


LOW = Candidate("tucker2", Ranks(4, 16), "fused")


ROUGH = Plan({name: LayerChoice(LOW) for name in LAYERS})


@dataclass
class Job:
    """A folder with a model and inputs, and the calls on them."""

    folder: Path
    model: Path
    inputs: Path

    @property
    def output(self) -> Path:
        return self.folder / "out" / "fast.onnx"

    @property
    def store(self) -> Path:
        return self.folder / "store.sqlite3"

    def build(self, **options: Any) -> Artifact:
        given = {"output": self.output, **self._usual(), **options}
        return api.build(self.model, **given)

    def plan(self, **options: Any) -> Plan:
        given = {**self._usual(), **options}
        return api.plan(self.model, **given)

    def _usual(self) -> dict[str, Any]:
        return {"inputs": self.inputs, "max_error": MAX_ERROR, "store": self.store, "threads": 1}

    def written(self) -> list[str]:
        return sorted(path.name for path in self.output.parent.iterdir())


def job_of(folder: Path, model: onnx.ModelProto, **arrays: NDArray[Any]) -> Job:
    (folder / "out").mkdir()
    return Job(
        folder,
        save_model(model, folder / "model.onnx"),
        save_npz(folder / "inputs.npz", **(arrays or {"image": images(SAMPLES)})),
    )


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(str(path)).graph.node]


def run(path: Path, **feeds: Any) -> NDArray[Any]:
    """The first output in a bare ONNX Runtime, one sample at a time."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    count = len(next(iter(feeds.values())))
    rows = [{name: array[i : i + 1] for name, array in feeds.items()} for i in range(count)]
    return np.concatenate([session.run(None, row)[0] for row in rows])


def call(session: Session, *arrays: NDArray[Any]) -> NDArray[Any]:
    """The output of a session of one output."""
    result = session(*arrays)
    assert isinstance(result, np.ndarray)
    return result


def sidecar_of(artifact: Artifact) -> dict[str, Any]:
    content = read_sidecar(artifact.path)
    assert content is not None
    return content


def assert_source_was_shipped(job: Job, artifact: Artifact) -> None:
    assert artifact.decision == "source"
    assert onnx.load(str(artifact.path)) == onnx.load(str(job.model))
    assert sidecar_of(artifact)["decision"] == "source"
    assert sidecar_of(artifact)["reason"] == artifact.reason
    assert artifact.reason
