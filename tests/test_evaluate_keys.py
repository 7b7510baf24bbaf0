"""Under what a trial is kept where times and errors come from different backends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.evaluate import Evaluator
from tdc_deploy.profiling.store import Store
from tdc_deploy.samples import random_samples
from tdc_deploy.source import read_source
from tdc_deploy.types import Candidate, Ranks
from tests.builders import save_model, small_cnn
from tests.fakes import FakeTime


class Elsewhere(OnnxRuntimeBackend):
    """Another device."""

    def describe(self) -> dict[str, str]:
        return {"device": "elsewhere"}


def test_a_fused_and_a_native_chain_have_times_of_their_own_and_one_error(
    tmp_path: Path, monkeypatch: Any
) -> None:
    time = FakeTime(monkeypatch)
    source = read_source(save_model(small_cnn(), tmp_path / "model.onnx"))
    samples = random_samples(source.network.graph, source.inputs)
    accuracy = OnnxRuntimeBackend(1)
    with Store(tmp_path / "store.sqlite3") as store:
        evaluator = Evaluator(source, samples, Elsewhere(1), store, accuracy)
        ranks = Ranks(16, 16)
        fused, native = ({"conv2": Candidate("tucker2", ranks, how)} for how in ("fused", "native"))
        trials = [evaluator.trial(selection) for selection in (fused, native, native)]
        assert time.compared == 2
        assert len({trial.error for trial in trials}) == 1
        # A trial has its error from the other backend.
        other = Evaluator(source, samples, Elsewhere(1), store, OnnxRuntimeBackend(2))
        other.trial(fused)
        assert time.compared == 3
        # What an evaluation on ONNX Runtime alone finds is known there already.
        kept = len(store)
        alone = Evaluator(source, samples, accuracy, store)
        assert alone.error(fused) == trials[0].error
        assert len(store) == kept
