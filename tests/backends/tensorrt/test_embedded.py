"""Networks whose fused nodes are made nodes of the embedded plugin."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tdc_deploy.backends.tensorrt import embedded, embedded_plugin
from tdc_deploy.backends.tensorrt.embedded import Embedding
from tdc_deploy.backends.tensorrt.embedded_kernels import MOST_KERNELS, embedded_kernels
from tdc_deploy.backends.tensorrt.prepare import Prepared, prepare
from tdc_deploy.errors import TdcError
from tdc_deploy.graph.network import model_of
from tdc_deploy.profiling.analytical.chips import find_device
from tdc_deploy.profiling.analytical.devices import Device
from tdc_deploy.profiling.analytical.model import PrecisionName
from tdc_deploy.profiling.analytical.shapes import TuckerShape
from tests.fake_tensorrt import with_bodies
from tests.graph.test_padding import fused_net
from tests.helpers import feeds_of, relative, run, run_float64

A100 = find_device("A100")
SHAPES = {"x": (1, 8, 9, 8)}


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, int]]:
    """Sources and compute capabilities that nvcc would have got."""
    found: list[tuple[str, int]] = []

    def compile_ptx(source: str, compute_capability: int) -> Path:
        found.append((source, compute_capability))
        path = tmp_path / f"{len(found)}.ptx"
        path.write_text("// of a test\n.version 8.7\n.target sm_80\n")
        return path

    monkeypatch.setattr(embedded, "compile_ptx", compile_ptx)
    return found


def prepared(precision: PrecisionName = "fp16", least: Device = A100) -> Prepared:
    embedding = Embedding(A100, precision, least)
    return prepare(fused_net((3, 10)), SHAPES, A100, precision, 10, embedding=embedding)


def nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.domain == "tdc"]


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def refuse(*names: str, patch: pytest.MonkeyPatch) -> None:
    """Give layers with, or without, a residual no kernel."""
    kinds = {"TuckerConv": False, "TuckerConvAdd": True}
    refused = {kinds[name] for name in names}
    patch.setattr(
        embedded, "why_not", lambda shape, *_: "too large" if shape.residual in refused else None
    )


@pytest.mark.parametrize("precision", ["fp16", "tf32", "fp32"])
def test_nodes_say_what_the_parser_and_the_plugin_want(
    precision: PrecisionName, compiled: list[tuple[str, int]]
) -> None:
    result = prepared(precision, find_device("RTX 4090"))
    found = nodes(result.model)
    assert [node.op_type for node in found] == ["TuckerConv", "TuckerConvAdd"]
    assert result.warnings == ()
    assert result.ptx == "8.7"
    for node, residual in zip(found, (False, True), strict=True):
        read = attributes(node)
        assert (read["plugin_namespace"], read["aot"]) == (b"tdc", 1)
        assert "tactics" not in read
        layer = embedded_plugin._KEPT[int(str(read["layer"]))]
        shape = TuckerShape(1, 9, 8, 8, 8, 8, 16, residual=residual)
        slopes = tuple(float(str(read[f"{part}slope"])) for part in ("first_", "core_", ""))
        kernels = embedded_kernels(shape, slopes, A100, precision)  # type: ignore[arg-type]
        assert 0 < len(kernels) <= MOST_KERNELS
        assert {n: (k.tile, k.threads, k.shared_bytes) for n, k in layer.kernels.items()} == {
            k.number: (k.tile, k.threads, k.shared_bytes) for k in kernels
        }
        assert layer.type == ("FP16" if precision == "fp16" else "FP32")
        assert (layer.kernel, layer.pads) == ((3, 3), (1, 1, 1, 1))
        assert {(kernel.source, 89) for kernel in kernels} <= set(compiled)


@pytest.mark.parametrize("left", ["TuckerConv", "TuckerConvAdd"])
def test_what_has_no_kernel_stays_three_convolutions(
    left: str, compiled: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(left, patch=monkeypatch)
    result = prepared("fp32")
    assert compiled
    assert [node.op_type for node in nodes(result.model)] == [
        name for name in ("TuckerConv", "TuckerConvAdd") if name != left
    ]
    (warning,) = result.warnings
    assert warning.endswith("stays three convolutions: too large")
    source = model_of(fused_net((3, 10)))
    feeds = feeds_of(source)
    after = run(with_bodies(result.model), feeds)[0]
    # As in test_prepare.
    assert relative(after, run_float64(source, feeds)[0]) <= 1e-5


def test_where_nothing_has_a_kernel_that_is_said(
    compiled: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse("TuckerConv", "TuckerConvAdd", patch=monkeypatch)
    with pytest.raises(
        TdcError, match="no chain has a kernel that can travel in an engine"
    ) as caught:
        prepared()
    assert "--plugin-mode library" in caught.value.fix
    assert not compiled


def test_the_network_that_came_in_is_left_alone(compiled: list[tuple[str, int]]) -> None:
    made = fused_net((3, 10))
    before = model_of(made)
    prepare(made, SHAPES, A100, "fp16", 10, embedding=Embedding(A100, "fp16", A100))
    assert model_of(made) == before
    assert compiled


@pytest.mark.usefixtures("compiled")
def test_progress_is_reported() -> None:
    seen: list[tuple[str, int, int]] = []
    embedding = Embedding(A100, "fp16", A100, lambda *step: seen.append(step))
    prepare(fused_net(), SHAPES, A100, "fp16", 10, embedding=embedding)
    assert seen == [("compiling kernels", i, 2) for i in range(2)]
