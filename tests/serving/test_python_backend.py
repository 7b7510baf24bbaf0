"""The Python variant's model without Triton: what it does with batches and faulty requests."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tdc_deploy
from tdc_deploy.serving.python_backend import TritonPythonModel, run, run_together
from tests.builders import images, save_model, shifts, small_cnn

Array = NDArray[Any]


@dataclass
class Tensor:
    """As Triton's: name() and as_numpy()."""

    key: str
    value: Array

    def name(self) -> str:
        return self.key

    def as_numpy(self) -> Array:
        return self.value


@dataclass
class Request:
    arrays: dict[str, Array]
    outputs: tuple[str, ...] = ("logits",)

    def inputs(self) -> list[Tensor]:
        return [Tensor(*item) for item in self.arrays.items()]

    def requested_output_names(self) -> tuple[str, ...]:
        return self.outputs


@pytest.fixture(autouse=True)
def _triton(monkeypatch: pytest.MonkeyPatch) -> None:
    utils: Any = ModuleType("triton_python_backend_utils")
    utils.Tensor = Tensor
    utils.TritonError = str
    utils.InferenceResponse = lambda output_tensors=None, error=None: SimpleNamespace(
        outputs=output_tensors, error=error
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)


def started(folder: Path, batch: int, **parameters: str) -> TritonPythonModel:
    version = folder / "net" / "1"
    version.mkdir(parents=True)
    save_model(small_cnn(batch="N", two_inputs=True, two_outputs=True), version / "model.onnx")
    given = {"artifact": "model.onnx", **parameters}
    config = {
        "max_batch_size": batch,
        "parameters": {key: {"string_value": value} for key, value in given.items()},
    }
    model = TritonPythonModel()
    model.initialize(
        {
            "model_config": json.dumps(config),
            "model_repository": str(folder / "net"),
            "model_version": "1",
        }
    )
    return model


def feeds(count: int, seed: int) -> dict[str, Array]:
    return {"image": images(count, seed=seed), "shift": shifts(count, seed=seed)}


def test_each_request_gets_its_own_rows(tmp_path: Path) -> None:
    model = started(tmp_path, 8, threads="1")
    requests = [Request(feeds(n, seed=n), ("features", "logits")) for n in (1, 3, 2)]
    responses = model.execute(requests)
    with tdc_deploy.load(tmp_path / "net" / "1" / "model.onnx", threads=1) as session:
        for request, response in zip(requests, responses, strict=True):
            wanted = run(session, request.arrays)
            got = {tensor.key: tensor.value for tensor in response.outputs}
            assert got.keys() == wanted.keys() == {"logits", "features"}
            for name, value in wanted.items():
                # Float32 sums in another order: some units in the last place.
                assert np.abs(got[name] - value).max() <= 1e-5 * np.abs(value).max()
    model.finalize()


class Counting:
    """A session that remembers the batch of each call."""

    def __init__(self, session: tdc_deploy.Session) -> None:
        self.session = session
        self.outputs = session.outputs
        self.batches: list[int] = []

    def __call__(self, **arrays: Array) -> Any:
        self.batches.append(len(arrays["image"]))
        return self.session(**arrays)


@pytest.mark.parametrize(("batch", "calls"), [(8, [3]), (0, [1, 2])])
def test_one_call_for_a_batch_and_one_each_without(
    tmp_path: Path, batch: int, calls: list[int]
) -> None:
    model = started(tmp_path, batch)
    counting: Any = Counting(model._session)
    model._session = counting
    model.execute([Request(feeds(1, 0)), Request(feeds(2, 1))])
    assert counting.batches == calls


def test_only_what_was_asked_for_is_answered(tmp_path: Path) -> None:
    (response,) = started(tmp_path, 8).execute([Request(feeds(1, 0), ("features",))])
    assert [tensor.key for tensor in response.outputs] == ["features"]


def test_a_faulty_request_does_not_spoil_the_others(tmp_path: Path) -> None:
    bad = feeds(1, 0) | {"image": images(1).astype(np.float64)}
    good, faulty = started(tmp_path, 8).execute([Request(feeds(1, 0)), Request(bad)])
    assert good.error is None
    assert good.outputs[0].value.shape == (1, 10)
    assert "float64" in faulty.error


def test_the_plugin_is_the_repositorys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TDC_PLUGIN", raising=False)
    started(tmp_path, 8, plugin="lib.so")
    assert os.environ.pop("TDC_PLUGIN") == str(tmp_path / "lib.so")


def test_together_is_the_same_as_one_batch(tmp_path: Path) -> None:
    path = save_model(small_cnn(batch="N"), tmp_path / "m.onnx")
    x = images(5)
    with tdc_deploy.load(path, threads=1) as session:
        parts = run_together(session, [{"image": x[:2]}, {"image": x[2:]}])
        whole = run(session, {"image": x})
    assert np.array_equal(np.concatenate([part["logits"] for part in parts]), whole["logits"])
