"""Bring trained networks to each constraint set by ADMM, and fine-tune inside it, on the generated set.

    python -m benchmarks.constraint_sets folder --seeds 0,1,2 --jobs 2

Every (network, seed, row) is a folder in `folder`, trained with one thread in a process of its own; a row
that is there is not run again, one that was stopped goes on. All start from the dense networks in
`benchmarks/checkpoints`, which the seeds share; the row `dense` trains on for as many epochs as the longest
of the others. All is float32: bfloat16 halves the time on processors with AMX, but takes ten times as long
on those without AVX-512. Joins the results, beside each method's headline, to those of other seeds in the
JSON, and prints them. A trial has a folder of its own in `folder`, and its results stay there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.constraint_rows import DENSE, NETWORKS, ROWS, recipe_of
from benchmarks.constraint_table import figures_of, folder_name, joined, print_rows
from benchmarks.training import write_json
from benchmarks.training_arms import DATA

if TYPE_CHECKING:
    from tdc_train.data.base import Data
    from tdc_train.recipe import Recipe

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "constraint_sets.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--epochs", type=int, help="Of each training stage; for a trial.")
    parser.add_argument("--images", type=int, help="Training images; for a trial.")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.row:
        run_row(chosen)
        return
    names = list(dict.fromkeys([DENSE, *chosen.rows.split(",")]))
    if unknown := sorted(set(names) - set(ROWS)):
        parser.error(f"no row {unknown[0]}; there are {', '.join(ROWS)}")
    chosen.folder, out = places(chosen.folder, chosen.epochs, chosen.images)
    chosen.out = chosen.out or out
    seeds = [int(seed) for seed in chosen.seeds.split(",")]
    rows = [
        (net, seed, row) for net in chosen.networks.split(",") for seed in seeds for row in names
    ]
    run_rows(chosen, rows)
    known = json.loads(chosen.out.read_text()) if chosen.out.exists() else {}
    for network in chosen.networks.split(","):
        folders = {seed: seed_folder(chosen.folder, network, seed) for seed in seeds}
        known[network] = joined(known.get(network, {}), figures_of(folders, names))
        print_rows(network, known[network])
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(chosen.out, known)


def places(folder: Path, epochs: int | None, images: int | None) -> tuple[Path, Path]:
    """Where rows are, and their results: a trial's must not be taken for the others'."""
    if not (epochs or images):
        return folder, RESULTS
    trial = folder / f"trial_{epochs or 'all'}_epochs_{images or 'all'}_images"
    return trial, trial / RESULTS.name


def run_rows(chosen: argparse.Namespace, rows: list[tuple[str, int, str]]) -> None:
    """Each row in a process of its own with one thread, `jobs` at a time."""
    command = [sys.executable, "-m", "benchmarks.constraint_sets", str(chosen.folder)]
    for name in ("epochs", "images"):
        if getattr(chosen, name):
            command += [f"--{name}", str(getattr(chosen, name))]

    def run(row: tuple[str, int, str]) -> None:
        here = row_folder(chosen.folder, *row)
        if (here / "row.json").exists():
            check_stages(here, recipe_for(chosen, *row))
            return
        network, seed, name = row
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        words = [*command, "--row", f"{network},{seed},{name}"]
        subprocess.run(words, check=True, env=environment)
        print(f"{network} seed {seed} {name}: done", flush=True)

    with ThreadPoolExecutor(chosen.jobs) as pool:
        list(pool.map(run, rows))


def seed_folder(folder: Path, network: str, seed: int) -> Path:
    return folder / network / f"seed{seed}"


def row_folder(folder: Path, network: str, seed: int, row: str) -> Path:
    return seed_folder(folder, network, seed) / folder_name(row)


def recipe_for(chosen: argparse.Namespace, network: str, seed: int, row: str) -> Recipe:
    """What trains a row."""
    from tdc_train.recipe_file import recipe_from

    described = NETWORKS[network]
    weights = str(HERE / "checkpoints" / described.checkpoint)
    data: dict[str, Any] = dict(DATA)
    if chosen.images:
        data["options"] = {**data["options"], "train": chosen.images}
    table = recipe_of(described, ROWS[row], seed, weights, data, chosen.epochs)
    return recipe_from(table, f"row {row}")


def check_stages(folder: Path, recipe: Recipe) -> None:
    """Exit if a row that is done was trained by other stages than it would be now."""
    from tdc_train.recipe_file import recipe_to

    done = json.loads((folder / "recipe.json").read_text())["stages"]
    if done != json.loads(json.dumps(recipe_to(recipe)["stages"])):
        sys.exit(f"{folder} was trained by another recipe: move it away, and the row is run again")


def run_row(chosen: argparse.Namespace) -> None:
    """Train one row, and evaluate what its last stages left on the test images."""
    from tdc_train.data.registry import make_data
    from tdc_train.training.run import fit

    network, seed, row = chosen.row.split(",")
    recipe = recipe_for(chosen, network, int(seed), row)
    here = row_folder(chosen.folder, network, int(seed), row)
    result = fit(recipe, here, resume=(here / "last.pt").exists(), device="cpu", threads=1)
    read = make_data(recipe.data.name, recipe.data.root, recipe.data.options)
    # What was projected last, and the end: ten thousand images take as long as an epoch.
    names = [stage.name for stage in recipe.stages[-2:]]
    stages = {name: evaluate(here / "stages" / f"{name}.pt", read) for name in names}
    found = {"log": result.rows, "stages": stages, "cpu_seconds": time.process_time()}
    write_json(here / "row.json", found)


def evaluate(checkpoint: Path, data: Data) -> dict[str, Any]:
    """Accuracy on the test images, multiply-adds with nonzero numbers, and the compressed size."""
    from tdc_train.constraints import Constraints, constrained_macs, sizes
    from tdc_train.training.checkpoint import read_checkpoint
    from tdc_train.training.evaluate import layer_macs, score
    from tdc_train.training.rebuild import rebuilt

    read = read_checkpoint(checkpoint)
    model = rebuilt(read)
    found = sizes(model, Constraints.from_json(read.constraints).held)
    return {
        "accuracy": score(model, data.test).accuracy,
        "macs": constrained_macs(layer_macs(model, data.shape), found),
        "compression": found["compression"],
        "layers": found["layers"],
    }


if __name__ == "__main__":
    main()
