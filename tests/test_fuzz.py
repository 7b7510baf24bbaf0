"""Damaged models and plans: a TdcError or success, and nothing else."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tdc_deploy.errors import TdcError
from tdc_deploy.inspection import inspect_model
from tdc_deploy.plan_file import check_layers, read_plan
from tdc_deploy.progress import silent
from tdc_deploy.types import ConvLayer
from tests.builders import chain_cnn
from tests.helpers import Net, conv_net
from tests.test_any_cnn import several, with_if, with_loop

# The same examples each time; the last test has others each time.
QUICK = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def tiny() -> onnx.ModelProto:
    """A few hundred bytes, so that most damage is to the structure."""
    net = Net(2, (4, 4))
    y = net.conv("x", 2, (3, 3), name="conv", bias=True, pads=(1, 1, 1, 1))
    return net.model(net.relu(y, "act"))


MODELS = [tiny, conv_net, chain_cnn, with_if, with_loop, several]
SEEDS = [make() for make in MODELS]


def check_read(path: Path) -> None:
    """Read and inspect a model; anything but a TdcError is an error."""
    try:
        inspect_model(path, progress=silent)
    except TdcError as error:
        assert error.received
        assert str(path.name) in str(error) or error.expected or error.fix


@st.composite
def damaged_bytes(draw: st.DrawFn) -> bytes:
    """A valid model after a few bytes were changed, removed or repeated."""
    content = bytearray(draw(st.sampled_from(SEEDS)).SerializeToString())
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(st.sampled_from(["set", "cut", "insert", "repeat", "end"]))
        length = draw(st.integers(1, 40))
        if kind == "set":
            content[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == "cut":
            del content[at : at + length]
        elif kind == "insert":
            content[at:at] = draw(st.binary(max_size=8))
        elif kind == "repeat":
            content[at:at] = content[at : at + length]
        else:
            del content[max(len(content) - length, 0) :]
    return bytes(content)


def messages(message: Any) -> Iterator[Any]:
    """A protobuf message and all that it holds, but for the tensors' many numbers."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for inner in value if hasattr(value, "add") else [value]:
            yield from messages(inner)


TEXTS = ["", "x", "conv", "Conv", "Loop", "If", "ai.onnx", "tdc", "TuckerConv", "\u00e9", "x" * 99]
NUMBERS = [0, 1, -1, 2, 3, 7, 10, 16, 255, 2**31 - 1, -(2**31)]


def damage(message: Any, rng: random.Random) -> None:
    """Change one field of one part of a message to something that its type allows."""
    part = rng.choice(list(messages(message)))
    field = rng.choice(list(part.DESCRIPTOR.fields))
    value = getattr(part, field.name)
    if hasattr(value, "append") or hasattr(value, "add"):
        _damage_list(value, field, rng)
    elif field.message_type is not None or rng.random() < 0.2:
        part.ClearField(field.name)
    else:
        setattr(part, field.name, _value(field, rng))


def _damage_list(value: Any, field: Any, rng: random.Random) -> None:
    kind = rng.choice(["remove", "double", "swap", "change"])
    if kind == "remove" and len(value):
        del value[rng.randrange(len(value))]
    elif kind == "double" and len(value):
        value.extend([value[rng.randrange(len(value))]])
    elif kind == "swap" and len(value) > 1:
        kept = list(value)
        rng.shuffle(kept)
        del value[:]
        value.extend(kept)
    elif field.message_type is not None:
        value.add()
    else:
        value.append(_value(field, rng))


def _value(field: Any, rng: random.Random) -> Any:
    if field.type == field.TYPE_STRING:
        return rng.choice(TEXTS)
    if field.type == field.TYPE_BYTES:
        return rng.choice(TEXTS).encode()
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return rng.choice([0.0, -1.0, float("nan"), float("inf"), 1e30])
    if field.type == field.TYPE_ENUM:
        return rng.choice([entry.number for entry in field.enum_type.values])
    if field.type in (field.TYPE_UINT64, field.TYPE_UINT32):
        return rng.choice([n for n in NUMBERS if n >= 0])
    return rng.choice(NUMBERS)


