"""docs/reference/keys.md is what docs/make_keys.py makes, and what it says of a key is what a run gets."""

from dataclasses import fields
from typing import Any

import pytest
import yaml

from conf.keys import UNITS, Comment, KeyRow, field_of, key_rows, schema_fields, types_of
from conf.schema import GROUPS, PLAIN_GROUPS, Composed
from docs.make_keys import PAGE, llamafactory_names, page
from launcher.composition.compose import compose
from launcher.rules.ranges import LIMITS

ASKED = {("model", "local"): ["model.path=m"], ("data", "files"): ["data.sets=[generated]"]}
ROWS = {group: key_rows(group, llamafactory_names()) for group in GROUPS}
MOST = max(len(types_of(group)) for group in GROUPS)


def test_the_page_is_what_the_generator_makes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m docs.make_keys"


def test_a_row_says_all_about_a_key() -> None:
    [rank] = [row for row in ROWS["regime"] if row.key == "regime.rank"]
    defaults = (("lora", "16"), ("qlora", "16"))
    assert rank == KeyRow("regime.rank", "whole number", "", (), "Width of the adapter.", defaults, (), ("lora_rank",))


def test_a_comment_is_values_or_a_unit_and_then_help() -> None:
    listed, counted, plain = Comment("a | b-N: what it is: this"), Comment("steps: null: never."), Comment("n > 0: the last n.")
    assert (listed.values, listed.unit, listed.help) == (("a", "b-N"), "", "what it is: this")
    assert (counted.values, counted.unit, counted.help) == ((), "steps", "null: never.")
    assert (plain.values, plain.unit, plain.help) == ((), "", "n > 0: the last n.")


def test_every_field_has_a_comment_that_is_a_sentence() -> None:
    described = {*fields_of(Composed), *(field for group in GROUPS for _, type_ in types_of(group) for field in fields_of(type_))}
    helps = {field: field_of(*field).comment.help for field in described}
    assert {field for field, help_ in helps.items() if not help_.endswith(".")} == set()


def fields_of(type_: type) -> list[tuple[type, str]]:
    return [(type_, field.name) for field in fields(type_)]


def test_every_unit_is_used() -> None:
    assert {field.comment.unit for field in schema_fields().values()} - {""} == set(UNITS)


def test_every_choice_has_one_row_for_each_of_its_keys() -> None:
    for group in GROUPS:
        for choice, type_ in types_of(group):
            keys = [row.key for row in ROWS[group] if choice in row.choices]
            unsettable = [f"{group}.name"] if group not in PLAIN_GROUPS else []  # there the name decides the type
            assert sorted([*keys, *unsettable]) == sorted(f"{group}.{field.name}" for field in fields(type_))


@pytest.mark.parametrize("index", range(MOST))
def test_every_default_is_the_composed_one(index: int) -> None:
    """One choice of every group at a time: as many runs as the largest group has choices."""
    chosen = {group: types_of(group)[index % len(types_of(group))][0] for group in GROUPS}
    asked = [override for choice in chosen.items() for override in ASKED.get(choice, [])]
    run = compose([*(f"{group}={choice}" for group, choice in chosen.items()), *asked])
    for group, choice in chosen.items():
        values = vars(vars(run)[group])
        for row in ROWS[group]:
            default = dict(row.defaults).get(choice, "???")
            if default not in ("???", "") and not default.startswith("${"):  # asked of the user, a table of several lines, or made of another key
                assert values[row.key.removeprefix(f"{group}.")] == read(default, row.type), row.key


def read(text: str, type_: str) -> Any:
    return text if type_.startswith("text") and text != "null" else yaml.safe_load(text)


def test_the_values_of_a_key_are_those_that_are_accepted() -> None:
    listed = {row.key: row.values for rows in ROWS.values() for row in rows if row.values}
    for limit in LIMITS:
        for value in listed.get(limit.key, ()):
            assert limit.holds(yaml.safe_load(value.replace("-N", "-3").replace("_N", "_3")) if value != "off" else value), (limit.key, value)
        if limit.expected.startswith("one of "):
            assert ", ".join(listed[limit.key]) == limit.expected.removeprefix("one of ")
