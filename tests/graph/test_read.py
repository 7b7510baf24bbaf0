"""Reading model files: what is folded, what is refused, and how."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tdc_deploy.errors import TdcError
from tdc_deploy.files import files_sha256
from tdc_deploy.graph.convs import bias, canonicalise, find_convs, has_bias, kernel
from tdc_deploy.graph.network import model_of
from tdc_deploy.graph.read import load_checked, read_network
from tdc_deploy.graph.shapes import infer_shapes, input_shapes
from tests.helpers import (
    FLOAT,
    Net,
    chain,
    chains_of,
    conv_net,
    feeds_of,
    network,
    relative,
    run,
    run_float64,
    save,
)

# Folding multiplies weights in float32: a rounding of 6e-8 each, over a few layers.
FOLDED = 1e-5


def add_batch_norm(net: Net, x: str, name: str) -> str:
    c = net.shapes[x][0]
    parameters = [
        net.weight(f"{name}.{part}", values.astype(np.float32))
        for part, values in (
            ("scale", net.rng.uniform(0.5, 2, c)),
            ("shift", net.rng.standard_normal(c)),
            ("mean", net.rng.standard_normal(c)),
            ("var", net.rng.uniform(0.1, 3, c)),
        )
    ]
    return net.node("BatchNormalization", [x, *parameters], name, epsilon=1e-3)


def with_batch_norm(opset: int, biased: bool) -> onnx.ModelProto:
    """BatchNorm after a convolution with and without a reader more, and after a grouped one."""
    net = Net(3, (10, 9), opset=opset)
    y = net.conv("x", 8, (3, 3), name="stem", bias=biased, pads=(1, 1, 1, 1))
    stem = net.relu(add_batch_norm(net, y, "stem.bn"), "stem.act")
    y = net.conv(stem, 8, (3, 3), name="body", bias=biased, pads=(1, 1, 1, 1))
    y = net.add(add_batch_norm(net, y, "body.bn"), stem, "add")
    y = add_batch_norm(net, net.conv(y, 8, name="grouped", group=8, bias=biased), "grouped.bn")
    return net.model(net.head(net.relu(y, "act")))


@pytest.mark.parametrize("opset", [11, 13, 17, 20])
@pytest.mark.parametrize("biased", [False, True])
def test_batch_norm_is_folded(tmp_path: Path, opset: int, biased: bool) -> None:
    model = with_batch_norm(opset, biased)
    made = read_network(save(model, tmp_path / "m.onnx"))
    folded = model_of(made)
    assert not [node for node in folded.graph.node if node.op_type == "BatchNormalization"]
    assert sum(node.op_type == "Conv" for node in folded.graph.node) == 3
    assert made.opset == opset
    feeds = feeds_of(model)
    # onnx's reference evaluator is wrong about BatchNormalization below opset 14; it means the same.
    reference = run_float64(with_batch_norm(17, biased), feeds)[0]
    assert relative(run(folded, feeds)[0], reference) <= FOLDED


def test_batch_norm_that_no_convolution_precedes_stays(tmp_path: Path) -> None:
    net = Net(3)
    y = net.conv(add_batch_norm(net, "x", "bn"), 4, (3, 3), name="conv", pads=(1, 1, 1, 1))
    model = net.model(y)
    folded = model_of(read_network(save(model, tmp_path / "m.onnx")))
    feeds = feeds_of(model)
    assert relative(run(folded, feeds)[0], run_float64(model, feeds)[0]) <= FOLDED


def test_plain_network_is_unchanged(tmp_path: Path) -> None:
    model = conv_net()
    made = read_network(save(model, tmp_path / "m.onnx"))
    feeds = feeds_of(model)
    # Nothing to fold: the same nodes and weights, thus the same bits.
    assert np.array_equal(run(model_of(made), feeds)[0], run(model, feeds)[0])
    convs = {node.name: kernel(node) for node in made.graph.nodes if node.op == "Conv"}
    assert list(convs) == ["stem", "block.a", "block.b", "down", "narrow"]
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for name, values in convs.items():
        assert np.array_equal(values, stored[f"{name}.w"])


def test_dynamic_batch_survives(tmp_path: Path) -> None:
    made = read_network(save(conv_net(batch="N"), tmp_path / "m.onnx"))
    model = model_of(made)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert run(model, feeds_of(model, batch=3))[0].shape == (3, 5)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(TdcError, match="no model file at"):
        read_network(tmp_path / "nothing.onnx")
    with pytest.raises(TdcError, match="no model file at"):
        read_network(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 100, b"hello, this is no model\n" * 9, bytes(range(256)) * 40],
    ids=["empty", "zeros", "text", "bytes"],
)
@pytest.mark.parametrize("name", ["m.onnx", "m", "m.json"])
def test_garbage(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(TdcError) as caught:
        read_network(path)
    assert name in caught.value.received


def test_sidecar_in_place_of_the_model(tmp_path: Path) -> None:
    """`model.onnx.json` is one key away from `model.onnx`."""
    path = tmp_path / "model.onnx.json"
    path.write_text(json.dumps({"source": "abc", "layers": []}))
    with pytest.raises(TdcError) as caught:
        read_network(path)
    assert "model.onnx.json" in caught.value.received


def test_truncated_anywhere(tmp_path: Path) -> None:
    net = Net(2, (4, 4))
    content = net.model(net.relu(net.conv("x", 2, name="conv"), "act")).SerializeToString()
    path = tmp_path / "m.onnx"
    accepted = []
    for size in range(0, len(content), 3):
        path.write_bytes(content[:size])
        try:
            load_checked(path)
        except TdcError as error:
            assert "m.onnx" in error.received
        else:
            accepted.append(size)
    assert accepted == []


def test_empty_graph(tmp_path: Path) -> None:
    graph = helper.make_graph([], "empty", [], [])
    with pytest.raises(TdcError, match="holds no graph"):
        read_network(save(helper.make_model(graph), tmp_path / "m.onnx"))


@pytest.mark.parametrize("opset", [9, 10])
def test_old_opset(tmp_path: Path, opset: int) -> None:
    net = Net(3, opset=opset)
    path = save(net.model(net.conv("x", 4, name="conv")), tmp_path / "m.onnx")
    with pytest.raises(TdcError, match=f"uses opset {opset}") as caught:
        read_network(path)
    assert "11" in caught.value.expected and caught.value.fix


def test_default_domain_by_its_long_name(tmp_path: Path) -> None:
    """ "ai.onnx" is another spelling of the default domain."""
    model = conv_net()
    model.opset_import[0].domain = "ai.onnx"
    onnx.checker.check_model(model)
    made = read_network(save(model, tmp_path / "m.onnx"))
    assert made.opset == 17


def invalid_models() -> dict[str, onnx.ModelProto]:
    made = {}
    for what in ("unknown operator", "unknown input", "cycle", "no opset", "attribute type"):
        model = conv_net()
        node = next(n for n in model.graph.node if n.name == "block.a")
        if what == "unknown operator":
            node.op_type = "Convolve"
        elif what == "unknown input":
            node.input[0] = "nowhere"
        elif what == "cycle":
            model.graph.node[0].input[0] = model.graph.node[-1].output[0]
        elif what == "no opset":
            del model.opset_import[:]
        else:
            node.attribute.append(helper.make_attribute("auto_pad", 3))
        made[what] = model
    return made


@pytest.mark.parametrize("what", invalid_models())
def test_invalid(tmp_path: Path, what: str) -> None:
    path = save(invalid_models()[what], tmp_path / "m.onnx")
    with pytest.raises(TdcError, match=r"m\.onnx is not a valid ONNX model: \S") as caught:
        read_network(path)
    assert caught.value.fix


def save_external(folder: Path) -> Path:
    onnx.save(
        conv_net(channels=32),
        str(folder / "m.onnx"),
        save_as_external_data=True,
        location="m.data",
        size_threshold=0,
    )
    return folder / "m.onnx"


def test_external_data(tmp_path: Path) -> None:
    path = save_external(tmp_path)
    assert (tmp_path / "m.data").stat().st_size > path.stat().st_size
    model = model_of(read_network(path))
    feeds = feeds_of(model)
    assert np.array_equal(run(model, feeds)[0], run(conv_net(channels=32), feeds)[0])


def test_missing_external_data(tmp_path: Path) -> None:
    path = save_external(tmp_path)
    (tmp_path / "m.data").unlink()
    with pytest.raises(TdcError, match=r"the weights of .*m\.onnx are missing") as caught:
        read_network(path)
    assert "m.data" in str(caught.value)


def test_truncated_external_data(tmp_path: Path) -> None:
    path = save_external(tmp_path)
    data = tmp_path / "m.data"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    with pytest.raises(TdcError, match=r"m\.onnx"):
        read_network(path)


def test_constant_nodes(tmp_path: Path) -> None:
    """Some exporters write weights as Constant nodes."""
    net = Net(3, (9, 8))
    values = net.rng.standard_normal((4, 3, 3, 3), np.float32)
    for name, array in (("w", values), ("b", np.arange(4, dtype=np.float32))):
        tensor = numpy_helper.from_array(array, f"{name}.value")
        net.nodes.append(helper.make_node("Constant", [], [name], name=name, value=tensor))
    model = net.model(net.node("Conv", ["x", "w", "b"], "conv", (4, 7, 6)))
    made = read_network(save(model, tmp_path / "m.onnx"))
    (conv,) = (node for node in made.graph.nodes if node.op == "Conv")
    assert np.array_equal(kernel(conv), values)
    stored = bias(conv)
    assert stored is not None and np.array_equal(stored, np.arange(4))
    direct = network(model)
    assert [node.op for node in direct.graph.nodes] == ["Conv"]
    (found,) = find_convs(direct.graph, infer_shapes(direct, input_shapes(direct.graph)))
    assert found.layer is not None and found.layer.c_out == 4
    feeds = feeds_of(model)
    for network_read in (made, direct):
        assert np.array_equal(run(model_of(network_read), feeds)[0], run(model, feeds)[0])


def test_constant_that_is_an_output_stays() -> None:
    net = Net(3)
    tensor = numpy_helper.from_array(np.ones(3, np.float32), "v")
    net.nodes.append(helper.make_node("Constant", [], ["c"], name="c", value=tensor))
    net.shapes["c"] = (1, 1, 3)
    made = network(net.model(net.relu("x", "act"), "c", net.relu("c", "act2")))
    feeds = {"x": np.zeros((1, 3, 9, 8), np.float32)}
    assert np.array_equal(run(model_of(made), feeds)[1], np.ones(3))


def test_initializers_that_are_also_inputs(tmp_path: Path) -> None:
    """As exporters wrote them up to IR version 3: they are no inputs to ask the user for."""
    model = conv_net(opset=11)
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    model.ir_version = 3
    made = read_network(save(model, tmp_path / "m.onnx"))
    assert input_shapes(made.graph) == {"x": (1, 3, 12, 12)}
    convs = find_convs(made.graph, infer_shapes(made, input_shapes(made.graph)))
    assert [conv.layer is not None for conv in convs] == [True] * 5


def test_other_local_functions_are_inlined(tmp_path: Path) -> None:
    body = helper.make_function(
        "custom",
        "Block",
        ["X", "W"],
        ["Y"],
        [helper.make_node("Conv", ["X", "W"], ["Z"]), helper.make_node("Relu", ["Z"], ["Y"])],
        [helper.make_opsetid("", 17)],
    )
    net = Net(3, (9, 8))
    weight = net.weight("w", net.rng.standard_normal((4, 3, 3, 3), np.float32))
    net.nodes.append(helper.make_node("Block", ["x", weight], ["y"], name="block", domain="custom"))
    graph = helper.make_graph(
        net.nodes,
        "g",
        net.inputs,
        [helper.make_tensor_value_info("y", FLOAT, [1, 4, 7, 6])],
        [numpy_helper.from_array(net.weights["w"], "w")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("custom", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=[body])
    made = read_network(save(model, tmp_path / "m.onnx"))
    assert [node.op for node in made.graph.nodes] == ["Conv", "Relu"]
    plain = model_of(made)
    assert not plain.functions
    feeds = feeds_of(model)
    assert relative(run(plain, feeds)[0], run_float64(model, feeds)[0]) <= FOLDED


def test_names_are_made_unique() -> None:
    net = Net(3)
    y = net.conv("x", 4, name="same")
    for name in ("", "", "same", "same", "same_1", "relu"):
        serial = len(net.nodes)
        weight = net.weight(f"w{serial}", np.ones((4, 4, 1, 1), np.float32))
        net.nodes.append(helper.make_node("Conv", [y, weight], [f"t{serial}"], name=name))
        y = f"t{serial}"
    net.shapes[y] = (4, 9, 8)
    made = network(net.model(net.relu(y, "relu")))
    names = [node.name for node in made.graph.nodes]
    assert all(names) and len(set(names)) == len(names)
    assert names[0] == "same" and names[-1] == "relu"
    canonicalise(made.graph)
    assert [node.name for node in made.graph.nodes] == names


def test_attributes_are_explicit() -> None:
    net = Net(3)
    weight = net.weight("w", np.ones((4, 3, 3, 5), np.float32))
    y = net.node("Conv", ["x", weight], "conv", (4, 7, 4), auto_pad="NOTSET")
    made = network(net.model(y))
    (conv,) = made.graph.nodes
    assert dict(conv.attrs) == {
        "strides": [1, 1],
        "dilations": [1, 1],
        "group": 1,
        "pads": [0, 0, 0, 0],
        "kernel_shape": [3, 5],
    }
    assert not has_bias(conv) and bias(conv) is None


def test_layers_and_reasons() -> None:
    net = Net(8, (12, 11), batch="N")
    net.conv("x", 6, (3, 5), name="plain", bias=True, strides=(2, 1), pads=(1, 2, 0, 1))
    net.conv("x", 8, (3, 3), name="depthwise", group=8)
    net.conv("x", 8, (3, 3), name="grouped", group=2)
    weight = net.weight("w", np.ones((4, 8, 3, 3), np.float32))
    weight_up = net.weight("up.w", np.ones((8, 4, 2, 2), np.float32))
    net.node("Conv", ["x", weight], "same", auto_pad="SAME_LOWER", strides=[2, 2])
    net.node("ConvTranspose", ["x", weight_up], "up")
    computed = net.node("Relu", [weight], "computed")
    net.node("Conv", ["x", computed], "made")
    line = net.node("Flatten", ["x"], "line", axis=2)
    line = net.node("Unsqueeze", [line, net.weight("axes", np.array([0], np.int64))], "one")
    net.node("Conv", [line, net.weight("w1", np.ones((2, 8, 3), np.float32))], "1d")
    outputs = [node.output[0] for node in net.nodes if "Conv" in node.op_type]
    made = network(net.model(*outputs))
    found = {c.name: c for c in find_convs(made.graph, infer_shapes(made, {"x": (2, 8, 12, 11)}))}
    layer = found["plain"].layer
    assert layer is not None and found["plain"].reason == ""
    assert (layer.batch, layer.c_in, layer.c_out, layer.in_hw) == (2, 8, 6, (12, 11))
    assert (layer.kernel, layer.strides, layer.pads) == ((3, 5), (2, 1), (1, 2, 0, 1))
    reasons = {name: conv.reason for name, conv in found.items() if conv.reason}
    # Outputs of 6x6: one row and two columns of padding, the larger part first.
    same = found["same"].layer
    assert same is not None and same.pads == (1, 1, 0, 1)
    grouped = found["grouped"].layer
    assert grouped is not None and (grouped.c_in, grouped.groups) == (8, 2)
    assert reasons == {
        "depthwise": "it is depthwise",
        "grouped": "it is grouped",
        "up": "it is transposed",
        "made": "its weight is computed, not stored",
        "1d": "it is 1-D",
    }


def test_negative_padding_is_a_reason() -> None:
    made = network(conv_net())
    stem = next(node for node in made.graph.nodes if node.name == "stem")
    stem.attrs["pads"] = [-1, 0, 0, 0]
    found = find_convs(made.graph, {"x": (1, 3, 12, 12)})[0]
    assert (found.layer, found.reason) == (None, "its padding is negative")


def test_unknown_shape_is_a_reason() -> None:
    made = network(conv_net())
    reasons = {conv.name: conv.reason for conv in find_convs(made.graph, {"x": (1, 3, 12, 12)})}
    assert reasons["stem"] == ""
    assert reasons["down"] == "its input shape is not known"


def test_metadata_survives(tmp_path: Path) -> None:
    model = conv_net()
    pairs = {"author": "me", "empty": "", "unicode": "é→"}
    helper.set_model_props(model, pairs)
    made = read_network(save(model, tmp_path / "m.onnx"))
    assert made.metadata == pairs and made.chain_records == []
    written = model_of(made)
    assert {entry.key: entry.value for entry in written.metadata_props} == pairs
    again = read_network(save(written, tmp_path / "again.onnx"))
    assert again.metadata == pairs
    assert {e.key: e.value for e in model_of(made.copy()).metadata_props} == pairs


def test_inputs_and_outputs_keep_their_order_and_names(tmp_path: Path) -> None:
    net = Net(3)
    net.inputs.insert(0, helper.make_tensor_value_info("before", FLOAT, [1, 4, 9, 8]))
    net.inputs.append(helper.make_tensor_value_info("unused", FLOAT, [2]))
    y = net.conv("x", 4, name="conv")
    total = net.add(y, "before", "add")
    model = net.model(total, y)
    written = model_of(read_network(save(model, tmp_path / "m.onnx")))
    assert [value.name for value in written.graph.input] == ["before", "x", "unused"]
    assert [value.name for value in written.graph.output] == ["add.out", "conv.out"]


def test_chains_are_found_in_what_is_read(tmp_path: Path) -> None:
    """A file written with gaps: no names, no kernel_shape, default attributes left out."""
    net = Net(8)
    y = net.relu(net.add(chain(net, "x", "c"), "x", "add"), "act")
    model = net.model(y)
    for node in model.graph.node:
        node.name = ""
        if node.op_type == "Conv":
            kept = [a for a in node.attribute if a.name == "pads"]
            del node.attribute[:]
            node.attribute.extend(kept)
    (found,) = chains_of(read_network(save(model, tmp_path / "m.onnx")))
    assert found.nodes.keys() == {"first", "core", "last", "add", "activation"}


def test_files_sha256(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    # The digest that FIPS 180-2 gives for this message.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files_sha256([path]) == expected


PEAK = """
import sys
from pathlib import Path
from tdc_deploy.graph.read import read_network
from tdc_deploy.memory import return_large_blocks

return_large_blocks()
peaks = []
for path in sys.argv[1:]:
    read_network(Path(path))
    # Unlike getrusage's, not that of the process which forked this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    peaks.append(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")))
print(peaks[1] - peaks[0])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="elsewhere memory is not given back")
def test_reading_holds_few_copies_of_the_weights(tmp_path: Path) -> None:
    """At its end: the graph's, the optimised model's, and those that are read from it, in pieces."""
    paths = []
    count, size = 8, 2**11
    for name, layers in (("small", 1), ("large", 1 + count)):
        nodes = [
            helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(layers)
        ]
        ends = (
            helper.make_tensor_value_info(end, FLOAT, [1, size]) for end in ("x0", f"x{layers}")
        )
        weights = [
            numpy_helper.from_array(np.full((size, size), i, np.float32), f"w{i}")
            for i in range(layers)
        ]
        graph = helper.make_graph(nodes, name, [next(ends)], [next(ends)], weights)
        opset = helper.make_opsetid("", 17)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
        paths.append(str(save(model, tmp_path / f"{name}.onnx")))
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *paths], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) * 1024 <= 3.6 * count * size * size * 4
