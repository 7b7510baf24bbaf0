"""Recipes: what is in them is what is meant, and what is wrong is said before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tdc_train.models.registry import make_model
from tdc_train.recipe import AdmmSpec, DistillSpec, OptimizerSpec, ScheduleSpec, StageSpec
from tdc_train.recipe_file import read_recipe, recipe_from, recipe_to, shipped_recipes

from tdc_deploy.errors import TdcError

SMALL = """
seed = 3
[model]
name = "resnet20"
[[stages]]
kind = "dense"
epochs = 4
optimizer = { lr = 0.2 }
[[stages]]
kind = "finetune"
"""


def write(folder: Path, text: str) -> Path:
    (folder / "recipe.toml").write_text(text)
    return folder / "recipe.toml"


def test_a_recipe_is_read(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, SMALL))
    assert recipe.seed == 3
    assert [(stage.kind, stage.name) for stage in recipe.stages] == [
        ("dense", "dense"),
        ("finetune", "finetune"),
    ]
    assert recipe.stages[0].optimizer.lr == 0.2
    assert recipe.stages[0].optimizer.momentum == 0.9


def test_changes_reach_every_section(tmp_path: Path) -> None:
    changes = [
        "seed=9",
        "stages.dense.epochs=7",
        "stages.1.schedule.warmup=2",
        "data.options={train=10}",
        "data.root=some/folder",
        "model.name=resnet32",
    ]
    recipe = read_recipe(write(tmp_path, SMALL), changes)
    assert (recipe.seed, recipe.stages[0].epochs, recipe.stages[1].schedule.warmup) == (9, 7, 2)
    assert recipe.data.options == {"train": 10}
    assert recipe.data.root == str(tmp_path / "some/folder")
    assert recipe.model.name == "resnet32"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("seed", "section.key=value"),
        ("stages.admm.epochs=3", "one of the stages dense, finetune"),
        ("stages.7.epochs=3", "one of the stages"),
        ("seed.x=3", "is in no section|a key in a section"),
        ("sed=3", "unknown key 'sed'(.|\n)*did you mean 'seed'"),
        ("stages.dense.optimizer.rl=1", "unknown key 'rl'"),
        ("stages.dense.kind=sparse", "kind is 'sparse'"),
        ("stages.dense.epochs=0", "epochs is 0"),
        ("stages.dense.epochs=2.5", r"epochs is 2\.5"),
        ("stages.dense.epochs=true", "epochs is True"),
        ("stages.dense.batch=0", "batch is 0"),
        ("stages.dense.amp=1", "amp is 1"),
        ("stages.dense.optimizer.lr=-1", "lr is -1"),
        ("stages.dense.optimizer.lr=nan", "lr is nan"),
        ("stages.dense.optimizer.lr=fast", "lr is 'fast'"),
        ("stages.dense.optimizer.momentum=1", "momentum is 1"),
        ("stages.dense.optimizer.name=adam", "optimizer name is 'adam'"),
        ("stages.dense.optimizer=3", "optimizer of stage 0 of .* is 3"),
        ("stages.dense.schedule.warmup=9", "warmup of 9 epochs"),
        ("stages.dense.label_smoothing=1.0", r"label_smoothing is 1\.0"),
        ("stages.dense.distill.name=hard", "without a teacher"),
        ("stages.dense.name=finetune", "two stages named"),
        ("stages.dense.name=a/b", "name for a file"),
        ("stages.finetune.kind=admm", "'admm' without ranks"),
        ("stages.finetune.kind=slices", "slices without a teacher"),
        ("stages=[]", "without stages"),
        ("stages=3", "stages of .* is 3"),
        ("seed=-1", "seed is -1"),
        ("model.name=3", "name is 3"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(TdcError, match=message):
        read_recipe(write(tmp_path, SMALL), [change])


def slices(**more: Any) -> StageSpec:
    return StageSpec("slices", distill=DistillSpec(teacher="dense"), **more)


def test_slices_have_a_rate_of_their_own() -> None:
    own = OptimizerSpec("adamw", lr=1e-3, weight_decay=0.0)
    assert slices().optimizer == own
    assert slices(optimizer=own).optimizer == own
    with pytest.raises(TdcError, match="slices by sgd"):
        slices(optimizer=OptimizerSpec(lr=0.01))
    with pytest.raises(TdcError, match="slices with a schedule"):
        slices(schedule=ScheduleSpec(warmup=1))


def test_slices_need_a_decomposed_model(tmp_path: Path) -> None:
    changes = ["stages.finetune.distill.teacher=dense", "stages.finetune.kind=slices"]
    with pytest.raises(TdcError, match="slices of a dense model"):
        read_recipe(write(tmp_path, SMALL), changes)


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    with pytest.raises(TdcError, match=r"no recipe (.|\n)*one of .*shapes_resnet20"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(TdcError, match="is no TOML"):
        read_recipe(write(tmp_path, "seed = = 3"))
    with pytest.raises(TdcError, match="has no stages"):
        read_recipe(write(tmp_path, "seed = 3"))
    (tmp_path / "recipe.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TdcError, match="no recipe"):
        read_recipe(tmp_path / "recipe.toml")


def test_a_plan_becomes_part_of_the_recipe(tmp_path: Path) -> None:
    layers = {"layer3.0.conv2": {"form": "tucker2", "r_in": 32, "r_out": 16}}
    (tmp_path / "plan.json").write_text(json.dumps({"layers": layers}))
    text = SMALL + 'ranks = { plan = "plan.json" }\n'
    recipe = read_recipe(write(tmp_path, text))
    (tmp_path / "plan.json").unlink()
    kept = recipe.stages[1].ranks.layers["layer3.0.conv2"]
    assert (kept["form"], kept["r_in"], kept["r_out"]) == ("tucker2", 32, 16)
    with pytest.raises(TdcError, match="no plan at"):
        read_recipe(write(tmp_path, text))


def test_recipes_survive_json(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, SMALL))
    assert recipe_from(json.loads(json.dumps(recipe_to(recipe))), "json") == recipe


@pytest.mark.parametrize("name", shipped_recipes())
def test_those_that_come_along_can_be_read(name: str) -> None:
    recipe = read_recipe(Path(name))
    with torch.device("meta"):
        model = make_model(recipe.model.name, **recipe.model.options)
    modules = dict(model.named_modules())
    for stage in recipe.stages:
        for layer, choice in stage.ranks.layers.items():
            weight = modules[layer].weight
            assert choice["r_out"] <= weight.shape[0]
            assert choice["r_in"] <= weight.shape[1]
    assert shipped_recipes()[name]


def test_the_papers_schedule_is_the_one_on_record() -> None:
    """The authors' code: 180 epochs of ADMM, 160 of fine-tuning."""
    recipe = read_recipe(Path("imagenet_resnet18_admm"))
    admm, decompose, tune = recipe.stages
    assert (admm.kind, decompose.kind, tune.kind) == ("admm", "decompose", "finetune")
    assert (admm.epochs, admm.batch, admm.per_process, admm.admm.rho) == (180, 256, True, 0.001)
    assert (admm.optimizer.lr, admm.schedule.step, admm.schedule.gamma) == (0.01, 55, 0.1)
    assert (tune.epochs, tune.optimizer.lr, tune.schedule.step, tune.schedule.gamma) == (
        160,
        0.001,
        45,
        0.2,
    )
    assert len(admm.ranks.layers) == 16


def test_admm_by_adamw_needs_a_rho() -> None:
    optimizer = OptimizerSpec(name="adamw", lr=1e-3)
    with pytest.raises(TdcError, match="without rho"):
        StageSpec(kind="admm", optimizer=optimizer)
    assert StageSpec(kind="admm", optimizer=optimizer, admm=AdmmSpec(rho=0.1)).admm.rho == 0.1
