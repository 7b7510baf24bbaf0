"""A CNN whose weights exceed 2 GiB, protobuf's limit, built and run: time and peak memory.

    python -m benchmarks.large_model FOLDER --gib 2.2

The network is VGG-11's convolutions and its three fully connected layers (Simonyan and Zisserman, ICLR
2015), these as wide as it takes, stored as external data. `tdc-deploy build` applies a plan of half the
ranks to it, in a process of its own whose peak memory is taken; then the artifact runs in ONNX Runtime,
and its error to the source is held against the one that the build measured. Needs twice --gib of disk,
seven times that of memory, and no torch.
"""

from __future__ import annotations

import argparse
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from benchmarks.commands import command, measured
from benchmarks.plans import ANY_ERROR, tucker
from benchmarks.rows import conditions
from tdc_deploy.backends.onnxruntime import make_session
from tdc_deploy.files import write_whole
from tdc_deploy.plan_file import LayerChoice, Plan, write_plan
from tdc_deploy.source import read_source
from tdc_deploy.strict_json import dumps
from tdc_deploy.verify import relative_error

RESULTS = Path(__file__).parent / "results" / "large_model.json"

SIZE, CLASSES, SAMPLES = 224, 1000, 16

# Channels of the 3x3 convolutions; 0 is a pooling of 2x2.
LAYOUT = (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0)
POOLED = SIZE // 2**5
GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gib", type=float, default=2.2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    report = {**conditions(args.threads), **run(args.folder, args.gib, args.threads)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole({args.out: (dumps(report) + "\n").encode()})
    print(dumps(report))


def run(folder: Path, gib: float, threads: int) -> dict[str, Any]:
    """Write the network, build it, run both, and compare."""
    model, plan, inputs, output = (
        folder / name for name in ("model.onnx", "plan.json", "inputs.npz", "built.onnx")
    )
    size = write_network(model, gib)
    rng = np.random.default_rng(1)
    images = _images(rng)
    np.savez(inputs, image=images)
    layers = {
        name: LayerChoice(tucker(layer, max(3, layer.c_in // 2), layer.c_out // 2))
        for name, layer in read_source(model).plannable.items()
    }
    write_plan(Plan(layers), plan)
    words = ["build", model, "-o", output, "--plan", plan, "--inputs", inputs]
    built = command(
        [*words, "--max-error", ANY_ERROR, "--threads", threads, "--json", "--store", folder / "s"]
    )
    before, after = (_outputs(path, images[1::2], threads) for path in (model, output))
    told = built["output"]["verification"]["error"]
    found = relative_error(before, after)
    return {
        "weights_gib": round(size / GIB, 2),
        "decision": built["output"]["decision"],
        "error": told,
        "error_of_the_file": found,
        "agrees": bool(abs(found - told) <= 1e-3 * told),
        "artifact_files": sorted(path.name for path in folder.glob("built.onnx*")),
        "build": measured(built),
    }


def write_network(path: Path, gib: float) -> int:
    """Convolutions, then linear layers that bring the weights to `gib`; returns their bytes."""
    rng = np.random.default_rng(0)
    weights: dict[str, NDArray[np.float32]] = {}
    nodes = []
    value, channels = "image", 3
    for i, wide in enumerate(LAYOUT):
        target = f"x{i}"
        if wide == 0:
            pool: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
            nodes.append(helper.make_node("MaxPool", [value], [target], **pool))
        else:
            weights[f"conv{i}.weight"] = _kernel(rng, wide, channels)
            same: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
            operands = [value, f"conv{i}.weight"]
            nodes.append(helper.make_node("Conv", operands, [f"c{i}"], f"conv{i}", **same))
            nodes.append(helper.make_node("Relu", [f"c{i}"], [target]))
            channels = wide
        value = target
    nodes.append(helper.make_node("Flatten", [value], ["flat"]))
    flat = channels * POOLED**2
    ends, total = flat + CLASSES, gib * GIB / 4
    hidden = round((math.sqrt(ends**2 + 4 * total) - ends) / 2)  # hidden · (hidden + ends) = total
    widths = (flat, hidden, hidden, CLASSES)
    value = "flat"
    for i, (before, after) in enumerate(pairwise(widths), 1):
        weights[f"fc{i}.weight"] = _linear(rng, after, before)
        target = "logits" if i == len(widths) - 1 else f"fc{i}"
        operands = [value, f"fc{i}.weight"]
        nodes.append(helper.make_node("Gemm", operands, [target], target, transB=1))
        value = target
        if target != "logits":
            value = f"hidden{i}"
            nodes.append(helper.make_node("Relu", [target], [value]))
    return _save(path, nodes, weights)


def _save(path: Path, nodes: list[Any], weights: dict[str, NDArray[np.float32]]) -> int:
    """The graph with every weight in one file beside it, as torch's exporter writes it."""
    tensors, offset = [], 0
    data = path.with_name(f"{path.name}.data")
    with data.open("wb") as file:
        for name, values in weights.items():
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=values.shape)
            tensor.data_location = TensorProto.EXTERNAL
            places = {"location": data.name, "offset": offset, "length": values.nbytes}
            for key, place in places.items():
                tensor.external_data.add(key=key, value=str(place))
            tensors.append(tensor)
            file.write(values.data)
            offset += values.nbytes
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIZE, SIZE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])
    graph = helper.make_graph(nodes, "large", [image], [logits], tensors)
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), str(path))
    return offset


def _kernel(rng: np.random.Generator, c_out: int, c_in: int) -> NDArray[np.float32]:
    """A 3x3 kernel whose channel modes decay, so that half the ranks keep most of it."""
    kernel = rng.standard_normal((c_out, c_in, 3, 3))
    for axis, channels in enumerate((c_out, c_in)):
        basis = np.linalg.qr(rng.standard_normal((channels, channels)))[0]
        scaled = basis * np.arange(1, channels + 1) ** -1.0
        kernel = np.moveaxis(np.tensordot(scaled, kernel, (1, axis)), 0, axis)
    scaled_to = (2 / (9 * c_in)) ** 0.5
    return np.ascontiguousarray(kernel / kernel.std() * scaled_to, np.float32)


def _linear(rng: np.random.Generator, c_out: int, c_in: int) -> NDArray[np.float32]:
    matrix = rng.standard_normal((c_out, c_in), np.float32)
    matrix *= np.float32((2 / c_in) ** 0.5)
    return matrix


def _images(rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth fields with contrasts of their own: white noise averages out in a CNN."""
    coarse = rng.standard_normal((SAMPLES, 3, 8, 8), np.float32)
    images = np.repeat(np.repeat(coarse, SIZE // 8, 2), SIZE // 8, 3)
    images *= rng.uniform(0.4, 1.6, (SAMPLES, 1, 1, 1)).astype(np.float32)
    return np.asarray(images)


def _outputs(path: Path, images: NDArray[np.float32], threads: int) -> NDArray[np.float32]:
    session = make_session(path, threads)
    return np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])


if __name__ == "__main__":
    main()
