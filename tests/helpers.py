"""Tiny ONNX models made in code, and float64 references to hold results against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.reference
import onnxruntime
from hypothesis import settings
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tdc_deploy.graph.chains import Chain, find_chains
from tdc_deploy.graph.convs import canonicalise
from tdc_deploy.graph.network import Network, network_of
from tdc_deploy.graph.shapes import infer_shapes, input_shapes

Array = NDArray[Any]
Pair = tuple[int, int]
Shape = tuple[int, ...]
Pads = tuple[int, int, int, int]

FLOAT = onnx.TensorProto.FLOAT


def fixed(max_examples: int) -> settings:
    """Hypothesis settings: the same examples in every run, no clock, nothing on disk."""
    return settings(max_examples=max_examples, deadline=None, derandomize=True, database=None)


def decaying(rng: np.random.Generator, *shape: int, decay: float = 1.0) -> NDArray[np.float32]:
    """A kernel [M, C, kh, kw] whose two channel spectra fall like a power law, of norm sqrt(M)."""
    m, c = shape[:2]
    left = np.linalg.qr(rng.standard_normal((m, m)))[0] * np.arange(1, m + 1) ** -decay
    right = np.linalg.qr(rng.standard_normal((c, c)))[0] * np.arange(1, c + 1) ** -decay
    core = rng.standard_normal((m, c, *shape[2:]))
    weight = np.einsum("ma,cb,abyx->mcyx", left, right, core, optimize=True)
    return np.asarray(weight * np.sqrt(m) / np.linalg.norm(weight), np.float32)


class Net:
    """A model under construction: each method adds a node and returns the tensor that it writes.

    `shapes` knows (channels, height, width) of every tensor so added. The input is "x".
    """

    def __init__(
        self,
        channels: int = 8,
        hw: Pair = (9, 8),
        *,
        opset: int = 17,
        batch: int | str = 1,
        seed: int = 0,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = opset
        self.inputs = [helper.make_tensor_value_info("x", FLOAT, [batch, channels, *hw])]
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, Array] = {}
        self.shapes: dict[str, tuple[int, int, int]] = {"x": (channels, *hw)}

    def weight(self, name: str, values: Array) -> str:
        """Store an initializer."""
        self.weights[name] = np.asarray(values)
        return name

    def node(
        self,
        kind: str,
        inputs: Sequence[str],
        name: str,
        shape: tuple[int, int, int] | None = None,
        **attrs: Any,
    ) -> str:
        """Any node of one output, which is called `<name>.out`; of its first input's shape by default."""
        output = f"{name}.out"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=name, **attrs))
        if shape is None:
            shape = self.shapes.get(inputs[0])
        if shape is not None:
            self.shapes[output] = shape
        return output

    def conv(
        self,
        x: str,
        c_out: int,
        kernel: Pair = (1, 1),
        *,
        name: str,
        bias: bool = False,
        strides: Pair = (1, 1),
        pads: Pads = (0, 0, 0, 0),
        dilations: Pair = (1, 1),
        group: int = 1,
        weight: str = "",
        bias_name: str = "",
    ) -> str:
        """A Conv; an initializer that is already called `weight` or `bias_name` is shared."""
        c_in, height, width = self.shapes[x]
        weight = weight or f"{name}.w"
        if weight not in self.weights:
            self.weights[weight] = decaying(self.rng, c_out, c_in // group, *kernel)
        inputs = [x, weight]
        if bias:
            bias_name = bias_name or f"{name}.b"
            if bias_name not in self.weights:
                self.weights[bias_name] = self.rng.standard_normal(c_out, np.float32)
            inputs.append(bias_name)
        out_hw = (
            (height + pads[0] + pads[2] - dilations[0] * (kernel[0] - 1) - 1) // strides[0] + 1,
            (width + pads[1] + pads[3] - dilations[1] * (kernel[1] - 1) - 1) // strides[1] + 1,
        )
        return self.node(
            "Conv",
            inputs,
            name,
            (c_out, *out_hw),
            strides=strides,
            pads=pads,
            dilations=dilations,
            group=group,
        )

    def relu(self, x: str, name: str) -> str:
        """Relu."""
        return self.node("Relu", [x], name)

    def leaky(self, x: str, name: str, alpha: float) -> str:
        """LeakyRelu with a slope."""
        return self.node("LeakyRelu", [x], name, alpha=alpha)

    def add(self, a: str, b: str, name: str) -> str:
        """Add."""
        return self.node("Add", [a, b], name)

    def head(self, x: str, classes: int = 5, name: str = "head") -> str:
        """Global average pool and a Gemm to [N, classes]."""
        c = self.shapes[x][0]
        pooled = self.node("GlobalAveragePool", [x], f"{name}.pool", (c, 1, 1))
        flat = self.node("Flatten", [pooled], f"{name}.flat")
        weight = self.weight(f"{name}.w", self.rng.standard_normal((c, classes), np.float32))
        bias = self.weight(f"{name}.b", self.rng.standard_normal(classes, np.float32))
        return self.node("Gemm", [flat, weight, bias], name)

    def model(self, *outputs: str, metadata: Mapping[str, str] | None = None) -> onnx.ModelProto:
        """The finished model, accepted by onnx's checker."""
        graph = helper.make_graph(
            self.nodes,
            "net",
            self.inputs,
            [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
            [numpy_helper.from_array(values, name) for name, values in self.weights.items()],
        )
        opset = helper.make_opsetid("", self.opset)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
        helper.set_model_props(model, dict(metadata or {}))
        model = onnx.shape_inference.infer_shapes(model)  # for the outputs' shapes
        del model.graph.value_info[:]
        onnx.checker.check_model(model)
        return model


def chain(
    net: Net,
    x: str,
    name: str,
    *,
    ranks: Pair = (3, 2),
    c_out: int = 8,
    kernel: Pair = (3, 3),
    pads: Pads = (1, 1, 1, 1),
    strides: Pair = (1, 1),
    dilations: Pair = (1, 1),
    biases: tuple[bool, bool, bool] = (False, False, True),
    inner: tuple[float, float] = (1.0, 1.0),
) -> str:
    """The convolutions 1x1 → kernel → 1x1 of ranks (r_in, r_out), and activations of `inner` slopes."""
    reduced = net.conv(x, ranks[0], name=f"{name}.first", bias=biases[0])
    reduced = activation(net, reduced, f"{name}.first_act", inner[0])
    convolved = net.conv(
        reduced,
        ranks[1],
        kernel,
        name=f"{name}.core",
        bias=biases[1],
        pads=pads,
        strides=strides,
        dilations=dilations,
    )
    convolved = activation(net, convolved, f"{name}.core_act", inner[1])
    return net.conv(convolved, c_out, name=f"{name}.last", bias=biases[2])


def activation(net: Net, x: str, name: str, slope: float) -> str:
    """The activation of that negative slope: none for 1, Relu for 0, else LeakyRelu."""
    if slope == 1.0:
        return x
    return net.relu(x, name) if slope == 0.0 else net.leaky(x, name, slope)


def conv_net(
    opset: int = 17, seed: int = 0, batch: int | str = 1, channels: int = 16
) -> onnx.ModelProto:
    """A small classifier: a stem, a residual block of 3x3 convolutions, a strided one, a 1x1, a head."""
    net = Net(3, (12, 12), opset=opset, seed=seed, batch=batch)
    same: Pads = (1, 1, 1, 1)
    stem = net.relu(net.conv("x", channels, (3, 3), name="stem", bias=True, pads=same), "stem.act")
    a = net.conv(stem, channels, (3, 3), name="block.a", bias=True, pads=same)
    b = net.conv(net.relu(a, "block.act"), channels, (3, 3), name="block.b", pads=same)
    y = net.relu(net.add(b, stem, "block.add"), "block.out")
    y = net.conv(y, 2 * channels, (3, 3), name="down", bias=True, pads=same, strides=(2, 2))
    y = net.relu(
        net.conv(net.relu(y, "down.act"), channels, name="narrow", bias=True), "narrow.act"
    )
    return net.model(net.head(y))


def feeds_of(model: onnx.ModelProto, seed: int = 0, batch: int = 1) -> dict[str, Array]:
    """Normal random inputs of a model's shapes; open sizes are `batch`."""
    rng = np.random.default_rng(seed)
    shapes = {
        value.name: [d.dim_value or batch for d in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def run(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """The model's outputs from ONNX Runtime with its usual optimisations."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(value) for value in session.run(None, dict(feeds))]


def run_float64(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """The model's outputs in double precision, by onnx's own reference evaluator."""
    # The evaluator cannot run a LeakyRelu whose slope is a function's attribute, so functions go first.
    wide = onnx.inliner.inline_local_functions(model)
    for tensor in wide.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float64), tensor.name))
    evaluator = onnx.reference.ReferenceEvaluator(wide)
    double = {name: np.asarray(value, np.float64) for name, value in feeds.items()}
    outputs = evaluator.run(None, double)
    assert isinstance(outputs, list)
    return [np.asarray(value) for value in outputs]


def conv64(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
) -> NDArray[np.float64]:
    """A convolution from its definition, in float64: x [N, C, H, W], weight [M, C, kh, kw]."""
    top, left, bottom, right = pads
    x = np.pad(np.asarray(x, np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    weight = np.asarray(weight, np.float64)
    kh, kw = weight.shape[2:]
    h = (x.shape[2] - dilations[0] * (kh - 1) - 1) // strides[0] + 1
    w = (x.shape[3] - dilations[1] * (kw - 1) - 1) // strides[1] + 1
    y = np.zeros((x.shape[0], weight.shape[0], h, w))
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * dilations[0], i * dilations[0] + (h - 1) * strides[0] + 1, strides[0])
            columns = slice(
                j * dilations[1], j * dilations[1] + (w - 1) * strides[1] + 1, strides[1]
            )
            y += np.einsum("nchw,mc->nmhw", x[:, :, rows, columns], weight[:, :, i, j])
    return y if bias is None else y + np.asarray(bias, np.float64)[:, None, None]


def relative(value: Array, reference: Array) -> float:
    """‖value − reference‖ / ‖reference‖ in float64; NaN if either holds one."""
    a, b = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    assert a.shape == b.shape
    norm = float(np.linalg.norm(b))
    return float(np.linalg.norm(a - b)) / (norm if norm > 0 else 1.0)


def opened(model: onnx.ModelProto) -> Network:
    """`network_of` a copy of the model."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return network_of(copied)


def network(model: onnx.ModelProto) -> Network:
    """The model as a network with canonical convolutions, without folding anything."""
    made = opened(model)
    canonicalise(made.graph)
    return made


def chains_of(made: Network) -> list[Chain]:
    """The chains of a network at its own input shapes."""
    return find_chains(made, infer_shapes(made, input_shapes(made.graph)))


def names(nodes: Iterable[Any]) -> list[str]:
    """The names of graph nodes."""
    return [str(node.name) for node in nodes]


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write a model file."""
    onnx.save(model, str(path))
    return path
