from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from tdc_calibration import Calibration, calibrate, read_calibration, write_calibration
from tdc_calibration.moments.positive import settle

from tdc_deploy.errors import TdcError
from tdc_deploy.source import read_source
from tests.calibration.test_moments import explicit
from tests.helpers import Net

Array = NDArray[Any]


def network(channels: int = 3, batch: int | str = 4) -> onnx.ModelProto:
    """Two stages with a shortcut, a grouped convolution, and ten classes."""
    net = Net(channels, (12, 10), batch=batch)
    a = net.relu(net.conv("x", 6, (3, 3), name="first", pads=(1, 1, 1, 1), bias=True), "r1")
    b = net.conv(a, 8, (3, 3), name="down", strides=(2, 2), pads=(1, 1, 1, 1))
    c = net.conv(a, 8, (1, 1), name="short", strides=(2, 2))
    d = net.conv(a, 8, (1, 1), name="also", strides=(2, 2))
    e = net.relu(net.add(net.add(b, c, "sum"), d, "sum2"), "r2")
    f = net.relu(net.conv(e, 8, (3, 3), name="grouped", group=2, pads=(1, 1, 1, 1)), "r3")
    g = net.conv(f, 10, (5, 3), name="last", pads=(2, 1, 2, 1))
    pooled = net.node("GlobalAveragePool", [g], "pool", (10, 1, 1))
    return net.model(net.node("Flatten", [pooled], "flat"))


def save(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, str(path))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(network(), tmp_path / "model.onnx")


def images(count: int = 10, channels: int = 3) -> Array:
    return np.random.default_rng(1).standard_normal((count, channels, 12, 10), np.float32)


def tensors(model: Path, x: Array, *names: str) -> dict[str, Array]:
    """What tensors hold, from ONNX Runtime at a batch of one."""
    proto = onnx.load(str(model))
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = len(x)
    proto.graph.ClearField("value_info")
    del proto.graph.output[:]
    for name in names:
        proto.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    return dict(zip(names, session.run(None, {"x": x}), strict=True))


def check_moments(found: Calibration, model: Path, x: Array, tolerance: float = 1e-6) -> None:
    source = read_source(model)
    assert set(found.moments) == set(source.plannable) == {"first", "down", "short", "also", "last"}
    for name, layer in source.plannable.items():
        tensor = source.convs[name].node.inputs[0].name
        values = x if tensor == "x" else tensors(model, x, tensor)[tensor]
        expected = explicit(layer, values)
        # At the border, what patches do not see is taken away again: off by the channel's rounding.
        channels = expected.diagonal().reshape(layer.c_in, -1)
        energies = np.repeat(channels.max(1), channels.shape[1])
        scale = np.sqrt(np.outer(energies, energies))
        # Where there are few patches, the least ridge may have been added.
        scale.flat[:: len(scale) + 1] += expected.trace() / len(scale)
        assert (np.abs(found.moments[name] - expected) <= tolerance * scale + 1e-30).all(), name


@pytest.mark.parametrize("pass_bytes", [2**31, 1])
def test_moments_of_every_layer(model: Path, pass_bytes: int) -> None:
    """The last batch of 10 images holds two samples, repeated to four: they must count once."""
    steps: list[tuple[str, int, int]] = []
    found = calibrate(
        model, [images()], pass_bytes=pass_bytes, progress=lambda *step: steps.append(step)
    )
    check_moments(found, model, images())
    assert found.moments["short"] is found.moments["also"]
    assert found.skipped == {"grouped": "it is grouped"}
    assert (found.samples, found.accuracy) == (10, None)
    assert found.statistics.moments["first"].shape == (27, 27)
    # One tensor a pass: x, r1, r3 and the output, and what the grouped convolution takes.
    assert len({what for what, _, _ in steps}) == (1 if pass_bytes > 1 else 5)


def test_a_batch_that_is_open(tmp_path: Path) -> None:
    model = save(network(batch="n"), tmp_path / "open.onnx")
    check_moments(calibrate(model, [images(3)]), model, images(3))
    shapes = {"x": (2, 3, 12, 10)}
    check_moments(calibrate(model, [images(3)], shapes=shapes), model, images(3))


def test_large_patches_are_looked_at_by_channel(model: Path) -> None:
    found = calibrate(model, [images()], max_patch=60)
    assert found.by_channel == ("last",)
    assert found.moments["last"].shape == (8, 8)
    assert found.moments["down"].shape == (54, 54)
    whole = calibrate(model, [images()])
    by_position = whole.moments["last"].reshape(8, 15, 8, 15)
    mean = np.einsum("cpdp->cd", by_position) / 15
    np.testing.assert_allclose(found.moments["last"], mean, rtol=1e-5, atol=1e-7)
    assert found.statistics.sha256 != whole.statistics.sha256


