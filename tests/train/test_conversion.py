"""Plans applied to torch models, read back, and state dicts both ways."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch
from tdc_train.conversion import apply_plan, decomposable, factorised, make_dense, plan_of
from tdc_train.layers import SvdConv2d, SvdLinear, TuckerConv2d
from tdc_train.state_dicts import dense_state_dict, load_dense_state_dict
from torch import nn

from tdc_deploy.errors import TdcError
from tdc_deploy.plan_file import LayerChoice, Plan, read_plan, write_plan
from tdc_deploy.tucker import decompose, reconstruct
from tdc_deploy.types import Candidate, Ranks
from tests.train.small_models import TUCKER2, every_form, images, plan, relative, small_net

# A network of float32 chains against one of their dense kernels: roundings of some 1e-7 in each of ten
# layers.
SAME = 1e-5


def test_ungrouped_convolutions_and_linears_are_decomposable() -> None:
    found = decomposable(small_net())
    assert list(found) == [
        "stem.0",
        *("layer1.0.conv1", "layer1.0.conv2", "layer1.0.downsample.0"),
        *("layer1.1.conv1", "layer1.1.conv2", "layer1.1.downsample.0"),
        *("blocks.0", "blocks.1", "heads.twice", "fc"),
    ]


def test_parts_of_chains_and_subclasses_are_not_decomposable() -> None:
    class Own(nn.Conv2d):
        pass

    model = apply_plan(nn.Sequential(nn.Conv2d(8, 8, 3), Own(8, 8, 3)), _at("0"))
    assert decomposable(model) == {}


def _at(path: str) -> Plan:
    return plan(**{path.replace(".", "__"): Candidate("tucker2", Ranks(3, 2), "fused")})


def test_a_plan_is_applied_in_place_and_read_back(tmp_path: Path) -> None:
    model = small_net()
    write_plan(every_form(), tmp_path / "plan.json")
    assert apply_plan(model, read_plan(tmp_path / "plan.json")) is model
    kinds = {path: type(layer) for path, layer in factorised(model).items()}
    assert kinds["layer1.1.conv2"] is TuckerConv2d
    assert kinds["blocks.1"] is SvdConv2d
    assert kinds["fc"] is SvdLinear
    assert plan_of(model).selection == every_form().selection

    write_plan(plan_of(model), tmp_path / "again.json")
    other = apply_plan(small_net(), read_plan(tmp_path / "again.json"))
    assert torch.equal(other(images()), model(images()))


def test_the_least_plan_json_is_enough(tmp_path: Path) -> None:
    layers = {"blocks.0": {"form": "tucker2", "r_in": 6, "r_out": 5}}
    (tmp_path / "plan.json").write_text(json.dumps({"layers": layers}))
    model = apply_plan(small_net(), read_plan(tmp_path / "plan.json"))
    assert plan_of(model).selection == {"blocks.0": TUCKER2}


def test_hooi_is_nearer_than_hosvd() -> None:
    weight = small_net().get_parameter("blocks.0.weight")
    near = [
        relative(
            factorised(apply_plan(small_net(), _at("blocks.0"), init=init))[
                "blocks.0"
            ].reconstructed(),
            weight,
        )
        for init in ("hosvd", "hooi")
    ]
    assert near[1] < near[0]


def test_given_factors_are_used() -> None:
    model = small_net()
    weight = torch.randn(24, 24, 3, 3, generator=torch.Generator().manual_seed(3)).numpy()
    factors = decompose(weight, "tucker2", Ranks(3, 2))
    apply_plan(model, _at("blocks.0"), {"blocks.0": factors})
    kernel = factorised(model)["blocks.0"].reconstructed()
    assert relative(kernel, torch.from_numpy(reconstruct(factors))) <= SAME
    with pytest.raises(TdcError, match=r"factors for 'blocks\.0'"):
        apply_plan(small_net(), _at("heads.twice"), {"blocks.0": factors})


def test_a_module_that_stands_twice_is_replaced_in_both_places() -> None:
    conv = nn.Conv2d(8, 8, 3, padding=1)
    model = nn.Sequential(conv, nn.ReLU(), conv)
    apply_plan(model, _at("2"))
    assert model[0] is model[2]
    assert plan_of(model).selection == _at("0").selection
    dense = nn.Sequential(conv, nn.ReLU(), conv)
    dense.load_state_dict(dense_state_dict(model))
    x = torch.randn(1, 8, 9, 9)
    assert relative(dense(x), model(x)) <= SAME
    load_dense_state_dict(model, dense.state_dict())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (plan(blocks__9=TUCKER2), r"did you mean 'blocks\."),
        (plan(grouped=TUCKER2), "grouped"),
        (plan(layer1=TUCKER2), "it is a Sequential"),
        (plan(blocks__0=Candidate("tucker2", Ranks(25, 5))), "r_in up to its 24"),
        (plan(blocks__0=Candidate("tucker2", Ranks(5, 25))), "r_out up to its 24"),
        (plan(blocks__0=Candidate("tucker_in", Ranks(5, 5))), "r_out 24"),
        (plan(blocks__0=Candidate("svd", Ranks(5, 5))), "svd is for 1x1"),
        (plan(fc=TUCKER2), "expected: svd"),
        (plan(fc=Candidate("svd", Ranks(11, 11))), "r_out up to its 10"),
    ],
    ids=str,
)
def test_a_plan_that_does_not_fit_changes_nothing(bad: Plan, message: str) -> None:
    model = small_net()
    both = Plan({**plan(stem__0=Candidate("tucker2", Ranks(2, 4))).layers, **bad.layers})
    with pytest.raises(TdcError, match=message):
        apply_plan(model, both)
    assert factorised(model) == {}


def test_names_of_one_module_must_agree() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
    model.append(model[0])
    candidates = [Candidate("tucker2", Ranks(3, rank)) for rank in (2, 4)]
    with pytest.raises(TdcError, match="module '0' both as tucker2 3→2 and as tucker2 3→4"):
        apply_plan(model, Plan({n: LayerChoice(c) for n, c in zip("02", candidates, strict=True)}))
    apply_plan(model, Plan({name: LayerChoice(candidates[0]) for name in "02"}))
    assert plan_of(model).selection == {"0": Candidate("tucker2", Ranks(3, 2), "fused")}


def test_a_layer_is_decomposed_once() -> None:
    model = apply_plan(small_net(), plan(blocks__0=TUCKER2))
    with pytest.raises(TdcError, match="chain already"):
        apply_plan(model, plan(blocks__0=TUCKER2))
    with pytest.raises(TdcError, match="part of a chain"):
        apply_plan(model, plan(blocks__0__core=TUCKER2))


def test_chains_become_the_dense_layers_of_the_same_function() -> None:
    model = apply_plan(small_net(), every_form())
    wanted = model(images())
    assert factorised(make_dense(model)) == {}
    assert list(decomposable(model)) == list(decomposable(small_net()))
    assert relative(model(images()), wanted) <= SAME


def test_a_dense_state_dict_goes_into_chains_and_back() -> None:
    trained = small_net(seed=4)
    model = apply_plan(small_net(), every_form())
    load_dense_state_dict(model, trained.state_dict())
    wanted = apply_plan(small_net(seed=4), every_form())
    assert relative(model(images()), wanted(images())) <= SAME

    dense = small_net()
    dense.load_state_dict(dense_state_dict(model))
    assert relative(dense(images()), model(images())) <= SAME


def test_a_chains_own_state_dict_loads_into_its_like() -> None:
    model = apply_plan(small_net(), every_form())
    other = apply_plan(small_net(seed=4), every_form())
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(images()), model(images()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.0.weight": None}, "no 'blocks.0.weight'"),
        ({"extra": torch.zeros(1)}, "'extra', which the model lacks"),
        ({"blocks.0.weight": torch.zeros(2)}, "has shape"),
        ({"grouped.bias": torch.zeros(2)}, "has shape"),
    ],
    ids=str,
)
def test_a_state_dict_that_does_not_fit_changes_nothing(
    change: dict[str, object], message: str
) -> None:
    model = apply_plan(small_net(), every_form())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = {**small_net(seed=4).state_dict(), **change}
    state = {key: value for key, value in state.items() if value is not None}
    with pytest.raises(TdcError, match=message):
        load_dense_state_dict(model, state)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
