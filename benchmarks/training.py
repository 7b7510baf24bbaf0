"""Compress trained networks in several ways, at equal epochs, on the generated set.

    python -m benchmarks.training folder --networks resnet20 --seeds 0,1,2 --jobs 2

Every (network, seed, arm) is a row in `folder`, trained with one thread in a process of its own; a row
that is there is not run again, one that was stopped goes on. Ranks are planned by measured time, and
times are measured, while nothing else runs. Writes the results as JSON and prints the table. Two
networks and three seeds take about an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.training_arms import ARMS, BASE, NETWORKS, arm_recipe, base_recipe
from benchmarks.training_table import print_table, summary

# One image of 32x32 is too little work for two: ResNet-20 is slower with them.
THREADS = 1

RESULTS = Path(__file__).parent / "results" / "training.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.row:
        network, seed, arm = chosen.row.split(",")
        run_row(chosen.folder, network, int(seed), arm)
        return
    seeds, arms = [int(seed) for seed in chosen.seeds.split(",")], chosen.arms.split(",")
    if seeds[0] != 0 or not {"dense", "finetune"} <= set(arms) <= set(ARMS):
        parser.error(
            "the first seed is 0 (its network is planned), and the arms hold dense and finetune"
        )
    done = {}
    for network in chosen.networks.split(","):
        rows = [(network, seed, BASE + "-base") for seed in seeds]
        run_rows(chosen.folder, rows, chosen.jobs)
        make_plan(chosen.folder / network, network)
        rows = [(network, seed, arm) for seed in seeds for arm in arms]
        run_rows(chosen.folder, rows, chosen.jobs)
        times = {seed: measure(chosen.folder / network, seed) for seed in seeds}
        done[network] = summary(chosen.folder / network, seeds, arms, times)
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        known = json.loads(chosen.out.read_text()) if chosen.out.exists() else {}
        write_json(chosen.out, {**known, **done})
        print_table(network, done[network])


def run_rows(folder: Path, rows: list[tuple[str, int, str]], jobs: int) -> None:
    """Each row in a process of its own with one thread, `jobs` at a time."""

    def run(row: tuple[str, int, str]) -> None:
        network, seed, arm = row
        if (row_folder(folder / network, seed, arm) / "row.json").exists():
            return
        command = [sys.executable, "-m", "benchmarks.training", str(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*command, "--row", f"{network},{seed},{arm}"], check=True, env=environment)
        print(f"{network} seed {seed} {arm}: done", flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, rows))


def row_folder(folder: Path, seed: int, arm: str) -> Path:
    return folder / f"seed{seed}" / arm


def base_file(folder: Path, seed: int) -> Path:
    """The trained dense network that all arms of a seed start from."""
    return row_folder(folder, seed, BASE + "-base") / "stages" / f"{BASE}.pt"


def run_row(folder: Path, network: str, seed: int, arm: str) -> None:
    """Train one row, and evaluate the model after each of its stages on the test images."""
    from tdc_train.recipe_file import recipe_from
    from tdc_train.training.run import fit

    described = NETWORKS[network]
    if arm == BASE + "-base":
        data = base_recipe(described, seed)
    else:
        plan = json.loads((folder / network / "plan.json").read_text())
        weights = str(base_file(folder / network, seed).resolve())
        data = arm_recipe(described, arm, seed, weights, plan["layers"])
    recipe = recipe_from(data, f"arm {arm}")
    here = row_folder(folder / network, seed, arm)
    result = fit(recipe, here, resume=(here / "last.pt").exists(), device="cpu", threads=1)
    found = {stage.name: evaluate(here / "stages" / f"{stage.name}.pt") for stage in recipe.stages}
    row = {"recipe": data, "log": result.rows, "stages": found}
    write_json(here / "row.json", row)


def evaluate(checkpoint: Path) -> dict[str, Any]:
    """Accuracy, multiply-adds and parameters; which images were right goes beside the checkpoint."""
    import numpy as np
    import torch
    from tdc_train.data.registry import make_data
    from tdc_train.recipe_file import recipe_from
    from tdc_train.training.checkpoint import read_checkpoint
    from tdc_train.training.evaluate import macs, parameters
    from tdc_train.training.rebuild import rebuilt

    read = read_checkpoint(checkpoint)
    recipe = recipe_from(read.recipe, "the checkpoint")
    data = make_data(recipe.data.name, recipe.data.root, recipe.data.options)
    model = rebuilt(read).eval()
    right = []
    with torch.inference_mode():
        for indices in torch.arange(len(data.test)).split(250):
            images, labels = data.test.batch(indices)
            right.append((model(images).argmax(1) == labels).numpy())
    answers = np.concatenate(right)
    np.save(checkpoint.with_suffix(".right.npy"), np.packbits(answers))
    return {
        "accuracy": float(answers.mean()),
        "images": len(answers),
        "macs": macs(model, data.shape),
        "parameters": parameters(model),
    }


def make_plan(folder: Path, network: str) -> None:
    """Plan the first seed's dense network by measured time; all seeds take these ranks."""
    from tdc_train.training.assess import write_onnx

    import tdc_deploy
    from tdc_deploy.plan_file import plan_to_json

    path = folder / "plan.json"
    if path.exists():
        return
    dense, samples = folder / "dense.onnx", folder / "samples.npz"
    write_onnx(base_file(folder, 0), dense, inputs=samples)
    described = NETWORKS[network]
    for budget in described.budgets:
        plan = tdc_deploy.plan(
            dense, inputs=samples, latency_budget=budget, max_error=100.0, threads=THREADS
        )
        share = macs_share(plan, dense)
        print(f"{network}: budget {budget}: {share:.3f} of the multiply-adds", flush=True)
        if share <= described.max_macs:
            break
    write_json(path, {**plan_to_json(plan), "budget": budget})


