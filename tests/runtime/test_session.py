from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import tdc_deploy
from tdc_deploy.errors import TdcError
from tdc_deploy.runtime.session import Session, load
from tests.builders import (
    IR_VERSION,
    OPSET,
    float_value,
    images,
    save_model,
    shifts,
    small_cnn,
)

ONE = (1, 32, 24, 24)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One input, one output, a batch of one."""
    return save_model(small_cnn(), tmp_path_factory.mktemp("one") / "one.onnx")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two inputs, two outputs, any batch."""
    model = small_cnn(batch="N", two_inputs=True, two_outputs=True)
    return save_model(model, tmp_path_factory.mktemp("two") / "two.onnx")


def call(session: Session, *arrays: Any, **named: Any) -> NDArray[Any]:
    """The output of a session of one output."""
    result = session(*arrays, **named)
    assert isinstance(result, np.ndarray)
    return result


def bare(path: Path, **feeds: Any) -> list[Any]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def node_model(folder: Path, op: str, dtype: int, name: str = "x") -> Path:
    """A model of one operator, [2] to [2]."""
    graph = helper.make_graph(
        [helper.make_node(op, [name], ["y"])],
        "one node",
        [helper.make_tensor_value_info(name, dtype, [2])],
        [helper.make_tensor_value_info("y", dtype, [2])],
    )
    opset = helper.make_opsetid("", OPSET)
    made = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    return save_model(made, folder / "node.onnx")


def test_positional_and_named_inputs_give_the_same(one: Path) -> None:
    image = images(1)
    (expected,) = bare(one, image=image)
    with load(one) as session:
        assert np.array_equal(call(session, image), expected)
        assert np.array_equal(call(session, image=image), expected)


def test_one_output_is_an_array(one: Path) -> None:
    with load(one) as session:
        result = session(images(1))
    assert isinstance(result, np.ndarray)
    assert result.shape == (1, 10)
    assert result.dtype == np.float32


def test_several_outputs_are_a_dict(two: Path) -> None:
    image, shift = images(3), shifts(3)
    logits, features = bare(two, image=image, shift=shift)
    with load(two) as session:
        for result in (
            session(image, shift),
            session(image, shift=shift),
            session(shift=shift, image=image),
        ):
            assert isinstance(result, dict)
            assert list(result) == ["logits", "features"]
            assert np.array_equal(result["logits"], logits)
            assert np.array_equal(result["features"], features)


def test_inputs_and_outputs_are_described(two: Path) -> None:
    with load(two) as session:
        assert [(i.name, i.dtype.name, i.shape) for i in session.inputs] == [
            ("image", "float32", ("N", 32, 24, 24)),
            ("shift", "float32", ("N", 48, 1, 1)),
        ]
        assert [(o.name, o.shape) for o in session.outputs] == [
            ("logits", ("N", 10)),
            ("features", ("N", 48)),
        ]


def test_names_that_python_would_not_allow(tmp_path: Path) -> None:
    path = node_model(tmp_path, "Neg", TensorProto.FLOAT, "input.1")
    x = np.array([1, 2], np.float32)
    with load(path) as session:
        assert np.array_equal(call(session, **{"input.1": x}), -x)


@pytest.mark.parametrize(
    ("dtype", "array"),
    [
        (TensorProto.INT64, np.array([1, -2])),
        (TensorProto.INT8, np.array([1, -2], np.int8)),
        (TensorProto.DOUBLE, np.array([1.5, -2])),
        (TensorProto.FLOAT16, np.array([1.5, -2], np.float16)),
        (TensorProto.BOOL, np.array([True, False])),
    ],
)
def test_other_types_than_float(tmp_path: Path, dtype: int, array: Any) -> None:
    with load(node_model(tmp_path, "Identity", dtype)) as session:
        result = session(array)
    assert isinstance(result, np.ndarray)
    assert np.array_equal(result, array)
    assert result.dtype == array.dtype


def test_strings_are_no_numbers(tmp_path: Path) -> None:
    with pytest.raises(TdcError, match="tensor"):
        load(node_model(tmp_path, "Identity", TensorProto.STRING))


def test_an_array_that_is_not_contiguous(one: Path) -> None:
    image = np.asfortranarray(images(1))
    (expected,) = bare(one, image=images(1))
    with load(one) as session:
        assert np.array_equal(call(session, image), expected)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint8])
def test_another_type(one: Path, dtype: Any) -> None:
    with load(one) as session, pytest.raises(TdcError, match="'image' is") as caught:
        session(images(1).astype(dtype))
    assert caught.value.expected == "float32"
    assert "astype(numpy.float32)" in caught.value.fix


