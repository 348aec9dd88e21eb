"""Sizes as people write them (48GB, 80GiB, 500MB): one parser for keys and for the options of verbs."""

import re
from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from typing import Any, TypeVar

from conf.schema import Composed

# GNU's tools and Slurm read them so: KB is 1000 bytes; K and KiB are 1024.
UNITS: Mapping[str, int] = {
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", start=1)},
    **{f"{letter}{binary}": 1024**power for power, letter in enumerate("KMGT", start=1) for binary in ("iB", "")},
}
SIZE = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?) ?(?P<unit>[A-Za-z]*)")
EXAMPLES = "48GB, 80GiB or 500MB"
MIB = 1024**2

# Keys of the type Size, and the bytes that a bare number of each counts. A run keeps whole numbers of that unit.
KEPT_IN: Mapping[str, int] = {"node.gpu_memory": 1, "node.host_memory": 1, "sharding.bucket_mb": MIB}

Described = TypeVar("Described", bound=Composed)


def bytes_of(text: str, bare: int | None = None) -> int | None:
    """The bytes of a written size; `bare`: what a number without unit counts. None where it is not a size."""
    found = SIZE.fullmatch(text.strip())
    if found is None:
        return None
    known = {unit.lower(): size for unit, size in UNITS.items()}
    unit = bare if found["unit"] == "" else known.get(found["unit"].lower())
    return None if unit is None else round(float(found["number"]) * unit) if "." in found["number"] else int(found["number"]) * unit


def with_sizes(run: Described) -> Described:
    """The run with every size as the whole number that it stands for.

    Raises:
        ValueError: naming the key and the text that is not a size.
    """
    for key, kept in KEPT_IN.items():
        group, field = key.split(".")
        node = getattr(run, group)
        written = vars(node).get(field)
        if written is not None and type(written) is not int:
            run = replace(run, **{group: replace(node, **{field: whole(key, written, kept)})})
    return run


def whole(key: str, written: Any, kept: int) -> int:
    size = None
    if isinstance(written, str):
        size = bytes_of(written, kept)
    elif isinstance(written, float) and isfinite(written):
        size = round(written * kept)
    if size is None:
        raise ValueError(f"{key}={written} is not a size. Write a number and a unit, such as {EXAMPLES}.")
    if size % kept:
        raise ValueError(f"{key}={written} is not a whole number of MiB. Write {key}={-(-size // kept)}MiB.")
    return size // kept
