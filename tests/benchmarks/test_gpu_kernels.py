"""The GPU benchmarks as far as they go without a GPU: on the CPU, with emulated kernels and false time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from benchmarks import gpu_check, gpu_kernels
from benchmarks.gpu import measure
from benchmarks.gpu.grid import SMALL, Check
from benchmarks.gpu.measure import Bench, measure_core, measure_layer
from benchmarks.gpu.natives import competitors, precision, relative_error
from benchmarks.gpu.ours import OurLayer
from benchmarks.gpu.problem import make_problem, worst_excess
from benchmarks.gpu.tables import print_results
from benchmarks.gpu.timing import Samples, summary
from tdc_deploy.cli.output import Output
from tdc_deploy.plugin.library import Library
from tdc_deploy.profiling.analytical.tactics import ARITHMETICS, Arithmetic
from tests.helpers import conv64, relative

torch.set_num_threads(1)  # the tensors are tiny

PLAIN, ODD, STRIDED = SMALL[:3]


def test_every_tactic_is_right_on_the_small_layers(
    emulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu_check.run(emulated, tmp_path / "check.json") == 0
    assert ", 0 wrong" in capsys.readouterr().out
    written = json.loads((tmp_path / "check.json").read_text())
    assert written["machine"] == {"emulated": True}
    assert {f["arithmetic"] for f in written["findings"]} >= {"f16"}


def test_a_wrong_result_is_found(
    emulated: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = OurLayer.output

    def wrong(ours: OurLayer, number: int) -> torch.Tensor:
        y = right(ours, number)
        y[0, 0, 0, 0] += 0.25
        return y

    monkeypatch.setattr(OurLayer, "output", wrong)
    monkeypatch.setattr(gpu_check, "SMALL", (PLAIN,))
    assert gpu_check.run(emulated, None) == 1
    captured = capsys.readouterr()
    assert ", 0 wrong" not in captured.out
    assert "of the allowed error" in captured.err


def layer(emulated: Path, check: Check, arithmetic: Arithmetic) -> OurLayer:
    problem = make_problem(
        check.case, arithmetic, device="cpu", residual=check.residual, slopes=check.slopes
    )
    return OurLayer(Library(emulated), problem)


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("operand", ["first", "first_bias", "core", "core_bias", "last", "bias"])
def test_no_operand_may_be_off(emulated: Path, arithmetic: Arithmetic, operand: str) -> None:
    """One element of one operand, by a tenth, is more than the rounding that is allowed."""
    ours = layer(emulated, PLAIN, arithmetic)
    y = ours.output(ours.tactics()[0].number)
    assert worst_excess(ours.problem, y) <= 1
    changed = getattr(ours.problem, operand).clone()
    changed.view(-1)[5] += 0.1
    other = dataclasses.replace(ours.problem, **{operand: changed})
    assert worst_excess(other, y) > 2


def test_nan_is_never_right(emulated: Path) -> None:
    ours = layer(emulated, ODD, "f32")
    y = ours.output(ours.tactics()[0].number)
    y[1, 2, 3, 4] = float("nan")
    assert not worst_excess(ours.problem, y) <= 1


@pytest.mark.parametrize("check", [PLAIN, STRIDED], ids=["plain", "strided"])
def test_competitors_compute_the_layer(check: Check) -> None:
    case = dataclasses.replace(check.case, layer=dataclasses.replace(check.case.layer, batch=6))
    problem = make_problem(case, "f32", device="cpu", biases=False)
    layer, weight = case.layer, problem.weight.numpy()
    dense = conv64(problem.x.numpy(), weight, None, layer.strides, layer.pads, layer.dilations)
    names = set()
    for competitor in competitors(problem, "off"):
        with precision("f32"):
            y = competitor.make()()
        if competitor.kind == "chain":
            assert worst_excess(problem, y) <= 1, competitor.name
        else:
            assert relative(y.numpy(), dense) <= 1e-5  # fp32 sums of a few hundred terms
        assert relative_error(problem, competitor.kind, y) <= 1e-5
        assert not relative_error(problem, competitor.kind, y * 1.05) <= 1e-2
        names.add(competitor.name)
    assert len(names) == 5


def test_settings_are_put_back() -> None:
    before = torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32
    with precision("tf32"):
        assert torch.backends.cudnn.benchmark and torch.backends.cuda.matmul.allow_tf32
        assert not torch.is_grad_enabled()
    assert before == (torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32)


def test_summary() -> None:
    assert summary([float(i) for i in range(11)]) == Samples(5.0, 1.0, 9.0, 11)


class FalseTimer:
    """Runs the work once; everything takes 8 microseconds."""

    def time(self, run: Callable[[], object]) -> Samples:
        run()
        return Samples(8.0, 7.0, 9.0, 3)


@pytest.fixture
def bench(emulated: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """tdc_time gives the tactic's number, so that the first is the fastest and the pick the second."""

    def number_as_time(_: Library, number: int, *__: object, **___: object) -> list[float]:
        return [float(number)] * 3

    library = Library(emulated)
    monkeypatch.setattr(Library, "time", number_as_time)
    monkeypatch.setattr(measure, "first_pick", lambda *_: _fastest(library)[1])
    return Bench(library, FalseTimer(), compile_mode="off", device="cpu")