def test_ranges(model: Path) -> None:
    found = calibrate(model, [images()], moments=False)
    assert (dict(found.moments), dict(found.skipped)) == ({}, {})
    output = onnx.load(str(model)).graph.output[0].name
    assert list(found.ranges) == ["x", "r1.out", "r2.out", "r3.out", output]
    for name, values in tensors(model, images(), "r1.out", "r2.out", output).items():
        axes = tuple(i for i in range(values.ndim) if i != 1)
        # Batches of 4 and of 10 may be summed in another order.
        np.testing.assert_allclose(found.ranges[name].lowest, values.min(axes), atol=1e-5)
        np.testing.assert_allclose(found.ranges[name].highest, values.max(axes), rtol=1e-5)
    some = calibrate(model, [images()], moments=False, ranges=["sum.out"])
    assert list(some.ranges) == ["sum.out"]
    assert not calibrate(model, [images()], ranges=False).ranges
    with pytest.raises(TdcError, match="range of 'nothing'"):
        calibrate(model, [images()], ranges=["nothing"])


def test_accuracy(model: Path) -> None:
    output = onnx.load(str(model)).graph.output[0].name
    right = tensors(model, images(), output)[output].argmax(1)
    labels = right.copy()
    labels[8:] = (right[8:] + 1) % 10
    assert calibrate(model, [(images(), labels)]).accuracy == 0.8
    # Only in the first pass are scores looked at.
    assert calibrate(model, [(images(), labels)], pass_bytes=1).accuracy == 0.8
    for wrong in (labels - 5, labels + 9):
        with pytest.raises(TdcError, match=r"(?s)labels from .*0 to 9"):
            calibrate(model, [(images(), wrong)])


def test_what_the_statistics_depend_on(model: Path, tmp_path: Path) -> None:
    found = calibrate(model, [images()]).statistics.sha256
    assert found == calibrate(model, lambda: [images()[:3], images()[3:]]).statistics.sha256
    assert found != calibrate(model, [images()[:9]]).statistics.sha256
    assert found != calibrate(model, [images()], samples=9).statistics.sha256
    proto = network()
    proto.doc_string = "another file"
    other = save(proto, tmp_path / "other.onnx")
    assert found != calibrate(other, [images()]).statistics.sha256


# Bad input, as a table: (samples, message).
MANY = np.full((4, 3, 12, 10), 1e30, np.float32)
BAD: list[tuple[Any, str]] = [
    ([], "holds no samples"),
    ([images(channels=2)], r"shape \(1, 2, 12, 10\)"),
    ([images().astype(np.float64)], "is float64"),
    ([np.where(np.arange(10)[:, None, None, None] == 6, np.float32(np.nan), images())], "sample 6"),
    ([MANY], "tensor 'x', the input of 'first', holds NaN, infinity or numbers too large"),
    ([(images(), np.arange(9))], "different numbers of samples"),
    ([(images(), np.arange(10) + 1)], "labels from 1 to 10"),
]


@pytest.mark.parametrize(("data", "message"), BAD)
def test_bad_samples(data: Any, message: str, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.tdcstats"
    output.write_text("as before")
    with pytest.raises(TdcError, match=message):
        calibrate(model, data, output)
    assert output.read_text() == "as before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "out.tdcstats"]


def test_activations_that_are_not_finite(tmp_path: Path) -> None:
    net = Net(3, (12, 10))
    log = net.node("Log", [net.relu("x", "r")], "log")
    net.conv(log, 4, (3, 3), name="conv")
    model = save(net.model("conv.out"), tmp_path / "log.onnx")
    for kind in ({"ranges": False}, {"moments": False}):
        with pytest.raises(TdcError, match=r"tensor 'log.out'"):
            calibrate(model, [images()], **kind)  # type: ignore[arg-type]


def test_one_image_is_warned_of(model: Path) -> None:
    (warning,) = calibrate(model, [images(1)]).warnings
    assert "one sample" in warning


def test_constant_activations(model: Path) -> None:
    """Rank one everywhere: the moments still have a Cholesky factor with decomposing's ridge."""
    found = calibrate(model, [np.zeros((4, 3, 12, 10), np.float32)])
    assert not found.moments["first"].any()
    assert found.ranges["x"].counts.tolist() == [4 * 360]
    found = calibrate(model, [np.ones((4, 3, 12, 10), np.float32)])
    for moment in found.moments.values():
        mean = moment.trace() / len(moment)
        np.linalg.cholesky(moment + 1e-8 * mean * np.eye(len(moment)))


def test_rounding_leaves_no_negative_directions() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 50)).astype(np.float32)
    moment = (x @ x.T).astype(np.float64)
    assert np.linalg.eigvalsh(moment)[0] < -1e-8 * moment.trace() / 200  # what float32 does
    before = moment.copy()
    share = settle(moment)
    assert 0 < share <= 1e-5
    raised = before + share * before.trace() / 200 * np.eye(200)
    np.testing.assert_allclose(moment, raised, rtol=1e-12, atol=1e-12)
    exact = x.astype(np.float64) @ x.T.astype(np.float64)
    kept = exact.copy()
    assert settle(exact) == 0
    np.testing.assert_array_equal(exact, kept)
    assert settle(np.zeros((3, 3))) == 0


