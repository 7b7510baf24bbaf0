"""config.pbtxt against what Triton's documentation of model configuration asks for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tdc_deploy.errors import TdcError
from tdc_deploy.serving.config import config_text, model_config, read_config
from tdc_deploy.serving.model import ServedModel, ServedTensor, read_served
from tdc_deploy.serving.options import ServingOptions
from tests.serving.conftest import IMAGE, MakeEngine

pytest.importorskip("tritonclient.grpc")


def config(model: ServedModel, files: dict[str, str] | None = None, **options: Any) -> Any:
    name = "model.plan" if model.is_engine else "model.onnx"
    return model_config("net", [model], ServingOptions(**options), files or {"": name}, None)


def onnx_model(*shape: Any, dtype: str = "float32") -> ServedModel:
    tensors = tuple(ServedTensor(name, dtype, shape) for name in ("x", "y"))
    return ServedModel(Path("m.onnx"), tensors[:1], tensors[1:])


MINIMAL = """name: "net"
platform: "onnxruntime_onnx"
max_batch_size: 8
input {
  name: "x"
  data_type: TYPE_FP32
  dims: 3
  dims: -1
}
output {
  name: "y"
  data_type: TYPE_FP32
  dims: 3
  dims: -1
}
instance_group {
  count: 1
}
dynamic_batching {
}
"""


def test_an_open_batch_is_no_dimension() -> None:
    assert config_text(config(onnx_model("N", 3, "width"))) == MINIMAL


def test_a_fixed_batch_is_a_dimension() -> None:
    made = config(onnx_model(2, 3))
    assert made.max_batch_size == 0
    assert list(made.input[0].dims) == [2, 3]
    assert not made.HasField("dynamic_batching")


def test_batching_and_instances() -> None:
    made = config(
        onnx_model("N", 3),
        max_batch=16,
        preferred=(4, 8),
        queue_delay_us=500,
        instances=2,
        device="gpu",
        gpus=(0, 1),
        threads=3,
    )
    assert list(made.dynamic_batching.preferred_batch_size) == [4, 8]
    assert made.dynamic_batching.max_queue_delay_microseconds == 500
    (group,) = made.instance_group
    assert (group.count, group.kind, list(group.gpus)) == (2, group.KIND_GPU, [0, 1])
    assert made.parameters["intra_op_thread_count"].string_value == "3"
    assert not config(onnx_model("N", 3), dynamic_batching=False).HasField("dynamic_batching")


def test_an_engine_with_graphs(engine: MakeEngine) -> None:
    made = config(read_served(engine()), {"8.0": "a.plan", "": "model.plan"}, cuda_graphs=True)
    assert made.platform == "tensorrt_plan"
    assert made.max_batch_size == 16
    assert made.optimization.cuda.graphs
    assert not made.optimization.cuda.graph_spec
    assert dict(made.cc_model_filenames) == {"8.0": "a.plan"}


def test_graphs_of_open_sizes_are_named(engine: MakeEngine) -> None:
    image = IMAGE | {"max": [16, 3, 64, 32]}
    made = config(read_served(engine(inputs=[image])), cuda_graphs=True, preferred=(8,))
    specs = made.optimization.cuda.graph_spec
    assert [spec.batch_size for spec in specs] == [1, 8, 16]
    assert all(list(spec.input["image"].dim) == [3, 32, 32] for spec in specs)


def test_warm_up_at_each_batch_that_matters() -> None:
    made = config(onnx_model("N", 3, "w"), warmup=True, preferred=(4,), shapes={"x": (1, 3, 7)})
    assert [(w.name, w.batch_size) for w in made.model_warmup] == [
        ("batch 1", 1),
        ("batch 4", 4),
        ("batch 8", 8),
    ]
    data = made.model_warmup[0].inputs["x"]
    assert data.data_type == made.input[0].data_type
    assert list(data.dims) == [3, 7]
    assert data.zero_data


def test_the_python_variant() -> None:
    made = model_config(
        "net",
        [onnx_model("N", 3)],
        ServingOptions(variant="python", threads=2),
        {"": "model.onnx"},
        "lib.so",
    )
    assert (made.backend, made.platform) == ("python", "")
    assert {key: value.string_value for key, value in made.parameters.items()} == {
        "artifact": "model.onnx",
        "threads": "2",
        "plugin": "lib.so",
    }
    (group,) = made.instance_group
    assert group.kind == group.KIND_CPU


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "int16", "int32", "int64", "uint64", "float16", "float64"]
)
def test_every_type_is_the_one_that_clients_call_it(dtype: str) -> None:
    from tritonclient.utils import np_to_triton_dtype

    made = config(onnx_model("N", 3, dtype=dtype))
    name = made.input[0].DESCRIPTOR.fields_by_name["data_type"].enum_type
    triton = np_to_triton_dtype(__import__("numpy").dtype(dtype))
    assert name.values_by_number[made.input[0].data_type].name == f"TYPE_{triton}"


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (onnx_model("N", 3, dtype="str"), {}, "'x' is str"),
        (onnx_model(), {}, "single number without dimensions"),
        (onnx_model("N", 3), {"preferred": (4, 16)}, "preferred batch sizes"),
        (onnx_model(1, 3), {"preferred": (1,)}, "preferred batch sizes"),
        (onnx_model(1, 3), {"queue_delay_us": 1}, "queue delay"),
        (onnx_model("N", 3), {"cuda_graphs": True}, "CUDA graphs"),
        (onnx_model("N", "w"), {"warmup": True}, "no size to warm up with"),
        (onnx_model("N", "w"), {"warmup": True, "shapes": {"x": (1,)}}, "of shape"),
        (onnx_model("N", 3), {"warmup": True, "shapes": {"x": (1, 4)}}, "of shape"),
        (onnx_model("N", 3), {"warmup": True, "shapes": {"z": (1, 3)}}, "no input"),
    ],
)
def test_what_cannot_be_served(model: ServedModel, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TdcError, match=message):
        config(model, **options)


def test_threads_are_onnx_runtimes(engine: MakeEngine) -> None:
    with pytest.raises(TdcError, match="threads"):
        config(read_served(engine()), threads=2)


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    made = config(onnx_model("N", 3), warmup=True, preferred=(4,))
    path.write_text(config_text(made))
    assert read_config(path) == made


@pytest.mark.parametrize("text", ["nonsense", "name: 3", "max_batch: 3", "\udcff"])
def test_what_triton_would_not_take_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(TdcError, match="no Triton configuration"):
        read_config(path)


def test_without_tritonclient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tritonclient.grpc.model_config_pb2", None)
    with pytest.raises(TdcError, match=r"tdc-deploy\[serve\]"):
        config(onnx_model("N", 3))