def _fastest(library: Library) -> list[int]:
    problem = make_problem(PLAIN.case, "f16", device="cpu")
    return sorted(tactic.number for tactic in OurLayer(library, problem).tactics())


def test_a_layer_is_measured_and_printed(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = _fastest(bench.library)[:2]
    found = measure_layer(bench, PLAIN.case, "f16")
    ours = found["ours"]
    assert (ours["number"], ours["us"], ours["tdc_time_us"]) == (first, 8.0, first)
    assert ours["pick_tdc_time_us"] == second
    assert ours["wrong"] == {} and ours["excess"] <= 1
    assert len(found["dense"]) == 2 and len(found["chain"]) == 3 and not found["failed"]
    entry = {"batch": 1, "precision": "fp16", "floor_us": 2.0, **found}
    print_results(Output(as_json=False, quiet=False), {"m/l/b1/fp16": entry})
    printed = capsys.readouterr().out
    assert "geometric mean over the best chain: 1.00" in printed
    assert "not measured" in printed and "MISSED" in printed


def test_a_core_is_measured_and_printed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Library, "core_time", lambda _, config, *__, **___: [9.0 - config])
    found = measure_core(bench, PLAIN.case)
    assert found["ours"]["us"] == found["tdc"]["us"] == 8.0
    assert found["tdc"]["tactic"].startswith("channel-first")
    last = bench.library.core_count() - 1
    assert found["tdc_core"] == {"us": 9.0 - last, "config": last}
    print_results(Output(as_json=False, quiet=False), {"cores/a/b1/fp32": found})
    assert "1.00 of 1" in capsys.readouterr().out


def test_a_wrong_tactic_is_not_the_fastest(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = _fastest(bench.library)[:2]
    right = OurLayer.output

    def wrong(ours: OurLayer, number: int) -> torch.Tensor:
        return right(ours, number) * (1.0 if number != first else 1.5)

    monkeypatch.setattr(OurLayer, "output", wrong)
    ours = measure_layer(bench, PLAIN.case, "f16")["ours"]
    assert ours["number"] == second
    assert list(ours["wrong"]) == [bench.library.describe(first)]


def test_a_competitor_that_fails_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "relative_error", lambda _, kind, __: 0.5 * (kind == "dense"))
    found = measure_layer(bench, PLAIN.case, "f16")
    assert found["dense"] == {} and len(found["chain"]) == 3
    assert all("relative error is 0.5" in reason for reason in found["failed"].values())


def test_jobs_are_selected() -> None:
    everything = list(gpu_kernels.selected(None, None, None))
    assert len({job.key for job in everything}) == len(everything) == 26 * 9 + 18
    assert everything[0].key == "resnet18/layer1.0.conv1/b1/fp16"
    cores: list[Any] = list(gpu_kernels.selected(["cores"], None, None))
    assert {job.key.split("/", 2)[2] for job in cores} == {"b1/fp32"}
