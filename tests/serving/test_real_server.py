"""Repositories that this package writes, in a real tritonserver; see triton_server.py for its limits."""

from __future__ import annotations

import functools
import json
import queue
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import tdc_deploy
from tdc_deploy.serving.options import ServingOptions
from tdc_deploy.serving.repository import add_model
from tests.builders import IR_VERSION, OPSET, images, save_model, shifts, small_cnn
from tests.serving.conftest import MakeEngine
from tests.serving.triton_server import ROOT, TritonServer

grpc = pytest.importorskip("tritonclient.grpc")
http = pytest.importorskip("tritonclient.http")

Array = NDArray[Any]
CLIENTS = {"http": http, "grpc": grpc}
VARIANTS = ("native", "python")
ONE_THREAD = 1  # as in the Session that outputs are compared with
DIGITS = ROOT / "train" / "demo" / "digits.onnx"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("triton")


@pytest.fixture(scope="module")
def repository(folder: Path) -> Path:
    """The demo's network, one of two inputs and outputs and one of bare numbers, in both variants."""
    two = small_cnn(batch="N", two_inputs=True, two_outputs=True)
    paths = {
        "digits": DIGITS,
        "two": save_model(two, folder / "two.onnx"),
        "fixed": save_model(small_cnn(batch=2), folder / "fixed.onnx"),
        "numbers": save_model(batch_of_numbers(), folder / "numbers.onnx"),
    }
    for variant in VARIANTS:
        for name, path in paths.items():
            batched = name in ("digits", "two", "numbers")
            options = ServingOptions(
                variant=variant,  # type: ignore[arg-type]
                queue_delay_us=2000 if batched else 0,
                threads=ONE_THREAD,
                warmup=True,
            )
            add_model(path, folder / "models", f"{name}_{variant}", options=options)
    return folder / "models"


@pytest.fixture(scope="module")
def server(folder: Path, repository: Path) -> Iterator[TritonServer]:
    started = TritonServer(repository, folder)
    yield started
    started.stop()


@pytest.fixture
def loaded(server: TritonServer) -> Callable[[str], str]:
    """loaded("name") loads the model once, and gives its name."""

    def load(name: str) -> str:
        if not CLIENTS["http"].InferenceServerClient(server.http).is_model_ready(name):
            assert server.load(name) == "", server.log.read_text()[-3000:]
        return name

    return load


