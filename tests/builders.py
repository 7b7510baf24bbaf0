"""Tiny CNNs as ONNX models, with kernels that low ranks fit, and inputs that they tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[np.float32]

OPSET = 17
IR_VERSION = 8
CLASSES = 10
CHANNELS = (32, 48)
SIZE = 24

LAYERS = ("conv1", "conv2", "conv3")
"""The names of `small_cnn`'s convolutions, in graph order."""


def decaying_kernel(
    rng: np.random.Generator, c_out: int, c_in: int, size: int, decay: float = 1.0
) -> Array:
    """A kernel [c_out, c_in, size, size] whose two channel modes fall as rank**-decay.

    Its scale keeps the size of what goes through a ReLU network.
    """
    weight = rng.standard_normal((c_out, c_in, size, size))
    weight *= (np.arange(1, c_out + 1) ** -decay)[:, None, None, None]
    weight *= (np.arange(1, c_in + 1) ** -decay)[None, :, None, None]
    left = np.linalg.qr(rng.standard_normal((c_out, c_out)))[0]
    right = np.linalg.qr(rng.standard_normal((c_in, c_in)))[0]
    weight = np.einsum("ma,abyx,cb->mcyx", left, weight, right)
    fan_in = c_in * size * size
    return np.asarray(weight / weight.std() * (2 / fan_in) ** 0.5, np.float32)


