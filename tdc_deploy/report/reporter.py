"""Gathers what a build or a plan sees, and makes the page from it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tdc_deploy.artifact import Artifact
from tdc_deploy.errors import TdcError
from tdc_deploy.files import check_writable
from tdc_deploy.graph.read import model_files
from tdc_deploy.inspection import fused_names
from tdc_deploy.plan_file import Plan, PlanFigures
from tdc_deploy.planner import Goal
from tdc_deploy.report.data import FormReport, LayerReport, Outcome, Report
from tdc_deploy.report.layers import layer_reports
from tdc_deploy.report.page import render
from tdc_deploy.report.tradeoff import trade_off
from tdc_deploy.search import Search
from tdc_deploy.source import Source
from tdc_deploy.versions import library_versions

SUFFIXES = (".html", ".htm")


def check_report(path: Path) -> None:
    """Raise TdcError if no report can be made, or written there, before any work is done."""
    if path.suffix.lower() not in SUFFIXES:
        raise TdcError(f"report {path}", expected="a name that ends in .html")
    check_writable(path)
    try:
        import matplotlib.backends.backend_svg  # noqa: F401
    except ImportError as error:
        raise TdcError(
            f"a report needs matplotlib, which cannot be imported: {error}",
            expected="the extra [report]",
            fix='pip install "tdc-deploy[report]" (in a checkout: pip install ".[report]")',
        ) from None


class Reporter:
    """One report: `watch` is given to the planner, `beside` to what writes the artifact."""

    def __init__(self, path: Path, source: Source, goal: Goal, options: Mapping[str, str]) -> None:
        self.path = path
        self._source = source
        self._goal = goal
        self._given = options
        self._searches: list[Search] = []

    def watch(self, search: Search) -> None:
        """Remember a search that has ended."""
        self._searches.append(search)

    def beside(self, artifact: Artifact, sidecar: Mapping[str, Any]) -> dict[Path, bytes]:
        """The page of an artifact with this sidecar, as a file to write."""
        outcome = self._built(artifact)
        of_source = artifact.decision == "source"
        report = Report(
            source=self._source.path.name,
            output=artifact.path.name,
            outcome=outcome,
            source_bytes=self._source_bytes(),
            output_bytes=sidecar["artifact"]["bytes"],
            layers=self._layers(
                None if outcome.decision == "engine" else artifact.plan, not of_source
            ),
            trade_off=trade_off(self._searches),
            forms=_forms(sidecar.get("forms") or sidecar.get("engine", {}).get("forms", {})),
            environment=_environment(sidecar["backend"], sidecar["libraries"]),
            options=self._options,
            data_aware=self._source.statistics is not None,
        )
        return {self.path: render(report).encode()}

    def plan_page(self, plan: Plan, output: Path | None) -> dict[Path, bytes]:
        """The page of a plan, as a file to write.

        Raises:
            TdcError: no network was measured for it.
        """
        figures = plan.network
        if figures is None:
            raise TdcError(
                "a report of a plan for which nothing was measured",
                expected="a model with layers to plan",
                fix="plan without --report",
            )
        report = Report(
            source=self._source.path.name,
            output="" if output is None else output.name,
            outcome=self._planned(plan, figures),
            source_bytes=self._source_bytes(),
            output_bytes=None,
            layers=self._layers(plan, True),
            trade_off=trade_off(self._searches),
            forms=(),
            environment=_environment(plan.backend, library_versions()),
            options=self._options,
            data_aware=self._source.statistics is not None,
        )
        return {self.path: render(report).encode()}

    @property
    def _options(self) -> dict[str, str]:
        return {**_goal_options(self._goal, bool(self._searches)), **self._given}

    def _built(self, artifact: Artifact) -> Outcome:
        ratio, comparison = artifact.ratio, artifact.comparison
        engine = artifact.decision == "source" and not artifact.refused
        figures = None if artifact.plan is None or engine else artifact.plan.network
        return Outcome(
            decision="engine" if engine else artifact.decision,
            reason=artifact.reason,
            warnings=artifact.warnings,
            before_ms=ratio.before.median,
            after_ms=ratio.after.median,
            ratio=ratio.value,
            interval=ratio,
            predicted_ratio=None if figures is None else figures.predicted_ms / figures.dense_ms,
            error=comparison.error,
            max_error=self._goal.max_error,
            latency_budget=self._goal.latency_budget,
            verified=artifact.verified,
            samples=comparison.samples,
            top1_agreement=comparison.top1_agreement,
            accuracy_before=comparison.accuracy_before,
            accuracy_after=comparison.accuracy_after,
        )

    def _planned(self, plan: Plan, figures: PlanFigures) -> Outcome:
        return Outcome(
            decision="planned",
            reason=f"{plan.measurements} layer measurements taken, the others were known",
            warnings=plan.warnings,
            before_ms=figures.dense_ms,
            after_ms=figures.measured_ms,
            ratio=figures.ratio,
            interval=None,
            predicted_ratio=figures.predicted_ms / figures.dense_ms,
            error=figures.error,
            max_error=self._goal.max_error,
            latency_budget=self._goal.latency_budget,
            verified=figures.verified,
            samples=0,
        )

    def _layers(self, plan: Plan | None, shipped: bool) -> tuple[LayerReport, ...]:
        table = self._searches[-1].table if self._searches else None
        return layer_reports(self._source, fused_names(self._source.path), plan, table, shipped)

    def _source_bytes(self) -> int:
        return sum(file.stat().st_size for file in model_files(self._source.path))


def _goal_options(goal: Goal, searched: bool) -> dict[str, str]:
    values = {
        "max_error": goal.max_error,
        "max_accuracy_drop": goal.max_accuracy_drop,
        "latency_budget": goal.latency_budget,
        "solver": goal.solver if searched else None,
        "flops_budget": goal.flops_budget,
        "theta": goal.theta if goal.solver == "tdc" else None,
    }
    return {
        name: value if isinstance(value, str) else f"{value:.4g}"
        for name, value in values.items()
        if value is not None
    }


def _forms(forms: Mapping[str, Mapping[str, Any]]) -> tuple[FormReport, ...]:
    return tuple(
        FormReport(name, form["time_ms"], form["ratio"], form["error"], form["precision"])
        for name, form in forms.items()
    )


def _environment(backend: Mapping[str, str], libraries: Mapping[str, str]) -> dict[str, str]:
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return {"made": now, **backend, **{f"{name} ": text for name, text in libraries.items()}}
