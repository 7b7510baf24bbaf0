"""List what a model is made of: convolutions and chains, with their costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto

from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.errors import TdcError
from tdc_deploy.graph.chains import Chain, find_chains
from tdc_deploy.graph.network import fused_nodes, network_of
from tdc_deploy.graph.read import load_checked
from tdc_deploy.graph.shapes import Shape
from tdc_deploy.graph.understand import understanding
from tdc_deploy.profiling.layers import LayerProfiler
from tdc_deploy.profiling.store import Store
from tdc_deploy.progress import Progress
from tdc_deploy.sidecar import read_sidecar
from tdc_deploy.source import Source, read_source
from tdc_deploy.tucker import chain_cost
from tdc_deploy.types import DENSE, Candidate, ConvLayer


@dataclass(frozen=True)
class LayerInfo:
    """One convolution, or one chain that computes a convolution.

    Shapes are [N, C, H, W]; error is the share of kernel energy lost; None where it is not known.
    """

    name: str
    kind: str
    form: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    flops: int
    params: int
    latency_ms: float | None
    error: float | None
    note: str


@dataclass(frozen=True)
class Inspection:
    """A model's layers in graph order and its totals over them."""

    layers: tuple[LayerInfo, ...]
    inputs: tuple[tuple[str, str, str], ...]
    outputs: tuple[tuple[str, str, str], ...]
    flops: int
    params: int
    opset: int
    chains: int
    fused: int
    artifact: str


@dataclass(frozen=True)
class Entry:
    """A convolution, or a chain that computes one; `note` says why it must stay so, if it must."""

    layer: ConvLayer
    form: Candidate
    kind: str
    note: str = ""


def inspect_model(
    path: Path,
    *,
    shapes: Mapping[str, Shape] | None = None,
    threads: int = 0,
    store: Path | None = None,
    measure: bool = False,
    progress: Progress,
) -> Inspection:
    """Inspect an ONNX file; with `measure`, time each of its layers alone.

    Raises:
        TdcError: the file is no valid ONNX model, or the shapes do not fit it.
    """
    fused = fused_names(path)
    source = read_source(path, shapes)
    sidecar, note = _sidecar(path)
    entries = layer_entries(source, fused)
    times = _times(entries, threads, store, progress) if measure else {}
    layers = [_info(entry, times.get(entry.layer.name), sidecar) for entry in entries]
    layers += [
        _unknown(name, conv.reason) for name, conv in source.convs.items() if conv.layer is None
    ]
    graph = source.network.graph
    return Inspection(
        layers=tuple(layers),
        inputs=tuple(_tensor(t) for t in graph.inputs),
        outputs=tuple(_tensor(t) for t in graph.outputs),
        flops=sum(layer.flops for layer in layers),
        params=sum(layer.params for layer in layers),
        opset=source.network.opset,
        chains=sum(entry.kind != "conv" for entry in entries),
        fused=len(fused),
        artifact=note if sidecar is None else f"{sidecar['decision']}, {sidecar['accuracy']}",
    )


def _sidecar(path: Path) -> tuple[dict[str, Any] | None, str]:
    """The file's sidecar; or none, and a note if there is one that is another's."""
    try:
        return read_sidecar(path), ""
    except TdcError as error:
        return None, f"its sidecar is not used: {error.received}"


def fused_names(path: Path) -> set[str]:
    """Names of the fused operators, which reading for planning takes apart."""
    model = load_checked(path)
    with understanding(path):
        graph = network_of(model).graph
    return {node.name for node in fused_nodes(graph)}


def layer_entries(source: Source, fused: set[str]) -> list[Entry]:
    """The source's convolutions of known shape and its chains, in graph order."""
    chains = [
        chain
        for chain in find_chains(source.network, source.shapes)
        if source.convs[chain.core.name].layer is not None
    ]
    by_first = {chain.first.name: chain for chain in chains}
    inside = {node.name for chain in chains for node in chain.nodes.values()}
    entries = []
    for name, conv in source.convs.items():
        if name in by_first:
            chain = by_first[name]
            is_fused = chain.last.name in fused
            entries.append(_chain_entry(source, chain, "fused chain" if is_fused else "chain"))
        elif name not in inside and conv.layer is not None:
            note = f"stays dense: {conv.reason}" if conv.reason else ""
            entries.append(Entry(conv.layer, DENSE, "conv", note))
    return entries


def _chain_entry(source: Source, chain: Chain, kind: str) -> Entry:
    core = source.convs[chain.core.name].layer
    assert core is not None, "a chain's core is a stored convolution"
    c, m = chain.channels
    name = chain.core.name.removesuffix("/core")
    form = Candidate("tucker2", chain.ranks, "fused" if kind == "fused chain" else "native")
    return Entry(replace(core, name=name, c_in=c, c_out=m), form, kind)


def _times(
    entries: list[Entry], threads: int, store: Path | None, progress: Progress
) -> dict[str, float]:
    times = {}
    with Store(store) as measurements:
        profiler = LayerProfiler(OnnxRuntimeBackend(threads), measurements)
        for done, entry in enumerate(entry for entry in entries if not entry.note):
            progress("measuring layers", done, len(entries))
            times[entry.layer.name] = profiler.latency(entry.layer, entry.form)
    return times


def _info(entry: Entry, measured: float | None, sidecar: dict[str, Any] | None) -> LayerInfo:
    layer, cost = entry.layer, chain_cost(entry.layer, entry.form)
    planned = _planned(layer.name, sidecar)
    kh, kw = layer.kernel
    form = f"{kh}x{kw}" + ("" if entry.form == DENSE else f" {entry.form}")
    return LayerInfo(
        name=layer.name,
        kind=entry.kind,
        form=form,
        in_shape=(layer.batch, layer.c_in, *layer.in_hw),
        out_shape=(layer.batch, layer.c_out, *layer.out_hw),
        flops=cost.flops,
        params=cost.params,
        latency_ms=planned.get("latency_ms") if measured is None else measured,
        error=planned.get("error"),
        note=entry.note,
    )


def _planned(name: str, sidecar: dict[str, Any] | None) -> dict[str, Any]:
    plan = (sidecar or {}).get("plan") or {}
    found: dict[str, Any] = plan.get("layers", {}).get(name, {})
    # Of a source that is shipped as it is, the plan is what was refused.
    refused = bool(found) and sidecar is not None and sidecar["decision"] == "source"
    return {"latency_ms": found.get("dense_ms")} if refused else found


def _unknown(name: str, reason: str) -> LayerInfo:
    return LayerInfo(name, "conv", "-", (), (), 0, 0, None, None, f"stays dense: {reason}")


def _tensor(tensor: Any) -> tuple[str, str, str]:
    shape = "x".join("?" if s is None else str(s) for s in tensor.shape or ())
    dtype = tensor.dtype
    # Types that NumPy lacks (bfloat16) come as ONNX's numbers.
    name = TensorProto.DataType.Name(dtype) if isinstance(dtype, int) else np.dtype(dtype).name
    return tensor.name, name.lower(), shape
