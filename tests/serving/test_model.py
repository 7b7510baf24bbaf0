"""What is read from artifacts: from ONNX itself, from an engine's sidecar."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.serving.batching import max_batch_size
from tdc_deploy.serving.model import ServedModel, ServedTensor, read_served
from tdc_deploy.sidecar import sidecar_path
from tests.builders import save_model, small_cnn
from tests.serving.conftest import IMAGE, MakeEngine

BACKEND = {"backend": "tensorrt", "version": "10.9.0.34", "compute_capability": "9.0"}


def test_onnx_says_itself_what_it_takes(tmp_path: Path) -> None:
    model = small_cnn(batch="N", two_inputs=True, two_outputs=True)
    # As old exporters do: weights are inputs too.
    model.graph.input.append(
        onnx.helper.make_tensor_value_info("fc.bias", onnx.TensorProto.FLOAT, [10])
    )
    served = read_served(save_model(model, tmp_path / "m.onnx"))
    assert served.inputs == (
        ServedTensor("image", "float32", ("N", 32, 24, 24)),
        ServedTensor("shift", "float32", ("N", 48, 1, 1)),
    )
    assert [t.name for t in served.outputs] == ["logits", "features"]
    assert not served.is_engine
    assert served.plugin is None
    assert served.tensorrt is None


def test_an_engines_sidecar_says_it(engine: MakeEngine) -> None:
    served = read_served(engine(plugin={"name": "TuckerConv"}))
    (image,) = served.inputs
    assert (image.name, image.dtype, image.shape) == ("image", "float32", (None, 3, 32, 32))
    assert image.least == (1, 3, 32, 32)
    assert image.usual == (4, 3, 32, 32)
    assert image.most == (16, 3, 32, 32)
    assert served.is_engine
    assert served.tensorrt == "10.9.0.34"
    assert served.plugin == {"name": "TuckerConv"}


def test_external_weights_belong_to_the_model(tmp_path: Path) -> None:
    path = tmp_path / "big.onnx"
    onnx.save(
        small_cnn(), str(path), save_as_external_data=True, location="big.bin", size_threshold=0
    )
    assert read_served(path).weights == (tmp_path / "big.bin",)


@pytest.mark.parametrize(
    ("changes", "capability"),
    [
        ({}, None),
        ({"backend": BACKEND}, "9.0"),
        ({"backend": BACKEND, "engine": {"hardware_compatibility_level": "none"}}, "9.0"),
        ({"backend": BACKEND, "engine": {"hardware_compatibility_level": "ampere_plus"}}, None),
        (
            {
                "backend": BACKEND,
                "engine": {"hardware_compatibility_level": "same_compute_capability"},
            },
            "9.0",
        ),
    ],
)
def test_the_gpu_that_an_engine_is_bound_to(
    engine: MakeEngine, changes: dict[str, Any], capability: str | None
) -> None:
    assert read_served(engine(**changes)).capability == capability


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": None},
        {"inputs": [{"name": "image"}]},
        {"inputs": [IMAGE | {"dtype": "float33"}]},
        {"inputs": [IMAGE | {"max": None}]},
        {"inputs": [IMAGE | {"max": [16, 3]}]},
        {"outputs": [3]},
        {"backend": {}},
    ],
)
def test_a_sidecar_that_does_not_say_it(engine: MakeEngine, changes: dict[str, Any]) -> None:
    with pytest.raises(TdcError, match="does not say what the engine takes"):
        read_served(engine(**changes))


def test_an_engine_without_sidecar_or_with_anothers(engine: MakeEngine) -> None:
    path = engine()
    path.write_bytes(b"built again")
    with pytest.raises(TdcError, match="belongs to another file"):
        read_served(path)
    sidecar_path(path).unlink()
    with pytest.raises(TdcError, match="has no sidecar"):
        read_served(path)


@pytest.mark.parametrize("name", ["model.pt", "model", "none.onnx", "none.engine"])
def test_no_artifact(tmp_path: Path, name: str) -> None:
    with pytest.raises(TdcError, match="no artifact"):
        read_served(tmp_path / name)


def test_an_input_that_is_no_tensor(tmp_path: Path) -> None:
    sequence = onnx.helper.make_tensor_sequence_value_info("s", onnx.TensorProto.FLOAT, [1])
    model = small_cnn()
    model.graph.input.append(sequence)
    with pytest.raises(TdcError, match=r"'s' of .* is no tensor"):
        read_served(save_model(model, tmp_path / "m.onnx"))


def tensor(*shape: Any, **ranges: Any) -> ServedTensor:
    return ServedTensor("x", "float32", shape, **ranges)


def served(inputs: list[ServedTensor], output: ServedTensor) -> ServedModel:
    return ServedModel(Path("m.onnx"), tuple(inputs), (output,))


RANGE = {"least": (1, 3), "usual": (2, 3), "most": (16, 3)}


@pytest.mark.parametrize(
    ("inputs", "output", "wanted", "size"),
    [
        ([tensor("N", 3)], tensor("M", 10), None, 8),
        ([tensor("N", 3)], tensor("M", 10), 32, 32),
        ([tensor("N", 3)], tensor("M", 10), 0, 0),
        ([tensor(None, 3, **RANGE)], tensor(None, 10), None, 16),
        ([tensor(None, 3, **RANGE)], tensor(None, 10), 16, 16),
        ([tensor(None, 3, **{**RANGE, "least": (2, 3)})], tensor(None, 10), None, 0),
        ([tensor(1, 3)], tensor(1, 10), None, 0),
        ([tensor("N", 3)], tensor(1, 10), None, 0),
        ([tensor("N", 3), tensor("M", 3)], tensor("N", 10), None, 0),
        ([tensor("N", 3), tensor(5)], tensor("N", 10), None, 0),
        ([tensor("N", 3)], tensor(), None, 0),
    ],
)
def test_the_largest_batch(
    inputs: list[ServedTensor], output: ServedTensor, wanted: int | None, size: int
) -> None:
    assert max_batch_size([served(inputs, output)], wanted) == size


def test_the_largest_batch_of_several_engines_is_the_least() -> None:
    models = [
        served([tensor(None, 3, **{**RANGE, "most": (most, 3)})], tensor(None, 10))
        for most in (16, 4)
    ]
    assert max_batch_size(models, None) == 4
    with pytest.raises(TdcError, match="max_batch is 5"):
        max_batch_size(models, 5)


def test_a_fixed_batch_cannot_be_made_larger() -> None:
    with pytest.raises(TdcError, match="one fixed batch"):
        max_batch_size([served([tensor(1, 3)], tensor(1, 10))], 2)
