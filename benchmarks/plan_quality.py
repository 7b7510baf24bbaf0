"""How good plans are: against TDC's rank table, and solver against solver at equal measured time.

    python -m benchmarks.plan_quality FOLDER --networks resnet18 unet --threads 1

1. On a ResNet-18: TDC's rank table as a plan, and ours for its error and for its time, the built networks
   timed against each other.
2. Per network: the integer program (`milp`), the paper's rule (`tdc`), the same share of channels in every
   layer (`uniform`), and the ranks that lose a share of the kernel's energy (`energy`), each brought to the
   time that the first takes; where a rule finds nothing near that time, the first is brought to the time
   that it found. And the integer program on errors of outputs on other images, with kernels decomposed for
   them (`milp-data`). All are repaired by the same images, refined and verified alike. The drawn networks
   give the error of their outputs; the trained ones, which only images of their test part verify, also the
   accuracy.

Every row is written to FOLDER as soon as it is measured, and one that is there is not measured again; the
rows are joined in --out. Needs torch.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tdc_calibration.calibration import calibrate

from benchmarks.baselines import TOLERANCE, at_ratio, energy, uniform
from benchmarks.networks.registry import NETWORKS
from benchmarks.networks.subjects import BATCH, TRAINED, Subject, subject
from benchmarks.plans import ANY_ERROR, conv_macs, tdc_selection
from benchmarks.rows import Row, Rows, conditions
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.compress import Selection
from tdc_deploy.errors import TdcError
from tdc_deploy.evaluate import Evaluator
from tdc_deploy.planner import Goal, SolverName, make_plan
from tdc_deploy.profiling.measure import FINAL, compare_fresh
from tdc_deploy.profiling.store import Store
from tdc_deploy.progress import silent
from tdc_deploy.samples import input_types, read_samples
from tdc_deploy.source import read_source
from tdc_deploy.types import Ratio

RESULTS = Path(__file__).parent / "results" / "plan_quality.json"
DATA_AWARE = "milp-data"
SOLVERS = ("milp", "tdc", "uniform", "energy", DATA_AWARE)
TABLE_NETWORK = "resnet18"
TABLE_KINDS = ("table", "same-error", "same-time")

Opened = tuple[Evaluator, Store]


def main() -> None:
    args = parse(sys.argv[1:])
    rows = Rows(args.folder / "rows", conditions(args.threads))
    try:
        for name in args.networks:
            _measure(args.folder, name, args.threads, rows)
            rows.join(all_keys(), args.out)
    except TdcError as error:
        sys.exit(f"error: {error}")


def parse(words: list[str]) -> argparse.Namespace:
    every = [*TRAINED, *NETWORKS]
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--networks", nargs="+", choices=every, default=every)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(words)


def all_keys() -> list[str]:
    """The keys of all rows that there can be, in the order of the tables."""
    return [
        *(f"{TABLE_NETWORK}/{kind}" for kind in TABLE_KINDS),
        *(f"{name}/{solver}" for name in (*NETWORKS, *TRAINED) for solver in SOLVERS),
    ]


def _measure(folder: Path, name: str, threads: int, rows: Rows) -> None:
    measures: dict[str, Callable[[Subject, Opened, Rows], Row]] = {
        solver: partial(_solver_row, solver=solver) for solver in SOLVERS
    }
    if name == TABLE_NETWORK:
        measures |= {kind: partial(_table_row, kind=kind) for kind in TABLE_KINDS}
    for kind, measure in measures.items():
        if rows.get(f"{name}/{kind}") is not None:
            continue
        found = subject(folder / "models", name)
        # That of `onnxruntime_networks` too: run in its folder, this measures no layer again.
        store = folder / f"{name}_b{BATCH}.sqlite3"
        with opened(found, store, threads, data_aware=kind == DATA_AWARE) as evaluation:
            row = rows.keep(f"{name}/{kind}", measure(found, evaluation, rows))
        print(_shown(f"{name}/{kind}", row), flush=True)
        gc.collect()


@contextmanager
def opened(found: Subject, store: Path, threads: int, data_aware: bool = False) -> Iterator[Opened]:
    """What measures selections of a network, and the store that it uses."""
    source = read_source(found.model)
    samples = read_samples(found.inputs, input_types(source.network.graph), source.inputs)
    if data_aware:
        measured = calibrate(source, found.calibration, ranges=False, threads=threads)
        source = source.with_statistics(measured.statistics)
    with Store(store) as measurements:
        evaluator = Evaluator(source, samples, OnnxRuntimeBackend(threads), measurements)
        yield evaluator, measurements


def _solver_row(found: Subject, evaluation: Opened, rows: Rows, *, solver: str) -> Row:
    """A solver's selection at the time that the first solver's takes."""
    evaluator, store = evaluation
    target = found.budget
    if solver != SOLVERS[0]:
        first = rows.get(f"{found.name}/{SOLVERS[0]}")
        assert first is not None
        target = first["planned_ratio"]
    start = time.perf_counter()
    if solver in ("milp", "tdc", DATA_AWARE):
        rule: SolverName = "tdc" if solver == "tdc" else "milp"
        selection, row = _plan(evaluator, store, Goal(target, ANY_ERROR, rule))
    else:
        shares = {"uniform": uniform, "energy": energy}[solver]
        bisected = at_ratio(
            partial(shares, evaluator.source), lambda s: evaluator.trial(s).ratio, target
        )
        selection = bisected.selection
        # Where no share of channels or energy takes that time, the row is not of equal time.
        row = {
            "planned_ratio": bisected.ratio,
            "share": bisected.share,
            "reached": bisected.reached,
        }
    row = {"target_ratio": target, "planning_s": round(time.perf_counter() - start, 1), **row}
    row |= _verified(evaluator, selection)
    if solver != SOLVERS[0]:
        row |= _first_there(evaluator, store, row["planned_ratio"], target)
    return row


def _first_there(evaluator: Evaluator, store: Store, ratio: float, target: float) -> Row:
    """What the first solver finds for a time that another took, where that is not the target."""
    if abs(ratio - target) <= TOLERANCE * target or ratio > 1:
        return {}
    selection, row = _plan(evaluator, store, Goal(ratio, ANY_ERROR))
    return {f"{SOLVERS[0]}_at_that_time": {**row, **_verified(evaluator, selection)}}


def _plan(evaluator: Evaluator, store: Store, goal: Goal) -> tuple[Selection, Row]:
    plan = make_plan(evaluator, store, goal, silent)
    assert plan.network is not None
    row = {"planned_ratio": plan.network.ratio, "layer_measurements": plan.measurements}
    return plan.selection, row


def _verified(evaluator: Evaluator, selection: Selection) -> Row:
    """The built network against the dense one, as a build measures it."""
    model = evaluator.model(selection, refine=True)
    comparison, ratio = evaluator.compare(model, FINAL)
    return {
        **_ratio(ratio),
        "ms": ratio.after.median,
        "dense_ms": ratio.before.median,
        "error": comparison.error,
        "accuracy_before": comparison.accuracy_before,
        "accuracy_after": comparison.accuracy_after,
        "samples": comparison.samples,
        "macs": conv_macs(evaluator.source, selection),
        "dense_macs": conv_macs(evaluator.source, {}),
        "layers": {name: str(candidate) for name, candidate in selection.items()},
    }


def _ratio(ratio: Ratio) -> Row:
    return {"ratio": ratio.value, "ratio_interval": [ratio.lower, ratio.upper]}


def _table_row(found: Subject, evaluation: Opened, rows: Rows, *, kind: str) -> Row:
    """TDC's table; or a plan for its error or its time, the two networks timed against each other."""
    evaluator, store = evaluation
    source = evaluator.source
    table = tdc_selection(TABLE_NETWORK, source, found.module_paths())
    if kind == "table":
        return {**_verified(evaluator, table), "planned_ratio": evaluator.trial(table).ratio}
    theirs = rows.get(f"{TABLE_NETWORK}/table")
    assert theirs is not None
    goals = {
        "same-error": Goal(None, theirs["error"]),
        "same-time": Goal(theirs["planned_ratio"], ANY_ERROR),
    }
    selection, row = _plan(evaluator, store, goals[kind])
    before, after = (
        partial(evaluator.backend.runner, evaluator.model(chosen, refine=True))
        for chosen in (table, selection)
    )
    against = compare_fresh(before, after, evaluator.samples.first_batch(), FINAL)
    verified = _verified(evaluator, selection)
    return {
        **row,
        **verified,
        "against_table": _ratio(against),
        "error_against_table": verified["error"] / theirs["error"],
    }


def _shown(key: str, row: Row) -> str:
    lower, upper = row["ratio_interval"]
    words = [f"{key:28} ratio {row['ratio']:.3f} ({lower:.3f} to {upper:.3f})"]
    words.append(f"error {row['error']:.4f}")
    if row["accuracy_after"] is not None:
        words.append(f"accuracy {row['accuracy_before']:.2%} → {row['accuracy_after']:.2%}")
    if there := row.get(f"{SOLVERS[0]}_at_that_time"):
        words.append(f"{SOLVERS[0]} at that time: {there['ratio']:.3f}, error {there['error']:.4f}")
    if "against_table" in row:
        against = row["against_table"]
        lower, upper = against["ratio_interval"]
        words.append(f"against the table: time {against['ratio']:.3f} ({lower:.3f} to {upper:.3f})")
        words.append(f"error {row['error_against_table']:.3f}")
    return "  ".join(words)


if __name__ == "__main__":
    main()
