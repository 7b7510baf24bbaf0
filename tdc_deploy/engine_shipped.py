"""What of a plan an engine shipped: which chains are fused, which precision each layer has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tdc_deploy.compress import last_node, nodes_of
from tdc_deploy.engine_forms import FUSED, SOURCE, Built
from tdc_deploy.plan_file import Plan
from tdc_deploy.profiling.analytical.model import PrecisionName
from tdc_deploy.types import DENSE, Candidate, Precision


def chain_forms(plan: Plan | None, chosen: Built, built: Mapping[str, Built]) -> dict[str, str]:
    """Layer of the plan, or operator that came of another chain → fused, native or dense, as shipped."""
    selection = {} if plan is None else plan.selection
    fused = set(chosen.prepared.fused)
    forms = {}
    for name in selection:
        left = chosen.form == SOURCE or name in chosen.reverted.dense
        forms[name] = "dense" if left else "fused" if last_node(name) in fused else "native"
    planned = {last_node(name) for name in selection}
    others = built[FUSED].prepared.fused if FUSED in built else ()
    forms |= {
        name: "fused" if name in fused else "native" for name in others if name not in planned
    }
    return forms


def as_built(
    plan: Plan | None, chosen: Built, chains: Mapping[str, str], precision: PrecisionName
) -> Plan | None:
    """The plan with each layer's precision, and whether its chain is fused, as they were shipped; as it
    was where none of it was.
    """
    if plan is None or chosen.form == SOURCE:
        return plan
    layers = {}
    for name, choice in plan.layers.items():
        kept = nodes_of(name) & set(chosen.prepared.exact)
        held: Precision = "fp16" if precision == "fp16" and not kept else "fp32"
        candidate = replace(choice.candidate, precision="int8" if name in chosen.int8 else held)
        if candidate.form == "tucker2":
            candidate = _as_shipped(candidate, chains.get(name), choice.dense_ms)
        layers[name] = replace(choice, candidate=candidate)
    return replace(plan, layers=layers)


def _as_shipped(candidate: Candidate, chain: str | None, dense_ms: float | None) -> Candidate:
    """A layer that was planned as a chain, which may have been taken back."""
    if chain == "dense":
        return replace(DENSE, precision=candidate.precision, latency_ms=dense_ms)
    if chain in ("fused", "native"):
        return replace(candidate, implementation=chain)  # type: ignore[arg-type]
    return candidate
