"""What is asked of a plan or a build, checked before any work: goals, files, a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from tdc_deploy.builder import Terms, check_output
from tdc_deploy.errors import TdcError
from tdc_deploy.files import check_distinct
from tdc_deploy.graph.read import model_files
from tdc_deploy.plan_file import Plan, read_plan
from tdc_deploy.planner import DEFAULT_MAX_ERROR, Goal, SolverName
from tdc_deploy.request import StrPath
from tdc_deploy.sidecar import sidecar_path
from tdc_deploy.source import Source

if TYPE_CHECKING:
    from tdc_deploy.report.reporter import Reporter


@dataclass(frozen=True)
class Wanted:
    """The goals as a user says them; the fields are those of `api.build`."""

    latency_budget: float | None
    speedup: float | None
    max_error: float | None
    solver: SolverName
    flops_budget: float | None
    theta: float
    max_accuracy_drop: float | None = None

    @property
    def planned(self) -> bool:
        """Whether there is a budget to plan for."""
        budgets = (self.latency_budget, self.speedup, self.flops_budget)
        return any(budget is not None for budget in budgets)

    def goal(self, known: bool) -> Goal:
        """The goal, once it is `known` that there are real inputs or no need of them.

        Raises:
            TdcError: values that do not exist or fit each other, or no limit of the error.
        """
        max_error = self.max_error
        if max_error is None:
            if not known:
                raise TdcError(
                    "neither inputs nor an error limit",
                    expected="--inputs with real samples, which the result is verified on",
                    fix="give --inputs, or set --max-error for an UNVERIFIED result on random inputs",
                )
            max_error = DEFAULT_MAX_ERROR
        return Goal(
            *(self._budget(), max_error, self.solver, self.flops_budget, self.theta),
            self.max_accuracy_drop,
        )

    def _budget(self) -> float | None:
        if self.speedup is None:
            return self.latency_budget
        if self.latency_budget is not None:
            raise TdcError("both latency_budget and speedup", expected="one of them")
        if not self.speedup >= 1:
            raise TdcError(f"speedup is {self.speedup}", expected="a factor of at least 1")
        return 1 / self.speedup


def check_build(
    model: Path,
    output: Path,
    plan: Plan | StrPath | None,
    planned: bool,
    terms: Terms,
    read: Sequence[StrPath | None],
    page: Path | None,
) -> Plan | None:
    """The plan, once the files and values are found to fit each other; nothing long is done."""
    if plan is not None and planned:
        raise TdcError(
            "both a plan and a budget", expected="one of them: a plan is applied as it is"
        )
    path = plan if isinstance(plan, (str, PathLike)) else None
    given = read_plan(Path(path)) if path is not None else plan
    if terms.fail_above is not None and not terms.fail_above >= 0:
        raise TdcError(f"fail_above is {terms.fail_above}", expected="a number of at least 0")
    check_output(output)
    check_files([output, sidecar_path(output), page], model, [path, *read])
    return given  # type: ignore[return-value]  # a path was read


def check_files(
    written: Sequence[Path | None], model: Path, read: Sequence[StrPath | None]
) -> None:
    """Raise TdcError if a file is to be written twice, or over one that is read."""
    outputs = [path for path in written if path is not None]
    twice = {path.resolve() for path in outputs}
    if len(twice) < len(outputs):
        raise TdcError(f"{outputs[-1]} is to be written twice", fix="choose another name for one")
    check_distinct(outputs, [*model_files(model), *(Path(p) for p in read if p is not None)])


def check_page(path: StrPath | None) -> Path | None:
    """Where the report goes, if one is asked for and can be made."""
    if path is None:
        return None
    from tdc_deploy.report.reporter import check_report

    check_report(Path(path))
    return Path(path)


def reporter_for(
    page: Path | None, source: Source, goal: Goal, options: Mapping[str, str]
) -> Reporter | None:
    """What makes the report, if one is asked for."""
    if page is None:
        return None
    from tdc_deploy.report.reporter import Reporter

    return Reporter(page, source, goal, options)
