"""Model files that are broken, each in one way, and a word of what a user should read about it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.builders import small_cnn

Writer = Callable[[Path], object]
Edit = Callable[[onnx.ModelProto], object]


def edited(edit: Edit) -> Writer:
    """Writes `small_cnn` after `edit`."""

    def write(path: Path) -> None:
        model = small_cnn()
        edit(model)
        onnx.save(model, str(path))

    return write


def content(data: bytes) -> Writer:
    return lambda path: path.write_bytes(data)


def cut(share: float) -> Writer:
    def write(path: Path) -> None:
        data = small_cnn().SerializeToString()
        path.write_bytes(data[: int(share * len(data))])

    return write


def external(edit: Callable[[onnx.ModelProto, Path], object]) -> Writer:
    """Writes `small_cnn` with weights beside it, then edits the message and the data file."""

    def write(path: Path) -> None:
        data = path.with_name("weights.bin")
        onnx.save(
            small_cnn(),
            str(path),
            save_as_external_data=True,
            location=data.name,
            size_threshold=0,
        )
        model = onnx.load(str(path), load_external_data=False)
        edit(model, data)
        path.write_bytes(model.SerializeToString())

    return write


def located(key: str, value: str) -> Writer:
    """External data with one entry of the first tensor changed."""

    def edit(model: onnx.ModelProto, _: Path) -> None:
        tensor = next(t for t in model.graph.initializer if t.external_data)
        entry = next((e for e in tensor.external_data if e.key == key), None)
        (entry or tensor.external_data.add(key=key)).value = value

    return external(edit)


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.onnx", small_cnn().SerializeToString())


def node(model: onnx.ModelProto, name: str = "conv2") -> onnx.NodeProto:
    found: onnx.NodeProto = next(n for n in model.graph.node if n.name == name)
    return found


def attribute(name: str, value: Any) -> Edit:
    """One attribute of the second convolution replaced."""

    def edit(model: onnx.ModelProto) -> None:
        conv = node(model)
        for known in [a for a in conv.attribute if a.name == name]:
            conv.attribute.remove(known)
        conv.attribute.append(helper.make_attribute(name, value))

    return edit


def stored(name: str, change: Callable[[np.ndarray[Any, Any]], Any]) -> Edit:
    """One initializer replaced."""

    def edit(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == name)
        values = np.asarray(change(numpy_helper.to_array(tensor).copy()))
        tensor.CopyFrom(numpy_helper.from_array(values, name))

    return edit


def holding(number: float) -> Callable[[np.ndarray[Any, Any]], Any]:
    def change(values: np.ndarray[Any, Any]) -> Any:
        values.flat[0] = number
        return values

    return change


def holding_type(kind: str) -> Callable[[np.ndarray[Any, Any]], Any]:
    return lambda values: values.astype(kind)


def opset(version: int) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = version

    return edit


def unknown_domain(model: onnx.ModelProto) -> None:
    model.graph.node[-1].domain = "nobody.knows"
    model.opset_import.append(helper.make_opsetid("nobody.knows", 1))


def size(axis: int, value: int | str) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        dim = model.graph.input[0].type.tensor_type.shape.dim[axis]
        if isinstance(value, int):
            dim.dim_value = value
        else:
            dim.dim_param = value

    return edit


def set_field(get: Callable[[onnx.ModelProto], Any], field: str, value: Any) -> Edit:
    return lambda model: setattr(get(model), field, value)


def at(sequence: Callable[[onnx.ModelProto], Any], index: int, value: str) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        sequence(model)[index] = value

    return edit


def duplicate_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(model.graph.initializer[0])


def sequence_input(model: onnx.ModelProto) -> None:
    kind = helper.make_tensor_sequence_value_info("more", TensorProto.FLOAT, [1])
    model.graph.input.append(kind)


def text_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("t", TensorProto.STRING, [1]))


def recursive(model: onnx.ModelProto) -> None:
    body = [helper.make_node("F", ["a"], ["b"], domain="loop")]
    opsets = [helper.make_opsetid("loop", 1), helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("loop", "F", ["a"], ["b"], body, opsets))
    model.opset_import.append(opsets[0])
    relu = next(n for n in model.graph.node if n.op_type == "Relu")
    relu.op_type, relu.domain = "F", "loop"


def raw(data: bytes) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        next(t for t in model.graph.initializer if t.name == "conv2.weight").raw_data = data

    return edit


def folder_instead(data: Path) -> None:
    data.unlink()
    data.mkdir()


MISSING = "are missing or cut short"

BROKEN: dict[str, tuple[Writer, str]] = {
    "empty": (content(b""), "holds no graph"),
    "zeros": (content(bytes(1000)), "not an ONNX file"),
    "text": (content(b"hello, this is no model\n" * 99), "not an ONNX file"),
    "JSON": (content(b'{"format": "tdc-deploy artifact"}'), "not an ONNX file"),
    "a pickle": (content(b"\x80\x04\x95" + bytes(99)), "not an ONNX file"),
    "a zip": (zipped, "not an ONNX file"),
    "ONNX as text": (lambda p: p.write_text(onnx.printer.to_text(small_cnn())), "not an ONNX file"),
    "cut at 10%": (cut(0.1), "cut short"),
    "cut at 99%": (cut(0.99), "cut short"),
    "no graph": (edited(lambda m: m.ClearField("graph")), "holds no graph"),
    "no nodes": (edited(lambda m: m.graph.ClearField("node")), "holds no graph"),
    "no opset": (edited(lambda m: m.ClearField("opset_import")), "opset_import"),
    "opset 0": (edited(opset(0)), "domain_version of 0"),
    "opset 7": (edited(opset(7)), "opset 7"),
    "opset 10": (edited(opset(10)), "opset 10"),
    "opset 999": (edited(opset(999)), "opset 999"),
    "IR version 0": (edited(set_field(lambda m: m, "ir_version", 0)), "ir_version"),
    "IR version 999": (edited(set_field(lambda m: m, "ir_version", 999)), "ir_version 999"),
    "unknown operator": (edited(set_field(node, "op_type", "Convolve")), "Convolve"),
    "unknown domain": (edited(unknown_domain), "cannot load"),
    "domain not imported": (edited(set_field(node, "domain", "other")), "'other'"),
    "recursive function": (edited(recursive), "recursive"),
    "dangling input": (edited(at(lambda m: node(m).input, 0, "nowhere")), "'nowhere'"),
    "dangling weight": (edited(at(lambda m: node(m).input, 1, "nowhere")), "'nowhere'"),
    "dangling output": (edited(set_field(lambda m: m.graph.output[0], "name", "none")), "'none'"),
    "no outputs": (edited(lambda m: m.graph.ClearField("output")), "has no outputs"),
    "no inputs": (edited(lambda m: m.graph.ClearField("input")), "'image'"),
    "a cycle": (edited(at(lambda m: m.graph.node[0].input, 0, "logits")), "'logits'"),
    "not sorted": (edited(lambda m: m.graph.node.reverse()), "sorted"),
    "a tensor written twice": (
        edited(at(lambda m: node(m).output, 0, "conv1.out")),
        "'conv1.out'",
    ),
    "a weight stored twice": (edited(duplicate_weight), "conv1.weight"),
    "an output without a name": (
        edited(set_field(lambda m: m.graph.output[0], "name", "")),
        "'name' of 'value_info'",
    ),
    "NaN in a weight": (edited(stored("conv2.weight", holding(np.nan))), "NaN"),
    "infinity in a weight": (edited(stored("conv2.weight", holding(np.inf))), "NaN or inf"),
    "NaN in a bias": (edited(stored("conv2.bias", holding(np.nan))), "NaN"),
    "NaN behind the convolutions": (edited(stored("fc.weight", holding(np.nan))), "NaN"),
    "a weight of another type": (
        edited(stored("conv2.weight", holding_type("f8"))),
        "different types",
    ),
    "a weight of whole numbers": (
        edited(stored("conv2.weight", holding_type("i4"))),
        "tensor(int32)",
    ),
    "a weight of no channels": (
        edited(stored("conv2.weight", lambda w: w[:0])),
        "sizes of at least 1",
    ),
    "a weight for other channels": (
        edited(stored("conv2.weight", lambda w: w[:, :-1])),
        "is for 47",
    ),
    "a bias for other channels": (edited(stored("conv2.bias", lambda b: b[:-1])), "(47,)"),
    "a bias of two dimensions": (edited(stored("conv2.bias", lambda b: b[None])), "(1, 48)"),
    "a weight cut short": (edited(raw(bytes(100))), "conv2.weight"),
    "a weight of no data": (edited(raw(b"")), "conv2.weight"),
    "input of size 0": (edited(size(2, 0)), "image:1x32x?x24"),
    "batch of size 0": (edited(size(0, 0)), "0x32x24x24"),
    "input of negative size": (edited(size(2, -3)), "1x32x-3x24"),
    "input smaller than the kernel": (edited(size(3, 1)), "[N, 32, 24, 1]"),
    "other channels": (edited(size(1, 7)), "reads 7 channels"),
    "open height": (edited(size(2, "height")), "open shape"),
    "input of unknown rank": (
        edited(lambda m: m.graph.input[0].type.tensor_type.ClearField("shape")),
        "'shape' of 'type' is required",
    ),
    "input of no type": (
        edited(lambda m: m.graph.input[0].ClearField("type")),
        "'type' of 'value_info'",
    ),
    "a sequence as input": (edited(sequence_input), "is no tensor"),
    "text as input": (edited(text_input), "image, t"),
    "stride 0": (edited(attribute("strides", [0, 1])), "must only contain positive"),
    "one stride": (edited(attribute("strides", [1])), "incorrect size"),
    "stride of text": (edited(attribute("strides", "2")), "strides"),
    "dilation 0": (edited(attribute("dilations", [0, 1])), "must only contain positive"),
    "three pads": (edited(attribute("pads", [1, 1, 1])), "incorrect size"),
    "pads that swallow the input": (edited(attribute("pads", [-20, 0, -20, 0])), "negative"),
    "group 0": (edited(attribute("group", 0)), "weight is for 0"),
    "group 5": (edited(attribute("group", 5)), "weight is for 240"),
    "another kernel_shape": (
        edited(attribute("kernel_shape", [5, 5])),
        "does not fit input shapes",
    ),
    "unknown auto_pad": (edited(attribute("auto_pad", "SOME")), "AutoPadType"),
    "unknown attribute": (edited(attribute("padding", 1)), "padding"),
    "external data missing": (external(lambda _, data: data.unlink()), MISSING),
    "external data a folder": (external(lambda _, data: folder_instead(data)), MISSING),
    "external data empty": (
        external(lambda _, data: data.write_bytes(b"")),
        "(0 bytes",
    ),
    "external data cut short": (
        external(lambda _, data: data.write_bytes(data.read_bytes()[:5000])),
        "(5000 bytes",
    ),
    "external data of NaN": (
        external(lambda _, data: data.write_bytes(b"\xff" * data.stat().st_size)),
        "NaN",
    ),
    "external data outside the folder": (
        located("location", "../weights.bin"),
        "outside the directory",
    ),
    "external data by an absolute path": (located("location", "/etc/hostname"), "absolute path"),
    "external data without a location": (located("location", ""), "should not be empty"),
    "external data at a negative offset": (located("offset", "-1"), "negative"),
    "external data at an offset beyond": (located("offset", "99999999999"), "exceeds file size"),
    "external data at an offset of text": (located("offset", "here"), "'here'"),
    "external data of another length": (located("length", "3"), "3 bytes of external data"),
    "external data of a huge length": (located("length", "9" * 30), "9" * 30),
}
