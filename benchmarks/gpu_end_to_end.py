"""ResNet-18 with TDC's ranks as TensorRT engines: dense, native chains and fused, each as a whole.

    python -m benchmarks.gpu_end_to_end prepare FOLDER                  # needs torch, no GPU
    python -m benchmarks.gpu_end_to_end measure FOLDER --precision fp16 # needs a GPU and TensorRT, no torch

`prepare` writes the network, a plan with the ranks that TDC's authors released, and images to verify on;
FOLDER may then go to the machine with the GPU. `measure` is one `tdc-deploy build`: it compares the three
engines with ONNX Runtime's output of the network that came in, and their times, and adds them to --out. A
precision a call, so that each ends within minutes; the timing cache in FOLDER makes the next one shorter.
Without a GPU it says what is missing, and measures nothing.

The weights are drawn with decaying spectra, not trained: the errors of the compressed forms are those of
such weights, and the dense engine's error is the precision's alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import tdc_deploy
from benchmarks.gpu.layers import RANK_FILE
from benchmarks.gpu.results import Results
from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.backends.tensorrt.requirements import what_is_missing
from tdc_deploy.errors import TdcError
from tdc_deploy.plan_file import LayerChoice, Plan, write_plan
from tdc_deploy.sidecar import read_sidecar
from tdc_deploy.types import Candidate, Ranks

DEFAULT_OUT = Path(__file__).parent / "results" / "gpu_end_to_end.json"
SAMPLES, SIZE = 16, 224
# TDC's ranks on weights that were not trained for them lose much; the error is reported, not held.
ANY_ERROR = 100.0


def main() -> None:
    args = parse(sys.argv[1:])
    try:
        if args.step == "prepare":
            prepare(args.folder, args.batch)
        elif missing := what_is_missing():
            print(f"not measured; missing: {'; '.join(missing)}")
        else:
            measure(args)
    except TdcError as error:
        sys.exit(f"error: {error}")


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    steps = parser.add_subparsers(dest="step", required=True)
    for step in ("prepare", "measure"):
        command = steps.add_parser(step)
        command.add_argument("folder", type=Path)
        command.add_argument("--batch", type=int, default=1)
    command.add_argument("--precision", choices=("fp32", "tf32", "fp16"), default="fp16")
    command.add_argument("--no-library-tactics", action="store_true")
    command.add_argument("--out", type=Path, default=DEFAULT_OUT)
    return parser.parse_args(words)


def prepare(folder: Path, batch: int) -> None:
    """Write model, plan and images; TensorRT 8.5's parser takes what torch's older exporter writes."""
    from benchmarks.models import export, image_like, resnet18

    folder.mkdir(parents=True, exist_ok=True)
    export(resnet18(SIZE), folder / "model.onnx", (batch, 3, SIZE, SIZE), "torchscript")
    write_plan(tdc_plan(), folder / "plan.json")
    np.savez(folder / "inputs.npz", image=image_like(SAMPLES * batch, 3, SIZE, 1))


def tdc_plan() -> Plan:
    """The ranks of the authors' table, for the convolutions as torch's exporter names them."""
    table = json.loads(RANK_FILE.read_text(encoding="utf-8"))["models"]["resnet18"]
    layers = {}
    for weight, (r_out, *r_in) in table.items():
        if r_in:  # else it is the rank of an SVD
            choice = Candidate("tucker2", Ranks(r_in[0], r_out))
            layers[node_name(weight)] = LayerChoice(choice)
    return Plan(layers=layers)


def node_name(weight: str) -> str:
    """`layer1.0.conv1.weight` belongs to node `/layer1/layer1.0/conv1/Conv`."""
    stage, block, convolution, _ = weight.split(".")
    return f"/{stage}/{stage}.{block}/{convolution}/Conv"


def measure(args: argparse.Namespace) -> None:
    """Build and compare the engines, and keep what the sidecar says of each form."""
    artifact = tdc_deploy.build(
        args.folder / "model.onnx",
        args.folder / f"{args.precision}.engine",
        plan=args.folder / "plan.json",
        inputs=args.folder / "inputs.npz",
        max_error=ANY_ERROR,
        engine=EngineOptions(
            args.precision,
            timing_cache=args.folder / "timing.cache",
            library_tactics=not args.no_library_tactics,
        ),
    )
    sidecar = read_sidecar(artifact.path) or {}
    results = Results(
        args.out, {**sidecar["backend"], "precision": "", "plugin": sidecar["plugin"]}
    )
    entry = entry_of(sidecar)
    results.add(f"resnet18/b{args.batch}/{args.precision}", entry)
    for form, found in entry["forms"].items():
        print(
            f"{form:8} {found['time_ms']:8.4f} ms  ratio {found['ratio']:.3f}  error {found['error']:.2e}"
        )
    print(f"shipped: {entry['shipped']}; results in {args.out}")


def entry_of(sidecar: dict[str, Any]) -> dict[str, Any]:
    """Times, ratios to the dense engine, and errors of every form, and which was shipped."""
    engine = sidecar["engine"]
    return {
        "forms": engine["forms"],
        "shipped": engine["form"],
        "precision_built": engine["precision_built"],
        "layers_by_type": engine["layers_by_type"],
    }


if __name__ == "__main__":
    main()
