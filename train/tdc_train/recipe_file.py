"""Recipes from TOML files, and those that come with the package."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

from tdc_deploy.errors import TdcError, did_you_mean
from tdc_deploy.plan_file import plan_to_json, read_plan
from tdc_train.recipe import Recipe, StageSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe; a name without a file is one that comes with the package.

    Args:
        path: a TOML file, or a name that `shipped_recipes` lists. Plans and weights that it names are
            looked for in its folder.
        changes: texts `section.key=value`, with stages by name or number: `stages.dense.epochs=3`.

    Raises:
        TdcError: no such file, no TOML, an unknown key or a value out of range.
    """
    text, folder = _text(path)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TdcError(f"{path} is no TOML: {error}") from None
    for change in changes:
        _change(data, change)
    return _absolute(recipe_from(data, str(path)), folder)


def shipped_recipes() -> dict[str, str]:
    """Name → first comment line of each recipe that comes with the package."""
    found = {}
    for entry in sorted((resources.files("tdc_train") / "recipes").iterdir(), key=str):
        if entry.name.endswith(".toml"):
            first = entry.read_text(encoding="utf-8").partition("\n")[0]
            found[entry.name.removesuffix(".toml")] = first.lstrip("# ")
    return found


def recipe_text(name: str) -> str:
    """The TOML of a recipe that comes with the package.

    Raises:
        TdcError: there is none of this name.
    """
    if name not in (known := shipped_recipes()):
        raise TdcError(f"no recipe {name!r}", expected=f"one of {', '.join(known)}")
    entry = resources.files("tdc_train") / "recipes" / f"{name}.toml"
    return entry.read_text(encoding="utf-8")


def recipe_from(data: Any, where: str) -> Recipe:
    """A recipe from plain values, such as `asdict` makes; the inverse of `recipe_to`."""
    recipe: Recipe = _made(Recipe, data, where)
    return recipe


def recipe_to(recipe: Recipe) -> dict[str, Any]:
    """Plain values, as of TOML or JSON."""
    data = asdict(recipe)
    data["stages"] = list(data["stages"])
    return data


def _text(path: Path) -> tuple[str, Path]:
    if not path.exists() and path.name in shipped_recipes():
        return recipe_text(path.name), Path.cwd()
    try:
        return path.read_text(encoding="utf-8"), path.resolve().parent
    except (OSError, UnicodeDecodeError) as error:
        raise TdcError(
            f"no recipe {path}: {error}",
            expected=f"a TOML file, or one of {', '.join(shipped_recipes())}",
        ) from None


def _change(data: dict[str, Any], change: str) -> None:
    """Apply one `section.key=value`; the value is TOML, or else a text."""
    keys, sign, text = change.partition("=")
    *path, last = keys.strip().split(".")
    if not sign or not last:
        raise TdcError(f"--set {change}", expected="section.key=value, such as seed=1")
    at: Any = data
    for key in path:
        at = _entered(at, key, change)
    if not isinstance(at, dict):
        raise TdcError(f"--set {change}", expected="a key in a section")
    try:
        at[last] = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        at[last] = text.strip()


def _entered(at: Any, key: str, change: str) -> Any:
    if isinstance(at, dict):
        return at.setdefault(key, {})
    if isinstance(at, list):
        names = [stage.get("name") or stage.get("kind") for stage in at]
        if key in names:
            return at[names.index(key)]
        if key.isdigit() and int(key) < len(at):
            return at[int(key)]
        raise TdcError(
            f"--set {change}", expected=f"one of the stages {', '.join(map(str, names))}"
        )
    raise TdcError(f"--set {change}: {key} is in no section", expected="section.key=value")


def _made(cls: type[Any], data: Any, where: str) -> Any:
    """A dataclass from a table, whose fields that are dataclasses are tables too."""
    if not isinstance(data, Mapping):
        raise TdcError(f"{where} is {data!r}", expected="a table")
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in hints:
            raise TdcError(
                f"{where} has unknown key {key!r}",
                expected=f"one of {', '.join(hints)}",
                fix=did_you_mean(key, hints),
            )
        if key == "stages":
            values[key] = _stages(value, where)
        elif isinstance(hints[key], type) and hasattr(hints[key], "__dataclass_fields__"):
            values[key] = _made(hints[key], value, f"{key} of {where}")
        else:
            values[key] = value
    _check_complete(cls, values, where)
    try:
        return cls(**values)
    except TdcError as error:
        raise TdcError(
            f"{where}: {error.received}", expected=error.expected, fix=error.fix
        ) from None


def _stages(value: Any, where: str) -> tuple[StageSpec, ...]:
    if not isinstance(value, list):
        raise TdcError(f"stages of {where} is {value!r}", expected="[[stages]]")
    return tuple(_made(StageSpec, stage, f"stage {i} of {where}") for i, stage in enumerate(value))


def _check_complete(cls: type[Any], values: Mapping[str, Any], where: str) -> None:
    for entry in fields(cls):
        required = entry.default is MISSING and entry.default_factory is MISSING
        if required and entry.name not in values:
            raise TdcError(f"{where} has no {entry.name}", expected=f"{entry.name} in it")


def _absolute(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with its files found from `folder`, and plans read."""
    data = recipe_to(recipe)
    places = [(data["data"], "root"), (data["model"], "weights")]
    for stage in data["stages"]:
        places += [(stage["distill"], "weights"), (stage["search"], "store")]
    for section, key in places:
        if section[key]:
            section[key] = str(folder / Path(section[key]).expanduser())
    for stage in data["stages"]:
        if plan := stage["ranks"].pop("plan"):
            # The plan itself, so that a checkpoint does not depend on the file.
            layers = plan_to_json(read_plan(folder / plan))["layers"]
            stage["ranks"]["layers"] = layers
        teacher = stage["distill"]["teacher"]
        if teacher and (folder / teacher).is_file():
            stage["distill"]["teacher"] = str(folder / teacher)
    return recipe_from(data, "the recipe")
