"""The order in which ONNX Runtime hands out a network's tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tdc_calibration.in_turn import hand_out_in_turn

from tdc_deploy.graph.network import Network, model_of
from tdc_deploy.graph.prefix import prefix_to
from tests.helpers import Net, network

DEPTH = 8
NAMES = [f"r{number}.out" for number in range(DEPTH)]


def chain() -> Network:
    """Convolutions of 32 channels, which ONNX Runtime computes in its own layout where it has one."""
    net = Net(32, (12, 10))
    x = "x"
    for number in range(DEPTH):
        conv = net.conv(x, 32, (3, 3), name=f"c{number}", pads=(1, 1, 1, 1))
        x = net.relu(conv, f"r{number}")
    return network(net.model(x))


def watched(names: list[str], *, in_turn: bool) -> Network:
    found = prefix_to(chain(), dict.fromkeys(names, np.float32))
    if in_turn:
        hand_out_in_turn(found, names)
    return found


def run(made: Network, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The outputs, and the operators in the order in which they ran."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(model_of(made).SerializeToString(), options)
    x = np.random.default_rng(0).standard_normal((1, 32, 12, 10), np.float32)
    values = session.run(None, {"x": x})
    events = json.loads(Path(session.end_profiling()).read_text())
    operators = [
        event["args"]["op_name"]
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time")
    ]
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, values, strict=True)), operators


def test_each_tensor_is_handed_out_before_the_next_is_computed(tmp_path: Path) -> None:
    _, operators = run(watched(NAMES, in_turn=True), tmp_path)
    if "ReorderOutput" not in operators:
        pytest.skip("this machine's ONNX Runtime has no layout of its own")
    kept = [op for op in operators if op in {"Conv", "ReorderOutput"}]
    assert kept == ["Conv", "ReorderOutput"] * DEPTH


@pytest.mark.parametrize("names", [NAMES, NAMES[::-1], NAMES[2:5]], ids=len)
def test_the_values_stay_the_same(names: list[str], tmp_path: Path) -> None:
    before, _ = run(watched(names, in_turn=False), tmp_path)
    after, _ = run(watched(names, in_turn=True), tmp_path)
    assert set(names) == set(before) <= set(after)
    for name in names:
        np.testing.assert_array_equal(before[name], after[name])


def test_inputs_are_left_out() -> None:
    made = watched(["x", "r0.out"], in_turn=True)
    assert [node.op for node in made.graph.nodes] == ["Conv", "Relu", "Slice"]
