"""HALOC's ranks against uniform ones and those of `milp` and `tdc`, at equal measured time.

    python -m benchmarks.haloc folder --seeds 0,1,2 --jobs 2

All start from benchmarks/checkpoints/resnet20_dense.pt, on the generated set. Three plans are made for
the budget by measuring, and one for each seed by a search. Each is fine-tuned for the same epochs from
the dense weights, the searched ones (`haloc plan`) also from the search's own weights (`haloc`), and
`milp long` has the epochs of search and fine-tuning together, but not the search's pull to the dense
network's feature maps. Every (seed, arm) is a row in `folder`,
trained with one thread in a process of its own; a row that is there is not
run again, one that was stopped goes on. Plans and times are measured while nothing else runs. `--smoke`
is all of it in little, in a folder of its own in `folder`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.training import evaluate, write_json
from benchmarks.training_arms import BATCH, DATA

if TYPE_CHECKING:
    from tdc_deploy.evaluate import Evaluator

HERE = Path(__file__).parent
DENSE = HERE / "checkpoints" / "resnet20_dense.pt"
RESULTS = HERE / "results" / "haloc.json"

BUDGET = 0.72
SEARCH_EPOCHS, EPOCHS = 10, 12
THREADS = 1

# Uniform ranks are this share of the channels, in steps of 4: the largest that meets the budget.
RATIOS = np.linspace(0.9, 0.1, 33)
UNIFORM_STEP = 4

PLANNED = ("uniform", "milp", "tdc")
ARMS = (*PLANNED, "haloc plan", "haloc", "milp long")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.row:
        seed, arm = chosen.row.split(",")
        run_row(chosen.folder, int(seed), arm, chosen.smoke)
        return
    seeds, arms = [int(seed) for seed in chosen.seeds.split(",")], chosen.arms.split(",")
    if not set(arms) <= set(ARMS):
        parser.error(f"arms are {', '.join(ARMS)}")
    if chosen.smoke:
        # Its rows must not be taken for the others.
        chosen.folder /= "smoke"
    chosen.folder.mkdir(parents=True, exist_ok=True)
    make_plans(chosen.folder)
    if any(arm.startswith("haloc") for arm in arms):
        # One at a time: a search measures at its start and at its end.
        run_rows(chosen.folder, [(seed, "search") for seed in seeds], 1, chosen.smoke)
    run_rows(
        chosen.folder, [(seed, arm) for seed in seeds for arm in arms], chosen.jobs, chosen.smoke
    )
    found = summary(chosen.folder, seeds, arms)
    out = chosen.out or (chosen.folder / "haloc.json" if chosen.smoke else RESULTS)
    write_json(out, found)
    print_table(found)


def run_rows(folder: Path, rows: list[tuple[int, str]], jobs: int, smoke: bool) -> None:
    """Each row in a process of its own with one thread, `jobs` at a time."""

    def run(row: tuple[int, str]) -> None:
        if (row_folder(folder, *row) / "row.json").exists():
            return
        words = ["--row", f"{row[0]},{row[1]}", *(["--smoke"] if smoke else [])]
        command = [sys.executable, "-m", "benchmarks.haloc", str(folder), *words]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        print(f"seed {row[0]} {row[1]}: done", flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, rows))


def row_folder(folder: Path, seed: int, arm: str) -> Path:
    return folder / f"seed{seed}" / arm.replace(" ", "-")


def plan_file(folder: Path, seed: int, arm: str) -> Path:
    """The plan of an arm: all seeds share those that were planned."""
    if arm.startswith("haloc"):
        return row_folder(folder, seed, "search") / "search" / "search.plan.json"
    return folder / f"{arm.removesuffix(' long')}.json"


def run_row(folder: Path, seed: int, arm: str, smoke: bool) -> None:
    """Train one row, and evaluate the model after each of its stages on the test images."""
    from tdc_train.recipe_file import recipe_from
    from tdc_train.training.run import fit

    data = row_recipe(folder, seed, arm, smoke)
    recipe = recipe_from(data, f"arm {arm}")
    here = row_folder(folder, seed, arm)
    result = fit(recipe, here, resume=(here / "last.pt").exists(), device="cpu", threads=1)
    found = {stage.name: evaluate(here / "stages" / f"{stage.name}.pt") for stage in recipe.stages}
    write_json(here / "row.json", {"log": result.rows, "stages": found})


def row_recipe(folder: Path, seed: int, arm: str, smoke: bool) -> dict[str, Any]:
    """What a row trains."""
    weights = DENSE
    if arm == "search":
        stages = [search_stage(smoke)]
    else:
        layers = json.loads(plan_file(folder, seed, arm).read_text())["layers"]
        epochs = EPOCHS + (SEARCH_EPOCHS if arm == "milp long" else 0)
        decompose = {"kind": "decompose", "ranks": {"layers": layers}}
        stages = [decompose, training("finetune", 1 if smoke else epochs)]
        if arm == "haloc":
            weights = row_folder(folder, seed, "search") / "stages" / "search.pt"
    images = {"train": 256, "val": 128, "test": 256} if smoke else DATA["options"]
    return {
        "seed": seed,
        "model": {"name": "resnet20", "weights": str(weights.resolve())},
        "data": {**DATA, "options": images},
        "stages": stages,
    }


def search_stage(smoke: bool) -> dict[str, Any]:
    search = {"budget": BUDGET, "every": 2, "threads": THREADS}
    pull = {"name": "feature", "teacher": str(DENSE.resolve()), "weight": 0.5}
    stage = training("search", 2 if smoke else SEARCH_EPOCHS)
    return {**stage, "search": search, "distill": pull}


def training(kind: str, epochs: int) -> dict[str, Any]:
    return {
        "kind": kind,
        "epochs": epochs,
        "batch": BATCH,
        "amp": True,
        "optimizer": {"name": "sgd", "lr": 0.02, "nesterov": True, "weight_decay": 5e-4},
        "schedule": {"name": "cosine"},
    }


def make_plans(folder: Path) -> None:
    """The plans that are made by measuring alone."""
    from tdc_train.training.assess import write_onnx

    import tdc_deploy

    dense, samples = folder / "dense.onnx", folder / "samples.npz"
    if not samples.exists():
        write_onnx(DENSE, dense, inputs=samples)
    for arm in PLANNED:
        path = plan_file(folder, 0, arm)
        if path.exists():
            continue
        if arm == "uniform":
            uniform_plan(folder, path)
        else:
            tdc_deploy.plan(
                dense,
                inputs=samples,
                latency_budget=BUDGET,
                max_error=100.0,
                solver=arm,  # type: ignore[arg-type]
                threads=THREADS,
                output=path,
            )
        print(f"{arm}: planned", flush=True)


@contextmanager
def opened(folder: Path) -> Iterator[Evaluator]:
    """The dense network, on the backend that counts."""
    from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
    from tdc_deploy.evaluate import Evaluator
    from tdc_deploy.profiling.store import Store
    from tdc_deploy.samples import input_types, read_samples
    from tdc_deploy.source import read_source

    source = read_source(folder / "dense.onnx", None)
    types = input_types(source.network.graph)
    inputs = read_samples(folder / "samples.npz", types, source.inputs)
    with Store() as store:
        yield Evaluator(source, inputs, OnnxRuntimeBackend(THREADS), store)


def uniform_plan(folder: Path, path: Path) -> None:
    """The largest share of all channels, as ranks of every 3x3 layer, whose network meets the budget."""
    from tdc_deploy.plan_file import LayerChoice, Plan, write_plan
    from tdc_deploy.types import Candidate, Ranks

    with opened(folder) as evaluator:
        for ratio in RATIOS:
            ranks = {
                name: [max(1, round(c * ratio / UNIFORM_STEP)) * UNIFORM_STEP for c in channels]
                for name, layer in evaluator.source.plannable.items()
                if min(channels := (layer.c_in, layer.c_out)) > UNIFORM_STEP
            }
            chosen = {n: Candidate("tucker2", Ranks(*r), "fused") for n, r in ranks.items()}
            if evaluator.trial(chosen).ratio <= BUDGET:
                plan = Plan({n: LayerChoice(c) for n, c in chosen.items()}, solver="uniform")
                write_plan(plan, path)
                return
    raise SystemExit(f"no uniform ranks meet a budget of {BUDGET}")


def measure(folder: Path, seed: int, arm: str) -> dict[str, Any]:
    """A plan's network against the dense one: interleaved, batch 1, whether or not it would ship."""
    from tdc_deploy.plan_file import read_plan
    from tdc_deploy.profiling.measure import FINAL

    plan = plan_file(folder, seed, arm)
    path = plan.with_suffix(".time.json")
    if not path.exists():
        with opened(folder) as evaluator:
            model = evaluator.model(read_plan(plan).selection)
            _, found = evaluator.compare(model, FINAL)
            backend = evaluator.backend.describe()
        ratio = [found.value, found.lower, found.upper]
        write_json(path, {"ratio": ratio, "backend": backend})
    return dict(json.loads(path.read_text()))


