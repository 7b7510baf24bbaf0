"""Reports that builds and plans write, in fake time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from tdc_deploy import api
from tdc_deploy.errors import TdcError
from tdc_deploy.plan_file import LayerChoice, Plan
from tdc_deploy.report import page as page_module
from tdc_deploy.report import reporter as reporter_module
from tdc_deploy.report.data import Report
from tdc_deploy.types import Candidate, Ranks
from tests.builders import LAYERS, chain_cnn, images, save_model, save_npz, small_cnn
from tests.cli.conftest import Run, run
from tests.fake_tensorrt import FakeTensorRT, fill
from tests.fakes import FakeTime, macs_of
from tests.report.parsed import parse
from tests.report.reports import NEEDS_MATPLOTLIB

__all__ = ["run"]

pytestmark = NEEDS_MATPLOTLIB


class Job:
    """A folder with a model and inputs; `seen` are the reports that were drawn."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.time = FakeTime(patch)
        self.inputs = save_npz(folder / "inputs.npz", image=images(16))
        self.model = save_model(small_cnn(), folder / "model.onnx")
        self.seen: list[Report] = []
        patch.setattr(reporter_module, "render", self._render)

    @property
    def page(self) -> Path:
        return self.folder / "out.html"

    def build(self, model: Path | None = None, **options: Any) -> Any:
        usual = {"inputs": self.inputs, "max_error": 0.3, "threads": 1, "report": self.page}
        return api.build(model or self.model, self.folder / "out.onnx", **{**usual, **options})

    def written(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob(".*")) + sorted(
            path.name for path in self.folder.glob("out*")
        )

    def text(self) -> str:
        return parse(self.page.read_text(encoding="utf-8")).text

    def _render(self, report: Report) -> str:
        self.seen.append(report)
        return page_module.render(report)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    return Job(tmp_path, monkeypatch)


def macs_in(path: Path) -> int:
    return round(macs_of(path, {"image": images(1)}))


def test_a_build_with_its_report(job: Job) -> None:
    artifact = job.build(latency_budget=0.5)
    assert job.written() == ["out.html", "out.onnx", "out.onnx.json"]
    assert f"{1 / artifact.ratio.value:.2f}× faster" in job.text()
    (report,) = job.seen
    outcome = report.outcome
    assert (outcome.ratio, outcome.error) == (artifact.ratio.value, artifact.comparison.error)
    assert (outcome.max_error, outcome.latency_budget) == (0.3, 0.5)
    assert report.output_bytes == (job.folder / "out.onnx").stat().st_size
    assert report.source_bytes == job.model.stat().st_size
    before, after = (sum(layer.macs[i] for layer in report.layers) for i in (0, 1))
    assert (before, after) == (macs_in(job.model), macs_in(job.folder / "out.onnx"))
    assert report.options["inputs"] == "inputs.npz"
    assert report.environment["threads"] == "1"


def test_trials_are_those_that_were_measured(job: Job) -> None:
    job.build(latency_budget=0.5)
    compared = job.time.compared
    (report,) = job.seen
    assert report.trade_off is not None
    # All but the result itself; a network that was tried twice was measured once.
    assert {t.measured for t in report.trade_off.trials}
    assert len({t.measured for t in report.trade_off.trials}) == compared - 1


def test_why_layers_stay_dense(job: Job) -> None:
    model = small_cnn()
    conv = next(node for node in model.graph.node if node.name == "conv2")
    conv.attribute.append(onnx.helper.make_attribute("group", 48))
    weight = next(t for t in model.graph.initializer if t.name == conv.input[1])
    values = onnx.numpy_helper.to_array(weight)[:, :1].copy()
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    job.build(save_model(model, job.folder / "depthwise.onnx"), max_error=0.05)
    layers = {layer.name: layer for layer in job.seen[0].layers}
    assert list(layers) == ["conv1", "conv2", "conv3"]
    assert "depthwise" in layers["conv2"].why
    assert "it is depthwise" in job.text()
    for layer in layers.values():
        assert bool(layer.why) != layer.changed


def test_int8_is_drawn_as_shares_of_the_sources_time(job: Job) -> None:
    job.time.int8_speed = 8.0
    save_npz(job.inputs, image=images(32))
    artifact = job.build(precision="int8")
    (report,) = job.seen
    forms = {form.name: form for form in report.forms}
    assert artifact.reason.startswith("tucker int8: "), artifact.reason
    trade = report.trade_off
    assert trade is not None
    # The frontier ends at what is dense in INT8, and the result was tried: by fake times both are exact but
    # for the calibration on all samples, which may move no time.
    assert trade.frontier[-1].ratio == pytest.approx(forms["dense int8"].ratio, rel=1e-6)
    tried = [trial.measured.ratio for trial in trade.trials]
    assert min(abs(ratio / report.outcome.ratio - 1) for ratio in tried) <= 1e-6
    text = job.text()
    assert "in 8 bits, dense before and planned after" in text
    assert "engine" not in text


def test_the_source_is_shipped(job: Job) -> None:
    job.time.width = 0.9  # not measurably faster
    artifact = job.build(latency_budget=0.5)
    assert artifact.decision == "source"
    text = job.text()
    assert "Unchanged" in text
    assert artifact.reason in text
    assert "was tried, and refused" in text
    assert "× faster" not in text


def test_nothing_could_be_compressed(job: Job) -> None:
    artifact = job.build(max_error=1e-7)
    assert artifact.decision == "source"
    assert "refused" not in job.text()


