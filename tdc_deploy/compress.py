"""Apply a choice of forms to a network: decompose, correct, fuse."""

from __future__ import annotations

from collections.abc import Mapping

from tdc_deploy.graph.chains import find_chains
from tdc_deploy.graph.convs import kernel
from tdc_deploy.graph.decompose import decompose_conv
from tdc_deploy.graph.fuse import fuse
from tdc_deploy.graph.network import Network
from tdc_deploy.graph.shapes import infer_shapes
from tdc_deploy.repair import Repair
from tdc_deploy.source import Source
from tdc_deploy.tucker import decompose
from tdc_deploy.types import Candidate

Selection = Mapping[str, Candidate]
"""Layer name → the form it gets; a layer that is not named stays dense."""


def compress(
    source: Source, selection: Selection, repair: Repair | None = None, refine: bool = False
) -> Network:
    """The source with each layer in its selected form, and every chain fused.

    `repair` corrects the statistics of what the chains put out; `refine` improves the HOSVD by HOOI.
    """
    network = source.network.copy()
    nodes = {node.name: node for node in network.graph.nodes}
    ends = []
    for name, candidate in selection.items():
        if candidate.ranks is None:
            continue
        node = nodes[name]
        bases = None if candidate.form == "svd" else source.bases(name)
        factors = decompose(kernel(node), candidate.form, candidate.ranks, refine, bases)
        ends.append(decompose_conv(network.graph, node, factors)[-1])
    if repair is not None:
        repair.correct(network, ends)
    return fuse_all(network, source, {name for name, c in selection.items() if c.ranks})


def fuse_all(network: Network, source: Source, decomposed: set[str]) -> Network:
    """Fuse every chain of `network`, in place, remembering which are decompositions."""
    chains = find_chains(network, infer_shapes(network, source.inputs))
    known = {chain.core.name for chain in source.compressed}
    known |= {f"{name}/core" for name in decomposed}
    fuse(network, chains, [chain for chain in chains if chain.core.name in known])
    return network
