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

from benchmarks.constraint_rows import DENSE, NETWORKS, ROWS, recipe_of
from benchmarks.constraint_sets import HERE, RESULTS, check_stages, places, recipe_for
from benchmarks.constraint_table import figures_of, folder_name, joined, print_rows
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


def trained(folder: Path, accuracies: dict[str, float]) -> Path:
    """Rows of one seed, as they are when they are done."""
    for name, accuracy in accuracies.items():
        tuned = {"accuracy": accuracy, "macs": 40 if name == DENSE else 10, "compression": 8.0}
        stages = {"finetune": tuned}
        if name != DENSE:
            stages = {"project": {**tuned, "accuracy": accuracy - 0.25}, **stages}
        row = {"log": [{"admm_final": 0.02}, {}], "stages": stages, "cpu_seconds": 7.0}
        (folder / folder_name(name)).mkdir(parents=True)
        (folder / folder_name(name) / "row.json").write_text(json.dumps(row))
    return folder


def test_seeds_run_at_other_times_are_joined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = {
        0: trained(tmp_path / "0", {DENSE: 0.875, "2:4": 0.75}),
        1: trained(tmp_path / "1", {DENSE: 0.75, "2:4": 0.75, "ternary": 0.5}),
    }
    first = figures_of({0: folders[0]}, [DENSE, "2:4"])
    both = joined(first, figures_of({1: folders[1]}, [DENSE, "2:4", "ternary"]))
    assert list(both) == [DENSE, "2:4", "ternary"]
    assert list(both["2:4"]["seeds"]) == ["0", "1"] and list(both["ternary"]["seeds"]) == ["1"]
    assert [run["points_to_dense"] for run in both["2:4"]["seeds"].values()] == [-12.5, 0.0]
    ternary = both["ternary"]["seeds"]["1"]
    assert ternary["accuracy_after_projection"] == 0.25 and ternary["macs_share"] == 0.25
    assert joined(both, both) == both
    print_rows("net", both)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("2:4"))
    assert line.split()[1:9] == [
        "2",
        "0.125",
        "0.250",
        "50.00%",
        "75.00%",
        "-6.25",
        "(-12.50",
        "to",
    ]


def test_figures_of_other_sets_are_dropped(tmp_path: Path) -> None:
    found = figures_of({1: trained(tmp_path, {DENSE: 0.75, "2:4": 0.5})}, [DENSE, "2:4"])
    known = {"2:4": {"paper": "", "sets": [{"name": "n_m", "n": 1, "m": 4}], "seeds": {"0": {}}}}
    assert list(joined(known, found)["2:4"]["seeds"]) == ["1"]


def test_what_is_published_is_of_todays_sets() -> None:
    for network, rows in json.loads(RESULTS.read_text()).items():
        assert network in NETWORKS
        for name, row in rows.items():
            assert row["sets"] == list(ROWS[name].sets) and row["paper"] == ROWS[name].paper
