"""Plans that the benchmarks compare with ours, and what a selection leaves of the arithmetic."""

from __future__ import annotations

import json
from collections.abc import Mapping

from benchmarks.gpu.layers import RANK_FILE
from tdc_deploy.compress import Selection
from tdc_deploy.plan_file import LayerChoice, Plan
from tdc_deploy.source import Source
from tdc_deploy.tucker import chain_cost, dense_cost
from tdc_deploy.types import Candidate, ConvLayer, Form, Ranks

# A benchmark asks what a plan loses; nothing is refused for it.
ANY_ERROR = 100.0


def tdc_selection(table: str, source: Source, paths: Mapping[str, str]) -> dict[str, Candidate]:
    """The rank table that TDC's authors released for a network, as the forms of its convolutions.

    A rank that equals the layer's channels decomposes nothing: there the form is the one-sided one, which
    has no needless 1x1. `paths` are the layers' module paths; linear layers of the table are left out.
    """
    ranks = json.loads(RANK_FILE.read_text(encoding="utf-8"))["models"][table]
    names = {path: name for name, path in paths.items()}
    selection = {}
    for weight, pair in ranks.items():
        name = names.get(weight.removesuffix(".weight"))
        if name is not None and len(pair) == 2:
            selection[name] = tucker(source.plannable[name], pair[1], pair[0])
    return selection


def tucker(layer: ConvLayer, r_in: int, r_out: int) -> Candidate:
    """Tucker-2 at these ranks; one-sided where one is the layer's channels, dense where both are."""
    whole = (r_in == layer.c_in, r_out == layer.c_out)
    if all(whole):
        return Candidate("dense")
    forms: dict[tuple[bool, bool], Form] = {
        (True, False): "tucker_out",
        (False, True): "tucker_in",
        (False, False): "tucker2",
    }
    form = forms[whole]
    return Candidate(form, Ranks(r_in, r_out), "fused" if form == "tucker2" else "native")


def plan_from(selection: Selection) -> Plan:
    """A plan that says no more than the forms."""
    return Plan({name: LayerChoice(candidate) for name, candidate in selection.items()})


def conv_macs(source: Source, selection: Selection) -> int:
    """Multiply-accumulates of all convolutions but transposed ones, with the layers in their forms."""
    layers = {name: conv.layer for name, conv in source.convs.items() if conv.layer is not None}
    return sum(
        (chain_cost(layer, selection[name]) if name in selection else dense_cost(layer)).macs
        for name, layer in layers.items()
    )