def read_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    check_read(path)


def read_damaged(path: Path, seed: int, which: int, times: int = 1) -> None:
    model, rng = onnx.ModelProto(), random.Random(seed)
    model.CopyFrom(SEEDS[which])
    for _ in range(times):
        damage(model, rng)
    read_bytes(path, model.SerializeToString())


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged Loop may run for ever."""
    monkeypatch.setattr("tdc_deploy.observe.PATIENCE_S", 0.5)


@pytest.mark.slow
@settings(QUICK, max_examples=500)
@given(content=damaged_bytes())
def test_models_of_damaged_bytes(tmp_path: Path, content: bytes) -> None:
    read_bytes(tmp_path / "m.onnx", content)


@pytest.mark.slow
@settings(QUICK, max_examples=500)
@given(
    seed=st.integers(0, 2**32 - 1), which=st.integers(0, len(SEEDS) - 1), times=st.integers(1, 3)
)
def test_models_of_damaged_fields(tmp_path: Path, seed: int, which: int, times: int) -> None:
    read_damaged(tmp_path / "m.onnx", seed, which, times)


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["tucker2", "svd", "dense", "fused", "native", "fp32", "tdc-deploy plan"])
)  # fmt: skip
KEYS = st.sampled_from(
    [
        *("layers", "form", "r_in", "r_out", "error", "latency_ms", "dense_ms", "conv1", "conv2"),
        *("network", "format", "version", "warnings", "backend", "solver", "measurements"),
        *("precision", "implementation", "model_sha256", "verified"),
    ]
) | st.text(max_size=6)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)  # fmt: skip
LAYER = st.fixed_dictionaries(
    {"form": st.sampled_from(["tucker2", "svd", "tucker_in", "dense"]) | SCALARS},
    optional=dict.fromkeys(("r_in", "r_out", "error", "latency_ms", "dense_ms"), SCALARS),
)
PLANS = st.fixed_dictionaries(
    {
        "layers": st.dictionaries(
            st.sampled_from(["conv1", "conv2", "else"]), LAYER | VALUES, max_size=3
        )
    },
    optional={"network": VALUES, "warnings": VALUES, "backend": VALUES, "version": SCALARS},
)
KNOWN = {
    name: ConvLayer(name, 32, 48, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, "float32", 1, (9, 9))
    for name in ("conv1", "conv2")
}


def check_plan(path: Path) -> None:
    """Read a plan and hold it against layers; anything but a TdcError is an error."""
    try:
        check_layers(read_plan(path), KNOWN)
    except TdcError as error:
        assert error.received


def read_text(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    check_plan(path)


def as_text(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.slow
@pytest.mark.parametrize("make", [as_text, lambda value: as_text(value)[:-3]], ids=["whole", "cut"])
@settings(QUICK, max_examples=500)
@given(value=PLANS | VALUES)
def test_plans_of_any_json(tmp_path: Path, make: Callable[[object], bytes], value: object) -> None:
    read_text(tmp_path / "plan.json", make(value))


@pytest.mark.slow
@settings(QUICK, max_examples=500)
@given(content=st.binary(max_size=200))
def test_plans_of_any_bytes(tmp_path: Path, content: bytes) -> None:
    read_text(tmp_path / "plan.json", content)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("read", "values"),
    [
        (read_bytes, damaged_bytes()),
        (
            lambda path, at: read_damaged(path, *at),
            st.tuples(st.integers(0, 2**32 - 1), st.integers(0, len(SEEDS) - 1)),
        ),
        (lambda path, value: read_text(path, as_text(value)), PLANS | VALUES),
    ],
    ids=["bytes", "fields", "plans"],
)
def test_twenty_seconds_of_what_nobody_has_seen(
    tmp_path: Path, read: Callable[[Path, Any], None], values: st.SearchStrategy[Any]
) -> None:
    start, done = time.monotonic(), 0

    @settings(QUICK, max_examples=50, derandomize=False, print_blob=True)
    @given(value=values)
    def some(value: object) -> None:
        nonlocal done
        done += 1
        read(tmp_path / "read", value)

    while time.monotonic() - start < 20:
        some()
    assert done >= 100
