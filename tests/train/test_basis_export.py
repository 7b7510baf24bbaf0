"""Shared kernel bases as chains: the same function, and only where a backend finds them faster."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch
from tdc_train.basis_export import apply_faster_bases, as_onnx
from tdc_train.constraints import Constraints, sizes
from tdc_train.data import registry
from tdc_train.export import constraints_in, export_onnx
from tdc_train.layers import BasisConv2d
from tdc_train.projections.sets import NM, ConstraintSet, SparseBasis, TernaryBasis, obeys_n_m
from tdc_train.training.assess import assess, write_onnx
from tdc_train.training.run import fit
from torch import nn

from tdc_deploy.backends.onnxruntime import OnnxRuntimeBackend
from tdc_deploy.errors import TdcError
from tdc_deploy.profiling.measure import Effort, Feeds, timing_of
from tdc_deploy.types import Timing
from tests.train.small_models import images, relative, small_net
from tests.train.tiny import tiny

# float32 in another order.
SAME = 1e-5


class Chooser:
    """A backend for which the chains of some input widths are faster, and that refuses those of one."""

    def __init__(self, faster: set[int], refused: int = 0) -> None:
        self._faster = faster
        self._refused = refused

    def measure_layers(
        self, models: Iterable[tuple[onnx.ModelProto, Feeds]], _effort: Effort
    ) -> Iterator[Timing | TdcError]:
        for model, feeds in models:
            session = onnxruntime.InferenceSession(model.SerializeToString())
            session.run(None, dict(feeds))
            is_chain = sum(node.op_type == "Conv" for node in model.graph.node) == 2
            width = feeds["image"].shape[1]
            if is_chain and width == self._refused:
                yield TdcError("refused")
                continue
            yield timing_of(
                [1.5 if is_chain and width not in self._faster else 1.0 + (not is_chain) / 4] * 3
            )


def held_in(net: nn.Module, **kinds: ConstraintSet) -> dict[str, ConstraintSet]:
    paths = {name.replace("__", "."): kind for name, kind in kinds.items()}
    aim = {
        path: kind.prepared({path: net.get_submodule(path).weight})[path]  # type: ignore[dict-item]
        for path, kind in paths.items()
    }
    return dict(Constraints(aim, {}).projected(net).held)


@pytest.mark.parametrize("kind", [SparseBasis(5, density=0.2), TernaryBasis(4)], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_the_chain_is_the_layer(kind: Any, bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(12, 10, 3, 2, 1, dilation=1, bias=bias)
    held = held_in(nn.Sequential(conv), **{"0": kind})
    chain = BasisConv2d.from_conv(conv, *held["0"].factors(conv.weight))  # type: ignore[attr-defined]
    x = torch.randn(2, 12, 9, 9)
    with torch.no_grad():
        assert relative(chain(x), conv(x)) <= SAME
    assert chain.basis.weight.shape == (12 * kind.basis, 1, 3, 3)
    assert chain.mix.weight.shape == (10, 12 * kind.basis, 1, 1)
    assert (chain.mix.bias is not None) == bias


def test_factors_of_another_layer_are_refused() -> None:
    factors = SparseBasis(2).factors(torch.randn(4, 4, 3, 3))
    with pytest.raises(TdcError, match=r"expected|coefficients \(4, 4, 2\)"):
        BasisConv2d.from_conv(nn.Conv2d(4, 5, 3), *factors)
    with pytest.raises(TdcError, match="grouped"):
        BasisConv2d.from_conv(nn.Conv2d(4, 4, 3, groups=2), *factors)


def test_only_what_is_faster_becomes_a_chain(tmp_path: Path) -> None:
    net = small_net()
    basis = SparseBasis(4, density=0.3)
    held = held_in(
        net,
        layer1__0__conv1=basis,
        layer1__1__conv2=basis,
        heads__twice=TernaryBasis(4),
        blocks__0=NM(),
    )
    with torch.no_grad():
        wanted = net(images())
    measured = apply_faster_bases(net, held, (1, 3, 16, 16), Chooser({24}, refused=16))  # type: ignore[arg-type]
    assert {m.path: (m.is_faster, m.chain_ms) for m in measured} == {
        "layer1.0.conv1": (False, float("inf")),
        "layer1.1.conv2": (True, 1.0),
        "heads.twice": (True, 1.0),
    }
    chains = {path for path, part in net.named_modules() if isinstance(part, BasisConv2d)}
    assert chains == {"layer1.1.conv2", "heads.twice"}
    with torch.no_grad():
        assert relative(net(images()), wanted) <= SAME
    path = tmp_path / "model.onnx"
    export_onnx(net, path, (1, 3, 16, 16))
    nodes = {node.name for node in onnx.load(path).graph.node if node.op_type == "Conv"}
    assert {
        "heads.twice.basis",
        "heads.twice.mix",
        "heads.twice.basis_1",
        "layer1.0.conv1",
    } <= nodes
    session = onnxruntime.InferenceSession(str(path))
    rows = [session.run(None, {"image": image[None].numpy()})[0] for image in images()]
    assert relative(torch.from_numpy(np.concatenate(rows)), wanted) <= SAME


def test_a_layer_whose_factors_are_not_found_again_stays() -> None:
    net = small_net()
    basis = SparseBasis(4, density=0.3)
    held = held_in(net, layer1__0__conv1=basis, layer1__1__conv2=basis)
    with torch.no_grad():
        # Any other weight than a member stands for a member that is not found.
        net.get_parameter("layer1.0.conv1.weight").add_(1e-3)
        wanted = net(images())
    measured = apply_faster_bases(net, held, (1, 3, 16, 16), Chooser({16, 24}))  # type: ignore[arg-type]
    assert [m.path for m in measured] == ["layer1.1.conv2"]
    with torch.no_grad():
        assert relative(net(images()), wanted) <= SAME


def test_a_dense_layer_that_is_refused_is_an_error() -> None:
    class Refusing(Chooser):
        def measure_layers(self, models: Any, _effort: Any) -> Any:
            yield from (TdcError("no memory") for _ in models)

    net = small_net()
    held = held_in(net, blocks__0=SparseBasis(4))
    with pytest.raises(TdcError, match="no memory"):
        apply_faster_bases(net, held, (1, 3, 16, 16), Refusing(set()))  # type: ignore[arg-type]


def test_a_real_backend_takes_both_forms() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 8, 3, padding=1)
    chain = BasisConv2d.from_conv(conv, *SparseBasis(4).factors(conv.weight))
    feeds = {"image": np.zeros((1, 8, 6, 6), np.float32)}
    models = ((as_onnx(part, (1, 8, 6, 6)), feeds) for part in (conv, chain))
    found = list(OnnxRuntimeBackend(1).measure_layers(models, Effort(runs=5, seconds=0.0)))
    assert all(isinstance(timing, Timing) and timing.median > 0 for timing in found)


def test_two_of_four_survives_the_export(tmp_path: Path) -> None:
    net = small_net()
    held = held_in(net, blocks__0=NM(), layer1__1__conv2=NM(), fc=NM())
    export_onnx(net, tmp_path / "m.onnx", (1, 3, 16, 16), constraints=sizes(net, held))
    model = onnx.load(tmp_path / "m.onnx")
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}
    kernels = {
        node.name: torch.from_numpy(weights[node.input[1]].copy())
        for node in model.graph.node
        if node.op_type == "Conv"
    }
    # BatchNorm is folded into the second: scaled filters have the zeros they had.
    assert obeys_n_m(kernels["blocks.0"]) and obeys_n_m(kernels["layer1.1.conv2"])
    assert not obeys_n_m(kernels["blocks.1"])
    found = constraints_in(tmp_path / "m.onnx")
    assert found is not None and found == json.loads(json.dumps(sizes(net, held)))
    assert found["layers"]["blocks.0"]["tensorrt_sparse"] is True


def test_a_run_is_exported_with_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    table = {"name": "sparse_basis", "basis": 4, "density": 0.2}
    recipe = tiny({"kind": "project", "set": table, "init": {"images": 16}})
    fit(recipe, tmp_path / "run")
    monkeypatch.setattr(
        "tdc_deploy.backends.onnxruntime.OnnxRuntimeBackend", lambda _threads: Chooser({16})
    )
    path = tmp_path / "model.onnx"
    write_onnx(tmp_path / "run", path, trust=True, basis_chains=True)
    found = constraints_in(path)
    assert found is not None
    assert found["basis_chains"] == {"conv2": {"dense_ms": 1.25, "chain_ms": 1.0, "chain": True}}
    assert found["compression"] > 1
    data = registry.make_data(recipe.data.name, None, recipe.data.options)
    write_onnx(tmp_path / "run", tmp_path / "dense.onnx", trust=True)
    x = data.val.batch(torch.arange(1))[0].numpy()
    chain, dense = (
        onnxruntime.InferenceSession(str(p)).run(None, {"image": x})[0]
        for p in (path, tmp_path / "dense.onnx")
    )
    assert relative(torch.from_numpy(chain), torch.from_numpy(dense)) <= SAME
    assessed = assess(tmp_path / "run", trust=True, threads=1, device="cpu")
    share = found["layers"]["conv2"]["macs_share"]
    # The first layer and the last are as they were.
    assert assessed.macs == round(64 * 27 * 16 + 16 * 144 * 16 * share + 160)
    assert assessed.as_json()["constraints"]["bits"] == found["bits"]
