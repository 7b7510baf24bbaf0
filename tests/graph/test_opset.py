"""Bringing a network to a newer operator set."""

from __future__ import annotations

import onnx
import onnx.version_converter
import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.graph import opset as module
from tdc_deploy.graph.network import model_of
from tdc_deploy.graph.opset import with_opset
from tests.graph.test_padding import fused_net
from tests.helpers import conv_net, feeds_of, network, relative, run


def test_the_network_computes_the_same_and_keeps_its_names() -> None:
    model = conv_net()
    made = with_opset(network(model), 19)
    assert made.opset == 19
    converted = model_of(made)
    onnx.checker.check_model(converted, full_check=True)
    assert {n.name for n in model.graph.node} <= {n.name for n in converted.graph.node}
    feeds = feeds_of(model)
    # The same operators on the same numbers.
    assert relative(run(converted, feeds)[0], run(model, feeds)[0]) <= 1e-6


def test_a_newer_one_stays() -> None:
    before = network(conv_net(opset=20))
    assert with_opset(before, 19).opset == 20


def test_fused_operators_come_through() -> None:
    before = fused_net((3, 10))
    made = with_opset(before, 19)
    assert made.chain_records == before.chain_records
    feeds = feeds_of(model_of(before))
    assert relative(run(model_of(made), feeds)[0], run(model_of(before), feeds)[0]) <= 1e-6


def test_what_cannot_be_converted_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no adapter")

    monkeypatch.setattr(onnx.version_converter, "convert_version", fails)
    with pytest.raises(TdcError, match="no adapter"):
        with_opset(network(conv_net()), 19)
    monkeypatch.setattr(module, "is_large", lambda _: True)
    with pytest.raises(TdcError, match="above 2 GiB"):
        with_opset(network(conv_net()), 19)
