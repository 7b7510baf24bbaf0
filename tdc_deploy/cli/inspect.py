"""`tdc-deploy inspect`: what is in a model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from tdc_deploy.cli import options
from tdc_deploy.cli.output import Output, ms, number


def inspect(
    model: options.ArtifactArgument,
    time: Annotated[
        bool, typer.Option("--time", help="Measure each layer alone (stored for plan and build).")
    ] = False,
    shapes: options.ShapesOption = None,
    threads: options.ThreadsOption = 0,
    store: options.StoreOption = None,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
) -> None:
    """List a model's convolutions and chains: shapes, ranks, FLOPs, time and error.

    Time and error come from the sidecar of a built artifact; --time measures instead. Of a TensorRT
    engine: its sidecar, and its layers where TensorRT can load it.
    """
    from tdc_deploy.inspection import inspect_model
    from tdc_deploy.runtime.session import ENGINE_SUFFIXES

    out = Output(as_json, quiet, verbose)
    if model.suffix in ENGINE_SUFFIXES:
        _inspect_engine(out, model)
        return
    with out.progress() as progress:
        found = inspect_model(
            model,
            shapes=options.parse_shapes(shapes),
            threads=threads,
            store=store,
            measure=time,
            progress=progress,
        )
    out.json(asdict(found))
    rows = [
        (
            row.name,
            row.kind,
            row.form,
            "x".join(map(str, row.in_shape)),
            "x".join(map(str, row.out_shape)),
            f"{row.flops / 1e6:.2f}",
            f"{row.params / 1e3:.1f}",
            ms(row.latency_ms),
            number(row.error),
            row.note,
        )
        for row in found.layers
    ]
    out.table(
        ("layer", "kind", "form", "input", "output", "MFLOPs", "kparams", "ms", "error", "note"),
        rows,
    )
    for name, dtype, shape in found.inputs:
        out.text(f"input {name}: {dtype} {shape}")
    for name, dtype, shape in found.outputs:
        out.text(f"output {name}: {dtype} {shape}")
    out.text(
        f"convolutions: {found.flops / 1e6:.1f} MFLOPs, {found.params / 1e3:.1f} thousand parameters; "
        f"opset {found.opset}; {found.chains} chains, {found.fused} of them fused"
    )
    if found.artifact:
        out.text(f"artifact: {found.artifact}")


def _inspect_engine(out: Output, path: Path) -> None:
    from tdc_deploy.engine_inspection import inspect_engine

    found = inspect_engine(path)
    out.json(found)
    keys = ("name", "kind", "inputs", "outputs", "tactic")
    if found["layers"] is not None:
        rows = [[layer[key] for key in keys] for layer in found["layers"]]
        out.table(("layer", "kind", "inputs", "outputs", "tactic"), rows)
    if found["sidecar"] is not None:
        _print_sidecar(out, found["sidecar"])
    if found["note"]:
        out.text(f"layers are not shown: {found['note']}")


def _print_sidecar(out: Output, sidecar: dict[str, Any]) -> None:
    layers = (sidecar["plan"] or {}).get("layers", {})
    rows = [
        (
            *(name, choice["form"], choice.get("r_in") or "-", choice.get("r_out") or "-"),
            *(choice["implementation"], choice["precision"]),
        )
        for name, choice in layers.items()
    ]
    if rows:
        out.table(("layer", "form", "r_in", "r_out", "chain", "precision"), rows)
    for entry in sidecar["inputs"]:
        least, best, largest = ("x".join(map(str, entry[end])) for end in ("min", "opt", "max"))
        out.text(
            f"input {entry['name']}: {entry['dtype']} {least} (min) {best} (opt) {largest} (max)"
        )
    for entry in sidecar["outputs"]:
        out.text(f"output {entry['name']}: {entry['dtype']} {'x'.join(map(str, entry['shape']))}")
    backend, engine, plugin = sidecar["backend"], sidecar["engine"], sidecar["plugin"]
    for form, entry in engine["forms"].items():
        out.text(f"{form}: {ms(entry['time_ms'])} ms, error {number(entry['error'])}")
    out.text(
        f"TensorRT {backend['version']} on {backend['device']}, "
        f"compute capability {backend['compute_capability']}; computes in "
        f"{engine['precision_built']}, {engine['precision_asked']} was asked for"
    )
    needed = "no plugin" if plugin is None else f"{plugin['name']} {plugin['sha256'][:12]}"
    out.text(f"artifact: {sidecar['decision']}, {sidecar['accuracy']}; needs {needed}")
