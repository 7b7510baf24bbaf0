"""What a session on ONNX Runtime does with other libraries' arrays, buffers, threads and event loops."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tdc_deploy.errors import TdcError
from tdc_deploy.runtime.session import Session, load
from tests.builders import IR_VERSION, OPSET, images, save_model, shifts, small_cnn
from tests.runtime.engines import eventually


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two inputs, two outputs, any batch."""
    model = small_cnn(batch="N", two_inputs=True, two_outputs=True)
    return save_model(model, tmp_path_factory.mktemp("two") / "two.onnx")


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = x + x for any number of rows of 3."""
    return save_node("Add", ["x", "x"], tmp_path_factory.mktemp("double") / "double.onnx")


def save_node(op: str, inputs: list[str], path: Path) -> Path:
    """A model of one operator of which only the last dimension is known, input x, output y."""
    shape: list[Any] = ["N", 3]
    value = helper.make_tensor_value_info
    initializers = [helper.make_tensor("shape", TensorProto.INT64, [2], [2, 6])]
    graph = helper.make_graph(
        [helper.make_node(op, inputs, ["y"])],
        op,
        [value("x", TensorProto.FLOAT, shape)],
        [value("y", TensorProto.FLOAT, [None, None])],
        initializers if "shape" in inputs else [],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return save_model(helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION), path)


def rows(count: int, first: float = 0) -> NDArray[np.float32]:
    return np.arange(first, first + 3 * count, dtype=np.float32).reshape(count, 3)


def test_a_dict_of_inputs(two: Path) -> None:
    image, shift = images(2), shifts(2)
    with load(two) as session:
        expected = session(image, shift)["logits"]
        for result in (
            session({"shift": shift, "image": image}),
            session({"shift": shift}, image=image),
        ):
            assert np.array_equal(result["logits"], expected)
        with pytest.raises(TdcError, match="'image' is given twice"):
            session({"image": image, "shift": shift}, image=image)
        with pytest.raises(TdcError, match="'picture' is no input"):
            session({"picture": image})


def test_inputs_called_as_the_keywords(tmp_path: Path) -> None:
    for name in ("out", "stream"):
        model = onnx.load(str(save_node("Neg", ["x"], tmp_path / "neg.onnx")))
        model.graph.input[0].name = model.graph.node[0].input[0] = name
        with load(save_model(model, tmp_path / "named.onnx")) as session:
            assert np.array_equal(session({name: rows(2)}), -rows(2))


def test_a_buffer_is_written_and_returned(double: Path) -> None:
    with load(double) as session:
        mine = np.full((2, 3), np.nan, np.float32)
        assert session(rows(2), out=mine) is mine
        assert np.array_equal(mine, 2 * rows(2))
        fresh = session(rows(2))
        assert not np.shares_memory(fresh, mine)
        session(rows(2, first=9), out=mine)
        assert np.array_equal(fresh, 2 * rows(2))
        assert np.array_equal(mine, 2 * rows(2, first=9))


def test_some_buffers_of_several(two: Path) -> None:
    image, shift = images(3), shifts(3)
    with load(two) as session:
        expected = session(image, shift)
        features = np.empty((3, 48), np.float32)
        result = session(image, shift, out={"features": features})
        assert result["features"] is features
        assert list(result) == list(expected)
        for name in expected:
            assert np.array_equal(result[name], expected[name])


def test_an_input_with_gaps_and_a_buffer(double: Path) -> None:
    with load(double) as session:
        mine = np.empty((2, 3), np.float32)
        session(rows(4)[::2], out=mine)
        assert np.array_equal(mine, 2 * rows(4)[::2])


def test_buffers_that_do_not_fit(double: Path) -> None:
    with load(double) as session:
        x = rows(2)
        for out, message in (
            (np.empty((2, 3)), "'y' is float64"),
            (np.empty(6, np.float32), r"'y' has shape \(6,\)"),
            (np.empty((2, 4), np.float32), r"'y' has shape \(2, 4\)"),
            # Only ONNX Runtime knows how many rows there are.
            (np.empty((1, 3), np.float32), "cannot be run"),
            (np.empty((3, 3), np.float32), "cannot be run"),
            (np.empty((3, 2), np.float32).T, "not contiguous"),
            (x, "overlaps the memory of 'x'"),
            (x[:, :].view(), "overlaps"),
            ([x, x], "2 output buffers"),
            ("y", "'y' is str"),
        ):
            with pytest.raises(TdcError, match=message):
                session(x, out=out)
        assert np.array_equal(x, rows(2))


def test_a_stream_is_for_gpus(double: Path) -> None:
    with load(double) as session, pytest.raises(TdcError, match="CUDA stream"):
        session(rows(1), stream=7)


def test_a_shape_that_only_an_operator_inside_refuses(tmp_path: Path) -> None:
    path = save_node("Reshape", ["x", "shape"], tmp_path / "reshape.onnx")
    with load(path) as session:
        assert session(rows(4)).shape == (2, 6)
        for out in (None, np.empty((2, 6), np.float32)):
            with pytest.raises(TdcError, match=r"cannot be run on these inputs.*Reshape"):
                session(rows(5), out=out)


def test_torch_tensors_in_and_out(double: Path) -> None:
    torch = pytest.importorskip("torch")
    x = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    y = torch.empty(2, 3)
    with load(double) as session:
        assert np.array_equal(session(x), 2 * x.numpy())
        assert session(x=x.clone().requires_grad_(), out=y) is y
        assert torch.equal(y, 2 * x)
        assert np.array_equal(session(x.T.contiguous().T), 2 * x.numpy())
        with pytest.raises(TdcError, match="float64"):
            session(x.double())
        with pytest.raises(TdcError, match="overlaps"):
            session(x, out=x)


def test_onnxruntime_reads_a_torch_tensor_where_it_is(tmp_path: Path) -> None:
    """Seen from outside: what arrives at the session's `run` is the tensor's own memory."""
    torch = pytest.importorskip("torch")
    x = torch.ones(2, 3)
    seen: list[int] = []
    with load(save_node("Neg", ["x"], tmp_path / "neg.onnx")) as session:
        inner = session._session  # type: ignore[attr-defined]

        class Watching:
            def run(self, names: Any, feeds: dict[str, NDArray[Any]]) -> Any:
                seen.append(feeds["x"].__array_interface__["data"][0])
                return inner.run(names, feeds)

        session._session = Watching()  # type: ignore[attr-defined]
        session(x)
    assert seen == [x.data_ptr()]


def test_eight_threads_get_what_one_gets(two: Path) -> None:
    image, shift = images(40), shifts(40)
    with load(two, threads=1) as session:

        def run(i: int) -> Any:
            buffer = np.empty((1, 10), np.float32)
            out = {"logits": buffer} if i % 2 else None
            k = i % 40
            result = session(image[k : k + 1], shift=shift[k : k + 1], out=out)
            return result["logits"]

        alone = [run(i) for i in range(40)]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(run, range(400)))
    for i, result in enumerate(together):
        assert np.array_equal(result, alone[i % 40])


def test_submitted_calls(double: Path) -> None:
    with load(double) as session:
        futures = [session.submit(rows(2, first=i)) for i in range(20)]
        for i, future in enumerate(futures):
            assert np.array_equal(future.result(10), 2 * rows(2, first=i))
        mine = np.empty((1, 3), np.float32)
        assert session.submit(x=rows(1), out=mine).result(10) is mine
        wrong = session.submit(rows(1).astype(np.float64))
        with pytest.raises(TdcError, match="float64"):
            wrong.result(10)


def test_an_event_loop(double: Path) -> None:
    async def several(session: Session) -> list[Any]:
        return await asyncio.gather(*(session.run_async(rows(1, first=i)) for i in range(10)))

    async def wrong(session: Session) -> None:
        await session.run_async(y=rows(1))

    with load(double) as session:
        for i, result in enumerate(asyncio.run(several(session))):
            assert np.array_equal(result, 2 * rows(1, first=i))
        with pytest.raises(TdcError, match="'y' is no input"):
            asyncio.run(wrong(session))


def test_every_way_to_call_a_closed_session(double: Path) -> None:
    session = load(double)
    session.submit(rows(1)).result(10)
    session.close()
    session.close()
    with pytest.raises(TdcError, match="closed"):
        session(rows(1))
    with pytest.raises(TdcError, match="closed"):
        session.submit(rows(1))
    with pytest.raises(TdcError, match="closed"):
        asyncio.run(session.run_async(rows(1)))


class Slow(Session):
    """A session whose calls wait for `go`."""

    def __init__(self) -> None:
        super().__init__([], [], 1)
        self.go = threading.Event()
        self.started = threading.Event()
        self.released_after: list[str] = []

    def _run(self, feeds: dict[str, Any], out: Any, stream: Any) -> Any:
        del feeds, out, stream
        self.started.set()
        assert self.go.wait(10)
        self.released_after.append("run")
        return "done"

    def _release(self) -> None:
        self.released_after.append("release")


def test_closing_waits_for_what_runs_and_cancels_what_does_not() -> None:
    session = Slow()
    running, waiting = session.submit(), session.submit()
    assert session.started.wait(10)
    with ThreadPoolExecutor(1) as thread:
        closing = thread.submit(session.close)
        with pytest.raises(CancelledError):
            waiting.result(10)
        assert not closing.done()
        session.go.set()
        closing.result(10)
    assert running.result(0) == "done"
    assert session.released_after == ["run", "release"]


def test_a_dropped_session_is_collected(double: Path) -> None:
    session = load(double)
    session.submit(rows(1)).result(10)
    model = weakref.ref(session._session)  # type: ignore[attr-defined]
    gone = weakref.ref(session)
    del session
    gc.collect()
    # The thread that ran it may hold its last call a moment longer.
    assert eventually(lambda: gone() is None and model() is None)


def test_an_output_outlives_its_session(double: Path) -> None:
    with load(double) as session:
        result = session(rows(2))
    del session
    gc.collect()
    assert np.array_equal(result, 2 * rows(2))


def test_a_concurrency_of_none(double: Path) -> None:
    with pytest.raises(TdcError, match="concurrency is 0"):
        load(double, concurrency=0)
