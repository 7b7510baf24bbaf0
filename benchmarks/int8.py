"""FP32 and INT8, dense and decomposed, on ONNX Runtime: accuracy, error, time and size of each.

    python -m benchmarks.int8 folder                        # all networks; about 15 minutes on two cores
    python -m benchmarks.int8 folder --networks digits      # some of them

The trained networks of benchmarks/checkpoints and the demo's are planned for FP32 and for INT8, each by
its own measured times, within a relative error and at most a point of accuracy; accuracy and error are
those of images that were neither planned nor calibrated with. ResNet-18 at 224x224 has weights that were
drawn, for time alone: its ranks are planned in FP32 at half of the time, and INT8 takes the same. Every
ratio is against the dense FP32 network, from pairs of fresh sessions. A network whose row is written is
not run again, and what was measured of another stays in `folder`; nothing else may run meanwhile. Needs
torch.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from pathlib import Path
from typing import Any

import onnx
from tdc_calibration.int8_build import Int8Build

from benchmarks.int8_networks import NETWORKS, Network
from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.builder import Built, plan_and_build
from tdc_deploy.evaluate import Evaluator
from tdc_deploy.files import write_whole
from tdc_deploy.profiling.store import Store
from tdc_deploy.progress import silent
from tdc_deploy.samples import Samples, input_types, read_samples
from tdc_deploy.source import read_source
from tdc_deploy.verify import compare_outputs, run_all

RESULTS = Path(__file__).parent / "results" / "int8.json"

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="networks, samples and measurements")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    for name in chosen.networks.split(","):
        known = json.loads(chosen.out.read_text()) if chosen.out.exists() else {}
        if name not in known:
            known[name] = run_network(NETWORKS[name], chosen.folder)
            chosen.out.parent.mkdir(parents=True, exist_ok=True)
            write_whole({chosen.out: (json.dumps(known, indent=1) + "\n").encode()})
        print_table(name, known[name])


def run_network(network: Network, folder: Path) -> Row:
    """Build all forms of a network, and measure each."""
    model, samples, test = network.make(folder)
    source = read_source(model, None)
    types = input_types(source.network.graph)
    given = read_samples(samples, types, source.inputs)
    tested = None if test is None else read_samples(test, types, source.inputs)
    backend = OnnxRuntimeBackend(network.threads)
    with Store(folder / "store.sqlite3") as store:
        evaluator = Evaluator(source, given, backend, store)
        own = plan_and_build(evaluator, store, network.goal, silent)
        calibration = evaluator.repair_samples
        build = Int8Build(evaluator, calibration, backend, store, network.goal, None, silent)
        forms = [own, *build(own, own.plan if network.same_ranks else None, False)]
    rows = {form.form: described(form, source.path, backend, tested) for form in forms}
    rows["dense fp32"] = dense_row(own, source.path, backend, tested)
    return {
        "date": date.today().isoformat(),
        "backend": backend.describe(),
        "goal": {"error": network.goal.max_error, "points": network.goal.max_accuracy_drop},
        "test_images": 0 if tested is None else len(tested),
        "rows": rows,
    }


def described(
    form: Built, source: Path, backend: OnnxRuntimeBackend, tested: Samples | None
) -> Row:
    """One form's row."""
    ratio = form.ratio
    accuracy, error = tested_on(form.model, source, backend, tested)
    return {
        "accuracy": accuracy,
        "error": error,
        "ms": ratio.after.median,
        "ratio": [ratio.value, ratio.lower, ratio.upper],
        "bytes": len(form.model.SerializeToString()),
        "within_limits": form.within_limit,
        "layers": {} if form.plan is None else {n: str(c) for n, c in form.plan.selection.items()},
        **form.details,
    }


def dense_row(own: Built, source: Path, backend: OnnxRuntimeBackend, tested: Samples | None) -> Row:
    """The row of the network that came in."""
    accuracy, _ = tested_on(onnx.load(str(source)), source, backend, tested)
    size = source.stat().st_size
    return {
        "accuracy": accuracy,
        "error": 0.0,
        "ms": own.ratio.before.median,
        "ratio": [1.0, 1.0, 1.0],
        "bytes": size,
    }


def tested_on(
    model: onnx.ModelProto, source: Path, backend: OnnxRuntimeBackend, tested: Samples | None
) -> tuple[float | None, float | None]:
    """Accuracy and relative error on the test images."""
    if tested is None:
        return None, None
    with backend.runner(source) as before, backend.runner(model) as after:
        comparison = compare_outputs(run_all(before, tested), run_all(after, tested), tested)
    return comparison.accuracy_after, comparison.error


def print_table(name: str, found: Row) -> None:
    print(f"\n{name} ({found['test_images']} test images)")
    print(
        "| form | accuracy | error | ms | ratio (95%) | kB | in float32 |\n|---|---|---|---|---|---|---|"
    )
    for form in ("dense fp32", "tucker fp32", "dense int8", "tucker int8"):
        row = found["rows"].get(form)
        if row is None:
            print(f"| {form} | none within the limits | | | | | |")
            continue
        value, lower, upper = row["ratio"]
        accuracy = "" if row["accuracy"] is None else f"{100 * row['accuracy']:.2f}%"
        error = "" if row["error"] is None else f"{row['error']:.3f}"
        kept = len(row.get("float_layers", ()))
        interval = f"{value:.3f} ({lower:.3f} to {upper:.3f})"
        kilobytes = round(row["bytes"] / 1000)
        print(
            f"| {form} | {accuracy} | {error} | {row['ms']:.3f} | {interval} | {kilobytes} | {kept} |"
        )


if __name__ == "__main__":
    main()