class _Graph:
    """Collects the nodes and weights of a model under construction."""

    def __init__(self, seed: int, bias: bool) -> None:
        self.rng = np.random.default_rng(seed)
        self.bias = bias
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def weight(self, name: str, values: NDArray[Any]) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def conv(
        self, name: str, x: str, kernel: Array, stride: int = 1, bias: bool | None = None
    ) -> str:
        """A convolution node `name` that writes `name`.out, padded to keep the size."""
        inputs = [x, self.weight(f"{name}.weight", kernel)]
        if self.bias if bias is None else bias:
            values = self.rng.normal(0, 0.1, len(kernel)).astype(np.float32)
            inputs.append(self.weight(f"{name}.bias", values))
        self.nodes.append(
            helper.make_node(
                "Conv",
                inputs,
                [f"{name}.out"],
                name=name,
                kernel_shape=kernel.shape[2:],
                strides=[stride, stride],
                pads=[kernel.shape[2] // 2] * 4,
            )
        )
        return f"{name}.out"

    def head(self, x: str, channels: int, features: str = "features") -> str:
        """Global pooling to `features` and a fully connected layer to `logits`."""
        self.node("Flatten", [self.node("GlobalAveragePool", [x], "pooled")], features)
        # Strong enough that the logits differ clearly from image to image.
        matrix = self.rng.standard_normal((CLASSES, channels)).astype(np.float32)
        self.weight("fc.weight", matrix)
        self.weight("fc.bias", self.rng.normal(0, 0.1, CLASSES).astype(np.float32))
        return self.node("Gemm", [features, "fc.weight", "fc.bias"], "logits", transB=1)

    def model(
        self,
        inputs: Mapping[str, Sequence[int | str]],
        outputs: Mapping[str, Sequence[int | str]],
    ) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "small",
            [float_value(name, shape) for name, shape in inputs.items()],
            [float_value(name, shape) for name, shape in outputs.items()],
            self.weights,
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
        return model


def float_value(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    """A float32 input or output."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def small_cnn(
    *,
    batch: int | str = 1,
    two_inputs: bool = False,
    two_outputs: bool = False,
    bias: bool = True,
    decay: float = 1.0,
    size: int = SIZE,
    seed: int = 0,
) -> onnx.ModelProto:
    """image [batch, 32, 24, 24] → conv1, conv2, conv3 (3x3, to 48 channels) → logits [batch, 10].

    conv1's output is added to conv3's. `batch` may be a name: a batch of any size. A second input is
    `shift` [batch, 48, 1, 1], added to conv2's output; a second output is `features` [batch, 48].
    """
    c_in, channels = CHANNELS
    g = _Graph(seed, bias)
    kernels = [decaying_kernel(g.rng, channels, c, 3, decay) for c in (c_in, channels, channels)]
    skip = g.node("Relu", [g.conv("conv1", "image", kernels[0])], "relu1")
    x = g.conv("conv2", skip, kernels[1])
    if two_inputs:
        x = g.node("Add", [x, "shift"], "shifted")
    x = g.conv("conv3", g.node("Relu", [x], "relu2"), kernels[2])
    x = g.node("Relu", [g.node("Add", [x, skip], "sum")], "relu3")
    g.head(x, channels)
    inputs: dict[str, list[int | str]] = {"image": [batch, c_in, size, size]}
    if two_inputs:
        inputs["shift"] = [batch, channels, 1, 1]
    outputs: dict[str, list[int | str]] = {"logits": [batch, CLASSES]}
    if two_outputs:
        outputs["features"] = [batch, channels]
    return g.model(inputs, outputs)


def chain_cnn(*, ranks: tuple[int, int] = (40, 40), seed: int = 0) -> onnx.ModelProto:
    """As `small_cnn`, but conv2 came in as a Tucker chain: conv2.first, conv2.core, conv2.last."""
    c_in, channels = CHANNELS
    r_in, r_out = ranks
    g = _Graph(seed, bias=True)
    kernel = decaying_kernel(g.rng, channels, c_in, 3)
    skip = g.node("Relu", [g.conv("conv1", "image", kernel)], "relu1")
    x = g.conv("conv2.first", skip, decaying_kernel(g.rng, r_in, channels, 1, 0.2), bias=False)
    x = g.conv("conv2.core", x, decaying_kernel(g.rng, r_out, r_in, 3, 0.2), bias=False)
    x = g.conv("conv2.last", x, decaying_kernel(g.rng, channels, r_out, 1, 0.2))
    x = g.node("Relu", [g.node("Add", [x, skip], "sum")], "relu2")
    g.head(x, channels)
    return g.model({"image": [1, c_in, SIZE, SIZE]}, {"logits": [1, CLASSES]})


def linear_model() -> onnx.ModelProto:
    """A model without a convolution: image [1, 32] → logits [1, 10]."""
    g = _Graph(0, bias=True)
    g.weight("matrix", g.rng.standard_normal((CHANNELS[0], CLASSES)).astype(np.float32))
    g.node("MatMul", ["image", "matrix"], "logits")
    return g.model({"image": [1, CHANNELS[0]]}, {"logits": [1, CLASSES]})


def images(count: int, channels: int = CHANNELS[0], size: int = SIZE, seed: int = 1) -> Array:
    """[count, channels, size, size] with structure at several scales and a contrast of their own.

    White noise averages out in a CNN: every such input would give the same output.
    """
    rng = np.random.default_rng(seed)
    total = rng.standard_normal((count, channels, size, size))
    for cells in (2, 4, 8):
        coarse = rng.standard_normal((count, channels, cells, cells))
        where = np.arange(size) * cells // size
        total += coarse[:, :, where][:, :, :, where]
    total *= rng.uniform(0.4, 1.6, (count, 1, 1, 1))
    return np.asarray(total + rng.normal(0, 0.5, (count, channels, 1, 1)), np.float32)


def shifts(count: int, seed: int = 2) -> Array:
    """Values of `small_cnn`'s second input."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, CHANNELS[1], 1, 1)).astype(np.float32)


def save_model(model: onnx.ModelProto, path: Path) -> Path:
    """Write a model; return its path."""
    onnx.save(model, str(path))
    return path


def save_npz(path: Path, **arrays: NDArray[Any]) -> Path:
    """Write an .npz file; return its path."""
    named: dict[str, Any] = dict(arrays)
    np.savez(path, **named)
    return path