def batch_of_numbers() -> Any:
    """x + x, of shape [batch]."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", [x], [y])
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )


def client(server: TritonServer, protocol: str) -> Any:
    address = server.http if protocol == "http" else server.grpc
    return CLIENTS[protocol].InferenceServerClient(address)


def infer(server: TritonServer, protocol: str, name: str, **arrays: Array) -> dict[str, Array]:
    """One request; its outputs by name."""
    with client(server, protocol) as connection:
        return ask(connection, protocol, name, arrays)


def ask(connection: Any, protocol: str, name: str, arrays: dict[str, Array]) -> dict[str, Array]:
    types = {"float32": "FP32", "float64": "FP64"}
    inputs = []
    for key, array in arrays.items():
        tensor = CLIENTS[protocol].InferInput(key, list(array.shape), types[array.dtype.name])
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    result = connection.infer(name, inputs)
    response = result.get_response()
    outputs = response["outputs"] if protocol == "http" else response.outputs
    names = [output["name"] if protocol == "http" else output.name for output in outputs]
    return {key: result.as_numpy(key) for key in names}


def expected(path: Path, **arrays: Array) -> dict[str, Array]:
    with tdc_deploy.load(path, threads=ONE_THREAD) as session:
        result = session(**arrays)
        return result if isinstance(result, dict) else {session.outputs[0].name: result}


def same(got: dict[str, Array], wanted: dict[str, Array]) -> bool:
    return got.keys() == wanted.keys() and all(
        got[key].dtype == value.dtype and np.array_equal(got[key], value)
        for key, value in wanted.items()
    )


def digits(count: int, seed: int = 0) -> Array:
    with np.load(ROOT / "train" / "demo" / "heldout.npz") as heldout:
        pixels = heldout["image"]
    return np.asarray(pixels[np.random.default_rng(seed).choice(len(pixels), count)], np.float32)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_server_says_what_the_model_takes(
    server: TritonServer, loaded: Callable[[str], str], variant: str
) -> None:
    with client(server, "http") as connection:
        found = connection.get_model_metadata(loaded(f"digits_{variant}"))
        assert connection.get_model_config(f"digits_{variant}")["max_batch_size"] == 8
    assert found["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 32, 32]}]
    assert found["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("protocol", CLIENTS)
def test_outputs_are_our_sessions_bit_for_bit(
    server: TritonServer, loaded: Callable[[str], str], variant: str, protocol: str, folder: Path
) -> None:
    for count in (1, 3):
        image = digits(count)
        got = infer(server, protocol, loaded(f"digits_{variant}"), image=image)
        assert same(got, expected(DIGITS, image=image))
    arrays = {"image": images(2), "shift": shifts(2)}
    got = infer(server, protocol, loaded(f"two_{variant}"), **arrays)
    assert same(got, expected(folder / "two.onnx", **arrays))
    got = infer(server, protocol, loaded(f"fixed_{variant}"), image=images(2))
    assert same(got, expected(folder / "fixed.onnx", image=images(2)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_of_bare_numbers(
    server: TritonServer, loaded: Callable[[str], str], variant: str
) -> None:
    x = np.array([[3], [4]], np.float32)
    got = infer(server, "grpc", loaded(f"numbers_{variant}"), x=x)
    np.testing.assert_array_equal(got["y"], [[6], [8]])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("protocol", CLIENTS)
def test_32_at_once(
    server: TritonServer, loaded: Callable[[str], str], variant: str, protocol: str
) -> None:
    name = loaded(f"digits_{variant}")
    inputs = [digits(1, seed) for seed in range(32)]
    with ThreadPoolExecutor(32) as threads:
        got = list(threads.map(lambda x: infer(server, protocol, name, image=x), inputs))
    for image, result in zip(inputs, got, strict=True):
        check_answer(result, expected(DIGITS, image=image), variant)


def test_the_python_variant_runs_what_triton_batched_at_once(
    server: TritonServer, loaded: Callable[[str], str]
) -> None:
    name = loaded("digits_python")
    inputs = [digits(1 + seed % 2, seed) for seed in range(32)]
    with client(server, "grpc") as connection:
        before = counts(connection, name)
        answers: queue.Queue[tuple[int, Any, Any]] = queue.Queue()
        for i, image in enumerate(inputs):
            tensor = grpc.InferInput("image", list(image.shape), "FP32")
            tensor.set_data_from_numpy(image)
            connection.async_infer(name, [tensor], functools.partial(put, answers, i))
        for _ in inputs:
            i, result, error = answers.get(timeout=30)
            assert error is None
            got = {"logits": result.as_numpy("logits")}
            check_answer(got, expected(DIGITS, image=inputs[i]), "python")
        inferences, executions = np.subtract(counts(connection, name), before)
    assert inferences == sum(map(len, inputs))
    assert executions < 32


def put(answers: Any, i: int, result: Any, error: Any) -> None:
    answers.put((i, result, error))


def counts(connection: Any, name: str) -> tuple[int, int]:
    """Inferences, and executions of the model, which may hold several."""
    (found,) = connection.get_inference_statistics(name).model_stats
    return found.inference_count, found.execution_count


def check_answer(got: dict[str, Array], wanted: dict[str, Array], variant: str) -> None:
    """The same bits; but where the Python variant ran several requests as one batch, ONNX Runtime adds in
    another order: then within 1e-5 of the largest logit, some 80 units in the last place of float32.
    """
    if variant == "native":
        assert same(got, wanted)
        return
    difference = np.abs(got["logits"] - wanted["logits"]).max()
    assert difference <= 1e-5 * np.abs(wanted["logits"]).max()


@pytest.mark.parametrize("protocol", CLIENTS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": np.zeros((1, 1, 31, 32), np.float32)}, "unexpected shape"),
        ({"image": np.zeros((1, 32, 32), np.float32)}, "unexpected shape"),
        ({"image": np.zeros((9, 1, 32, 32), np.float32)}, "batch-size must be <= 8"),
        ({"image": np.zeros((1, 1, 32, 32), np.float64)}, "TYPE_FP32|data-type|data type"),
        ({"picture": np.zeros((1, 1, 32, 32), np.float32)}, "picture"),
        ({}, "expected 1 inputs but got 0|inputs"),
    ],
    ids=["size", "rank", "batch", "type", "name", "none"],
)
def test_a_wrong_request_is_an_error_and_the_next_one_is_answered(
    server: TritonServer,
    loaded: Callable[[str], str],
    protocol: str,
    variant: str,
    arrays: dict[str, Array],
    message: str,
) -> None:
    name = loaded(f"digits_{variant}")
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match=message):
        infer(server, protocol, name, **arrays)
    image = digits(1)
    assert same(infer(server, protocol, name, image=image), expected(DIGITS, image=image))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_new_version_is_served_and_the_old_one_stays(
    server: TritonServer, variant: str, folder: Path, repository: Path
) -> None:
    options = ServingOptions(variant=variant, threads=ONE_THREAD)  # type: ignore[arg-type]
    name = f"versions_{variant}"
    paths = [
        save_model(small_cnn(batch="N", seed=seed), folder / f"v{seed}.onnx") for seed in range(2)
    ]
    for path in paths:
        add_model(path, repository, name, options=options)
        assert server.load(name) == ""
        got = infer(server, "grpc", name, image=images(1))
        assert same(got, expected(path, image=images(1)))
    first = repository / name / "1" / "model.onnx"
    assert first.read_bytes() == paths[0].read_bytes()


def test_the_server_takes_a_configuration_for_tensorrt(engine: MakeEngine, tmp_path: Path) -> None:
    """No engine and no plugin is loaded here: the stand-in answers with zeros."""
    library = tmp_path / "libtdc_plugins_trt10.so"
    library.write_bytes(b"a library")
    plugin = {"name": "TuckerConv"}
    engines = {cc: engine(f"{cc}.engine", plugin=plugin) for cc in ("8.0", "9.0")}
    options = ServingOptions(
        preferred=(4, 8), queue_delay_us=100, instances=2, warmup=True, cuda_graphs=True
    )
    models = tmp_path / "models"
    added = add_model(None, models, "net", engines=engines, options=options, plugin=library)
    started = TritonServer(models, tmp_path, script=added.script)
    try:
        assert started.load("net") == "", started.log.read_text()[-3000:]
        got = infer(started, "grpc", "net", image=np.zeros((3, 3, 32, 32), np.float32))
        assert got["logits"].shape == (3, 10)
        with client(started, "http") as connection:
            config = connection.get_model_config("net")
        command = started.command()
    finally:
        started.stop()
    assert config["optimization"]["cuda"]["graphs"]
    assert config["dynamic_batching"]["preferred_batch_size"] == [4, 8]
    assert config["cc_model_filenames"] == {"8.0": "model_8.0.plan", "9.0": "model_9.0.plan"}
    assert f"--backend-config=tensorrt,plugins={models / library.name}" in command


def test_a_configuration_that_does_not_fit_the_model_is_seen_by_the_stand_in(
    server: TritonServer, repository: Path
) -> None:
    """Else the tests above would say nothing of names, types and dims."""
    shutil.copytree(repository / "digits_native", repository / "wrong")
    config = repository / "wrong" / "config.pbtxt"
    text = config.read_text().replace("digits_native", "wrong")
    config.write_text(text.replace("dims: 10", "dims: 11"))
    assert "logits" in server.load("wrong")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("requests", [600, pytest.param(10_000, marks=pytest.mark.slow)])
def test_memory_stays_flat_over_many_requests(
    server: TritonServer, loaded: Callable[[str], str], variant: str, requests: int
) -> None:
    name = loaded(f"digits_{variant}")
    inputs = digits(8)
    wanted = [expected(DIGITS, image=inputs[i : i + 1]) for i in range(8)]
    soak(server, name, inputs, wanted, requests // 3, variant)
    before = server.memory()
    soak(server, name, inputs, wanted, requests - requests // 3, variant)
    # A leak of one input of 4 kB per request would be over it in the long run.
    assert server.memory() - before <= 8e6


def soak(
    server: TritonServer,
    name: str,
    inputs: Array,
    wanted: list[dict[str, Array]],
    requests: int,
    variant: str,
) -> None:
    """Many requests from four clients; every answer is checked."""

    def some(worker: int) -> None:
        with client(server, "grpc") as connection:
            for i in range(worker, requests, 4):
                got = ask(connection, "grpc", name, {"image": inputs[i % 8 : i % 8 + 1]})
                check_answer(got, wanted[i % 8], variant)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(some, range(4)))


def test_the_record_says_what_is_served(repository: Path) -> None:
    record = json.loads((repository / "digits_native" / "1" / "tdc-deploy.json").read_text())
    assert record["tdc_deploy"] == tdc_deploy.__version__