@pytest.mark.parametrize(
    "shape", [(2, 32, 24, 24), (1, 32, 24, 25), (32, 24, 24), (1, 3, 24, 24), ()]
)
def test_another_shape(one: Path, shape: tuple[int, ...]) -> None:
    with load(one) as session, pytest.raises(TdcError, match="'image' has shape") as caught:
        session(np.zeros(shape, np.float32))
    assert caught.value.expected == str(ONE)


def test_an_open_size_takes_any_but_the_others_do_not(two: Path) -> None:
    with load(two) as session:
        for batch in (1, 5):
            result = session(images(batch), shifts(batch))
            assert isinstance(result, dict)
            assert result["logits"].shape == (batch, 10)
        with pytest.raises(TdcError, match="'shift' has shape"):
            session(images(2), shifts(2)[:, :7])


def test_an_open_size_is_one_size(two: Path) -> None:
    # Both first dimensions are called N.
    with load(two) as session, pytest.raises(TdcError, match="shift"):
        session(images(2), shifts(3))


@pytest.mark.parametrize("value", [[[1.0, 2.0]], 3.0, None, "image"])
def test_what_is_no_array(one: Path, value: Any) -> None:
    with load(one) as session, pytest.raises(TdcError, match="'image' is") as caught:
        session(value)
    assert "array" in caught.value.expected


def test_an_unknown_name(one: Path) -> None:
    with load(one) as session, pytest.raises(TdcError, match="'picture' is no input") as caught:
        session(picture=images(1))
    assert caught.value.expected == "image"


def test_an_input_given_twice(one: Path) -> None:
    with load(one) as session, pytest.raises(TdcError, match="'image' is given twice"):
        session(images(1), image=images(1))


def test_too_many_inputs(one: Path) -> None:
    with load(one) as session, pytest.raises(TdcError, match="2 inputs"):
        session(images(1), images(1))


def test_missing_inputs(two: Path) -> None:
    with load(two) as session:
        with pytest.raises(TdcError, match="no input shift"):
            session(images(1))
        with pytest.raises(TdcError, match="no input image"):
            session(shift=shifts(1))
        with pytest.raises(TdcError, match="no input image, shift"):
            session()


def test_a_closed_session(one: Path) -> None:
    session = load(one)
    session.close()
    with pytest.raises(TdcError, match="closed"):
        session(images(1))
    session.close()  # once more does no harm
    with load(one) as used:
        pass
    with pytest.raises(TdcError, match="closed"):
        used(images(1))


def test_a_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(TdcError, match="no artifact at"):
            load(path)


@pytest.mark.parametrize("content", [b"", b"not a model" * 9])
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(TdcError, match=r"cannot load .*bad\.onnx"):
        load(tmp_path / "bad.onnx")


def test_an_operator_that_onnxruntime_does_not_know(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Mystery", ["x"], ["y"], domain="elsewhere")],
        "mystery",
        [float_value("x", [2])],
        [float_value("y", [2])],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("elsewhere", 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    (tmp_path / "mystery.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(TdcError, match="cannot load"):
        load(tmp_path / "mystery.onnx")


def test_a_path_may_be_text(one: Path) -> None:
    with tdc_deploy.load(str(one)) as session:
        assert isinstance(session, Session)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_is_passed_on(one: Path, threads: int) -> None:
    (expected,) = bare(one, image=images(1))
    with load(one, threads=threads) as session:
        # Threads split the sums differently: rounding of float32 values of size 10.
        assert np.abs(session(images(1)) - expected).max() <= 1e-4


def test_a_negative_number_of_threads(one: Path) -> None:
    with pytest.raises(TdcError, match="threads"):
        load(one, threads=-1)


def test_calls_from_several_threads(two: Path) -> None:
    image, shift = images(40), shifts(40)
    with load(two, threads=1) as session:

        def run(i: int) -> Any:
            result = session(image[i : i + 1], shift=shift[i : i + 1])
            assert isinstance(result, dict)
            return result["logits"]

        alone = [run(i) for i in range(40)]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(run, range(40)))
    for first, second in zip(alone, together, strict=True):
        assert np.array_equal(first, second)
    # The samples have different outputs, so that mixed-up calls would show.
    assert np.abs(np.diff(np.concatenate(alone), axis=0)).max(1).min() >= 1e-2


def test_the_builders_models_are_valid(one: Path, two: Path) -> None:
    for path in (one, two):
        onnx.checker.check_model(str(path), full_check=True)