def test_an_iterator_serves_for_one_pass(model: Path) -> None:
    check_moments(calibrate(model, iter([images()])), model, images())
    with pytest.raises(TdcError, match=r"5 passes over .* once"):
        calibrate(model, iter([images()]), pass_bytes=1)


def test_written_and_read(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "stats.tdcstats"
    labels = np.arange(10)
    found = calibrate(model, [(images(), labels)], path, max_patch=60)
    again = read_calibration(path, read_source(model))
    assert set(again.moments) == set(found.moments)
    for name, moment in found.moments.items():
        np.testing.assert_array_equal(again.moments[name], moment)
        assert again.moments[name].dtype == np.float64
    assert again.moments["short"] is again.moments["also"]
    assert again.statistics.sha256 == found.statistics.sha256
    for name, expected in found.ranges.items():
        for field in ("lowest", "highest", "counts", "start", "width"):
            np.testing.assert_array_equal(
                getattr(again.ranges[name], field), getattr(expected, field)
            )
    plain = ("samples", "accuracy", "by_channel", "skipped", "warnings", "data_sha256")
    for field in (*plain, "model_sha256", "tool_version"):
        assert getattr(again, field) == getattr(found, field), field
    before = path.read_bytes()
    calibrate(model, [(images(), labels)], path, max_patch=60)
    assert path.stat().st_size == len(before)


def test_statistics_of_another_model_are_refused(model: Path, tmp_path: Path) -> None:
    found = calibrate(model, [images()], tmp_path / "stats")
    proto = network()
    proto.doc_string = "another file"
    other = read_source(save(proto, tmp_path / "other.onnx"))
    with pytest.raises(TdcError) as error:
        read_calibration(tmp_path / "stats", other)
    assert found.model_sha256 in str(error.value)
    assert other.sha256 in str(error.value)
    assert read_calibration(tmp_path / "stats").model_sha256 == found.model_sha256


def rewritten(path: Path, **changes: Any) -> None:
    """The archive with another head."""
    import json

    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    head = json.loads(contents["calibration.json"]) | changes
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, json.dumps(head) if name == "calibration.json" else content)


def test_damaged_files(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "stats"
    with pytest.raises(TdcError, match="no statistics at"):
        read_calibration(path)
    calibrate(model, [images()], path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for cut in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(TdcError, match="cannot be read"):
            read_calibration(path)
    with zipfile.ZipFile(tmp_path / "good", "w"):
        pass
    first = whole.index(b"NUMPY") + 200
    for at in [first, *rng.integers(first, len(whole) // 2, 20)]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        with pytest.raises(TdcError, match="cannot be read"):
            read_calibration(path)
    path.write_bytes(whole)
    rewritten(path, version=99, tool_version="9.9")
    with pytest.raises(TdcError, match=r"version 99, written by tdc-deploy 9.9"):
        read_calibration(path)
    for changes in ({"format": "x"}, {"moments": {"a": "b"}}, {"samples": None}, {"ranges": 3}):
        path.write_bytes(whole)
        rewritten(path, **changes)
        with pytest.raises(TdcError, match="cannot be read"):
            read_calibration(path)


def test_what_is_read_is_not_overwritten(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=images())
    for output in (model, tmp_path / "data.npz"):
        with pytest.raises(TdcError, match="would be overwritten"):
            calibrate(model, tmp_path / "data.npz", output)
    with pytest.raises(TdcError, match="does not exist"):
        calibrate(model, tmp_path / "data.npz", tmp_path / "no" / "stats")


def test_labels_and_files_of_a_folder_are_not_overwritten_either(
    model: Path, tmp_path: Path
) -> None:
    """Before they are read: labels that do not fit must not hide it."""
    folder = tmp_path / "data"
    folder.mkdir()
    np.save(folder / "x.npy", images())
    labels = tmp_path / "labels.csv"
    labels.write_text("x,0\n")
    before = {path: path.read_bytes() for path in (folder / "x.npy", labels)}
    for output in before:
        with pytest.raises(TdcError, match="would be overwritten"):
            calibrate(model, folder, output, labels=labels)
    assert {path: path.read_bytes() for path in before} == before
    for _ in range(2):  # what it wrote itself, it may write again
        calibrate(model, folder, folder / "model.tdcstats")


def test_a_calibration_without_ranges_can_be_written(model: Path, tmp_path: Path) -> None:
    found = replace(calibrate(model, [images()], ranges=False), moments={}, by_channel=())
    write_calibration(found, tmp_path / "stats")
    again = read_calibration(tmp_path / "stats")
    assert (dict(again.moments), dict(again.ranges)) == ({}, {})
