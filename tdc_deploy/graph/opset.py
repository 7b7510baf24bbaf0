"""A newer version of the default operator set, where a rewriting needs one."""

from __future__ import annotations

import onnx.version_converter

from tdc_deploy.errors import TdcError
from tdc_deploy.graph.large import is_large
from tdc_deploy.graph.names import name_nodes
from tdc_deploy.graph.network import Network, model_of, network_of


def with_opset(network: Network, least: int) -> Network:
    """The network in the given version of the default operator set, or in its own if that is newer; every
    node has a name. Fused operators are not converted.

    Raises:
        TdcError: the model is above protobuf's 2 GiB, or an operator cannot be converted.
    """
    network = network.copy()
    name_nodes(network.graph)
    if network.opset >= least:
        return network
    model = model_of(network)
    if is_large(model):
        raise TdcError(
            f"a model of opset {network.opset} above 2 GiB",
            expected=f"opset {least}, which it cannot be converted to",
            fix="export the model again with a newer opset",
        )
    try:
        converted = onnx.version_converter.convert_version(model, least)
    except (RuntimeError, ValueError) as error:
        raise TdcError(
            f"a model of opset {network.opset}, which cannot be converted: {error}",
            expected=f"a model of opset {least} or newer",
            fix="export the model again with a newer opset",
        ) from None
    # The converter types what it has seen by the older version's rules.
    del converted.graph.value_info[:]
    made = network_of(converted)
    name_nodes(made.graph)
    made.metadata, made.chain_records = dict(network.metadata), list(network.chain_records)
    return made
