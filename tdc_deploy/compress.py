"""Apply a choice of forms to a network: decompose, correct, fuse."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tdc_deploy.graph.chains import Chain, find_chains
from tdc_deploy.graph.decompose import decompose_conv
from tdc_deploy.graph.fuse import fuse, mark_compressed
from tdc_deploy.graph.network import Network
from tdc_deploy.graph.shapes import infer_shapes
from tdc_deploy.graph.sharing import share_constants
from tdc_deploy.repair import Repair
from tdc_deploy.source import Source
from tdc_deploy.tucker import Factors
from tdc_deploy.types import Candidate

PARTS = ("/first", "/core", "/last")
"""What the convolutions of a decomposed layer are called, after its name."""

Selection = Mapping[str, Candidate]
"""Layer name → the form it gets; a layer that is not named stays dense."""


def compress(
    source: Source,
    selection: Selection,
    repair: Repair | None = None,
    refine: bool = False,
    given: Mapping[str, Factors] | None = None,
) -> Network:
    """The source with each layer in its selected form, and every chain fused.

    `repair` corrects the statistics of what the chains put out; `refine` iterates the decompositions
    (`Decompositions.factors`); `given` are factors of layers that are not decomposed here.
    """
    network = decompose_layers(source, selection, repair, refine, given)
    return fuse_chains(network, source, selection)


def decompose_layers(
    source: Source,
    selection: Selection,
    repair: Repair | None = None,
    refine: bool = False,
    given: Mapping[str, Factors] | None = None,
) -> Network:
    """The same before any chain is fused."""
    network = source.network.copy()
    nodes = {node.name: node for node in network.graph.nodes}
    ends = []
    for name, candidate in selection.items():
        if candidate.ranks is None:
            continue
        factors = (given or {}).get(name) or source.decompositions.factors(name, candidate, refine)
        ends.append(decompose_conv(network.graph, nodes[name], factors)[-1])
    if repair is not None:
        repair.correct(network, ends)
    return network


def fuse_chains(
    network: Network, source: Source, selection: Selection, unfused: Collection[str] = ()
) -> Network:
    """Fuse every chain of `network`, in place, but those that the selection keeps native or whose last
    node is among `unfused`, and remember which are decompositions.
    """
    chains = find_chains(network, infer_shapes(network, source.inputs))
    came_compressed = {chain.core.name for chain in source.compressed}
    made = {name: c.implementation for name, c in selection.items() if c.form == "tucker2"}
    compressed, native = [], []
    for chain in chains:
        implementation = made.get(_layer_of(chain))
        if implementation is not None or chain.core.name in came_compressed:
            compressed.append(chain)
        if implementation == "native" or chain.last.name in unfused:
            native.append(chain)
    mark_compressed(network, [chain for chain in native if chain in compressed])
    fuse(network, [chain for chain in chains if chain not in native], compressed)
    share_constants(network.graph)
    return network


def _layer_of(chain: Chain) -> str:
    """The layer that the chain decomposes, or nothing if its nodes are not all of one."""
    name = str(chain.core.name).removesuffix("/core")
    ends = (chain.first.name, chain.last.name)
    return name if ends == (f"{name}/first", last_node(name)) else ""


def nodes_of(layer: str) -> set[str]:
    """The names that a layer's convolutions can have, as it came or decomposed."""
    return {layer + part for part in ("", *PARTS)}


def last_node(layer: str) -> str:
    """The name of the last convolution of a layer's chain, and of the operator that it is fused to."""
    return f"{layer}/last"