def write_json(path: Path, data: Any) -> None:
    from tdc_deploy.files import write_whole

    write_whole({path: (json.dumps(data, indent=1) + "\n").encode()})


def macs_share(plan: Any, dense: Path) -> float:
    """The plan's multiply-adds in convolutions as a share of the dense network's."""
    from tdc_deploy.source import read_source
    from tdc_deploy.tucker import chain_cost, dense_cost

    source = read_source(dense, None)
    layers = {name: conv.layer for name, conv in source.convs.items() if conv.layer is not None}
    before = sum(dense_cost(layer).macs for layer in layers.values())
    chosen = plan.selection
    after = sum(
        (chain_cost(layer, chosen[name]) if name in chosen else dense_cost(layer)).macs
        for name, layer in layers.items()
    )
    return after / before


def measure(folder: Path, seed: int) -> dict[str, Any]:
    """Time of the fine-tuned network, built, against the dense one: interleaved, batch 1."""
    from tdc_train.training.assess import write_onnx

    import tdc_deploy
    from tdc_deploy.benchmark import bench_models
    from tdc_deploy.progress import silent

    here = row_folder(folder, seed, "finetune")
    path = here / "time.json"
    if not path.exists():
        dense, chains, fused = (here / f"{name}.onnx" for name in ("dense", "chains", "fused"))
        write_onnx(base_file(folder, seed), dense)
        write_onnx(here / "stages" / "finetune.pt", chains)
        samples = folder / "samples.npz"
        artifact = tdc_deploy.build(chains, fused, inputs=samples, threads=THREADS)
        found = bench_models(dense, fused, threads=THREADS, progress=silent)
        assert found.ratio is not None
        times = {
            "dense_ms": found.ratio.before.median,
            "ms": found.ratio.after.median,
            "ratio": [found.ratio.value, found.ratio.lower, found.ratio.upper],
            "decision": artifact.decision,
            "backend": dict(found.backend),
        }
        write_json(path, times)
    times = json.loads(path.read_text())
    return dict(times)


if __name__ == "__main__":
    main()
