"""A proposal beside what was given: the overrides of its run, and the given keys that its choices do not have."""

from collections.abc import Sequence
from dataclasses import fields

from conf.choices import type_of


def key_of(override: str) -> str:
    return override.partition("=")[0]


def left_out(given: Sequence[str], proposed: Sequence[str]) -> list[str]:
    """Keys of a choice that the proposal replaces, and that its own choice does not have: composition refuses them beside it."""
    choices = {key_of(text): text.partition("=")[2] for text in proposed if "." not in key_of(text)}
    strange = []
    for key in dict.fromkeys(map(key_of, given)):
        group, _, field = key.partition(".")
        if field and group in choices and field.partition(".")[0] not in {known.name for known in fields(type_of(group, choices[group]))}:
            strange.append(key)
    return strange


def pasted(given: Sequence[str], proposed: Sequence[str]) -> list[str]:
    """The overrides of the proposed run: what was given, without what the proposal changes or cannot have."""
    replaced = {*map(key_of, proposed), *left_out(given, proposed)}
    return [*(text for text in given if key_of(text) not in replaced), *proposed]