def test_a_model_that_came_in_as_chains(job: Job) -> None:
    job.build(save_model(chain_cnn(), job.folder / "chains.onnx"))
    (report,) = job.seen
    assert report.outcome.decision == "fused"
    assert report.trade_off is None
    assert "came in as a chain, now one operator" in job.text()
    assert "40 → 40" in job.text()


def test_random_inputs(job: Job) -> None:
    job.build(inputs=None, max_error=2.0, latency_budget=0.6)
    assert "UNVERIFIED" in job.text()


def test_a_given_plan(job: Job) -> None:
    plan = api.plan(job.model, inputs=job.inputs, max_error=0.3, latency_budget=0.5, threads=1)
    job.build(plan=plan)
    (report,) = job.seen
    assert report.trade_off is None
    assert report.options["plan"] == "given"
    assert sum(layer.changed for layer in report.layers) == len(plan.selection)


def test_a_plan_with_its_report(job: Job) -> None:
    output = job.folder / "out.json"
    made = api.plan(
        job.model, inputs=job.inputs, speedup=2, threads=1, output=output, report=job.page
    )
    assert job.written() == ["out.html", "out.json"]
    assert made.network is not None
    assert job.seen[0].outcome.ratio == made.network.ratio
    assert "plan" in job.text()


def test_a_plan_of_a_compressed_model(job: Job) -> None:
    model = save_model(chain_cnn(), job.folder / "chains.onnx")
    built = job.build(model, report=None).path
    made = api.plan(built, inputs=job.inputs, threads=1, report=job.page)
    assert "conv1" in made.layers
    assert job.page.is_file()


@pytest.mark.parametrize("failing", ["render", "write"])
def test_all_or_nothing(job: Job, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if failing == "render":
        monkeypatch.setattr(reporter_module, "render", fail)
    else:
        monkeypatch.setattr("tdc_deploy.files.os.fsync", fail)
    with pytest.raises((TdcError, OSError)):
        job.build(latency_budget=0.5)
    assert job.written() == []


def test_without_matplotlib_it_is_said_before_any_work(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_svg", None)
    with pytest.raises(TdcError, match=r"matplotlib[^$]*\[report\]"):
        job.build(latency_budget=0.5)
    with pytest.raises(TdcError, match=r"\[report\]"):
        api.plan(job.model, inputs=job.inputs, report=job.page)
    assert job.time.measured == 0
    job.build(latency_budget=0.5, report=None)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("report.txt", "ends in .html"),
        ("nowhere/out.html", "does not exist"),
        ("model.html", "would be overwritten"),
        ("folder.html", "is a folder"),
    ],
)
def test_where_no_report_can_be_written(job: Job, name: str, said: str) -> None:
    (job.folder / "folder.html").mkdir()
    model = job.model.rename(job.folder / "model.html")
    with pytest.raises(TdcError, match=said):
        job.build(model, report=job.folder / name)
    assert job.time.measured == 0


def test_the_report_is_no_other_output(job: Job) -> None:
    same = job.folder / "plan.html"
    with pytest.raises(TdcError, match="written twice"):
        api.plan(job.model, inputs=job.inputs, output=same, report=same)


def test_the_command_line(job: Job, run: Run) -> None:
    words = ["--inputs", job.inputs, "--max-error", 0.3, "--report", job.page]
    result = run("build", job.model, "-o", job.folder / "out.onnx", *words)
    assert result.code == 0
    assert "report written to" in result.out
    job.page.unlink()
    assert run("plan", job.model, *words).code == 0
    assert job.page.is_file()


def test_an_engine_with_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    FakeTensorRT(monkeypatch, tmp_path / "plugin.so")
    files = {"plan": tmp_path / "plan.json", "inputs": tmp_path / "inputs.npz"}
    page = tmp_path / "out.html"
    output = tmp_path / "out.engine"
    api.build(tmp_path / "model.onnx", output, max_error=0.9, report=page, **files)  # type: ignore[arg-type]
    text = parse(page.read_text(encoding="utf-8")).text
    for said in ("1.67× faster", "Forms that were built", "A100", "10.9.0.34", "plan.json"):
        assert said in text, said


def test_an_engine_of_the_source_is_no_refused_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    fake = FakeTensorRT(monkeypatch, tmp_path / "plugin.so")
    fake.ratios = dict.fromkeys(fake.ratios, 1.002)
    files = {"plan": tmp_path / "plan.json", "inputs": tmp_path / "inputs.npz"}
    output, page = tmp_path / "out.engine", tmp_path / "out.html"
    artifact = api.build(tmp_path / "model.onnx", output, max_error=0.9, report=page, **files)  # type: ignore[arg-type]
    assert artifact.decision == "source"
    text = parse(page.read_text(encoding="utf-8")).text
    assert "The engine is of the source model as it is" in text
    for not_so in ("refused", "was predicted", "tucker"):
        assert not_so not in text.lower(), not_so


def test_a_plan_of_nothing_has_no_report(job: Job) -> None:
    low = LayerChoice(Candidate("tucker2", Ranks(8, 8), "fused"))
    artifact = job.build(plan=Plan(dict.fromkeys(LAYERS, low)), max_error=9.0)
    page, plan = job.folder / "plan.html", job.folder / "plan.json"
    with pytest.raises(TdcError, match="nothing was measured"):
        api.plan(artifact.path, max_error=0.5, report=page, output=plan)
    assert not page.exists() and not plan.exists()