def summary(folder: Path, seeds: list[int], arms: list[str]) -> dict[str, Any]:
    """All figures: accuracies by seed, measured times, plans, and how the searches went.

    Of an arm that only some of the seeds have, those.
    """
    found: dict[str, Any] = {"seeds": seeds, "budget": BUDGET, "arms": {}}
    for arm in arms:
        there = [s for s in seeds if (row_folder(folder, s, arm) / "row.json").exists()]
        rows = [json.loads((row_folder(folder, s, arm) / "row.json").read_text()) for s in there]
        last = [list(row["stages"].values())[-1] for row in rows]
        first = [next(iter(row["stages"].values())) for row in rows]
        found["arms"][arm] = {
            "seeds": there,
            "accuracy": [stage["accuracy"] for stage in last],
            "after_decomposing": [stage["accuracy"] for stage in first],
            "macs": [stage["macs"] for stage in last],
            "time": [measure(folder, seed, arm) for seed in there],
            "plans": [json.loads(plan_file(folder, s, arm).read_text())["layers"] for s in there],
            "seconds": [sum(e.get("seconds", 0) for e in row["log"]) for row in rows],
        }
    if any(arm.startswith("haloc") for arm in arms):
        logs = [
            json.loads((row_folder(folder, s, "search") / "row.json").read_text()) for s in seeds
        ]
        found["search"] = [row["log"] for row in logs]
    return found


def print_table(found: dict[str, Any]) -> None:
    print(f"\nseeds {found['seeds']}, budget {found['budget']}")
    for arm, figures in found["arms"].items():
        accuracy = 100 * np.array(figures["accuracy"])
        ratios = [time["ratio"][0] for time in figures["time"]]
        by_seed = ", ".join(f"{value:.2f}" for value in accuracy)
        print(
            f"{arm:12} {accuracy.mean():.2f}% ({by_seed})  after decomposing "
            f"{100 * np.mean(figures['after_decomposing']):.2f}%  time {np.mean(ratios):.3f}  "
            f"{np.mean(figures['macs']) / 1e6:.1f} M MACs"
        )


if __name__ == "__main__":
    main()
