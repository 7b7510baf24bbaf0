"""The benchmark's rows are recipes, and each ends inside its sets."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tdc_train.models.registry import make_model
from tdc_train.projections.sets import chosen_set
from tdc_train.recipe_file import read_recipe, recipe_from, recipe_to, shipped_recipes
from tdc_train.training.rebuild import fresh

from benchmarks.constraint_rows import NETWORKS, ROWS, recipe_of
from benchmarks.constraint_sets import HERE, RESULTS, check_stages, places, recipe_for
from benchmarks.training_arms import DATA


@pytest.mark.parametrize("network", NETWORKS)
def test_every_row_is_a_recipe_for_every_network(network: str) -> None:
    described = NETWORKS[network]
    model = make_model(described.name, **described.options)
    weights = str(HERE / "checkpoints" / described.checkpoint)
    for name, row in ROWS.items():
        recipe = recipe_from(recipe_of(described, row, 1, weights, DATA, None), name)
        assert sum(stage.kind == "project" for stage in recipe.stages) == len(row.sets)
        assert recipe.stages[-1].kind == ("finetune" if row.sets else "dense")
        for table in row.sets:
            if table["name"] != "top_k":
                # Most layers: a row that constrains one would say nothing.
                assert len(chosen_set(table).sets_for(model)) >= 10
    assert fresh(recipe.model) is not None


def test_a_trial_is_kept_apart_from_what_is_published() -> None:
    folder = Path("rows")
    assert places(folder, None, None) == (folder, RESULTS)
    trials = [places(folder, *said) for said in ((1, None), (2, None), (None, 64), (1, 64))]
    assert len(set(trials)) == len(trials)
    for rows, out in trials:
        assert folder in rows.parents
        assert out.parent == rows


def test_a_row_of_another_recipe_is_not_taken_for_todays(tmp_path: Path) -> None:
    chosen = argparse.Namespace(epochs=None, images=None)
    recipe = recipe_for(chosen, "resnet20", 0, "2:4")
    found = recipe_to(recipe)
    (tmp_path / "recipe.json").write_text(json.dumps({**found, "model": "elsewhere"}))
    check_stages(tmp_path, recipe)
    found["stages"][0]["amp"] = True
    (tmp_path / "recipe.json").write_text(json.dumps(found))
    with pytest.raises(SystemExit, match="another recipe"):
        check_stages(tmp_path, recipe)


def test_the_shipped_recipes_have_sets_that_fit() -> None:
    names = [name for name in shipped_recipes() if name.startswith("shapes_resnet20_")]
    found = 0
    for name in names:
        recipe = read_recipe(Path(name))
        model = make_model(recipe.model.name, **recipe.model.options)
        for stage in recipe.stages:
            if stage.set:
                found += 1
                assert len(chosen_set(stage.set).sets_for(model)) == 19
    assert found == 3
