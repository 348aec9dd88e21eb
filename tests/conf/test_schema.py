"""Types without defaults, values only in YAML: every field MISSING, every choice complete."""

from dataclasses import MISSING as NO_DEFAULT
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import yaml
from omegaconf import MISSING

import conf
from conf import schema
from conf.choices import subtypes, type_of
from conf.schema import GROUPS
from launcher.composition.compose import compose

CONF = Path(conf.__file__).parent
CHOICES = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
RECIPES = [path.stem for path in sorted((CONF / "recipe").glob("*.yaml"))]
# What a choice leaves to the user (`???`).
ASKED = {("model", "local"): ["model.path=m"], ("data", "files"): ["data.sets=[generated]"]}
DATACLASSES = [node for node in vars(schema).values() if is_dataclass(node) and isinstance(node, type)]


def test_every_group_of_a_run_has_its_type_and_its_folder() -> None:
    groups = {field.name for field in fields(schema.Run)} - {"name", "output"}
    assert groups == set(GROUPS)
    assert all((CONF / group).is_dir() for group in GROUPS)


@pytest.mark.parametrize("node", DATACLASSES, ids=lambda node: node.__name__)
def test_no_field_has_a_value_outside_of_the_yaml_files(node: type) -> None:
    for field in fields(node):
        assert field.default == MISSING, field.name
        assert field.default_factory is NO_DEFAULT, field.name


@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=lambda word: word)
def test_each_choice_sets_every_field_of_its_type(group: str, choice: str) -> None:
    values = yaml.safe_load((CONF / group / f"{choice}.yaml").read_text())
    defaults = values.pop("defaults")
    assert defaults[0].startswith(f"/schema/{group}")
    assert defaults[-1] == "_self_"
    assert set(values) == {field.name for field in fields(type_of(group, choice))}


@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=lambda word: word)
def test_each_choice_composes_to_its_type(group: str, choice: str) -> None:
    run = compose(["model=demo", "data=demo", f"{group}={choice}", *ASKED.get((group, choice), [])])
    assert type(vars(run)[group]) is type_of(group, choice)


@pytest.mark.parametrize(("group", "choice"), [(group, choice) for group, choice in CHOICES if group in subtypes()], ids=lambda word: word)
def test_a_choice_with_a_type_of_its_own_is_found_by_its_name(group: str, choice: str) -> None:
    values = yaml.safe_load((CONF / group / f"{choice}.yaml").read_text())
    assert values["name"] == choice
    assert choice in subtypes()[group]


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_recipe_composes(recipe: str) -> None:
    assert compose([f"recipe={recipe}"]).name == recipe
