"""Names that people write, and the keys and choices that they mean."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path

from conf.choices import subtypes
from conf.groups import built_in_choices
from conf.llamafactory import NAMES
from conf.schema import GROUPS, PLAIN_GROUPS, Composed

# Parts of a path that say nothing of the model: within a run folder (conf/run_dir.py), an export of one, and the hub's cache.
GENERIC = re.compile(r"/|model|base|exports|checkpoints|snapshots|(final|step-\d+)(-\w+)?|\d{4}(-\d\d){2}_\d\d(-\d\d){2}(-\d+)?|[0-9a-f]{40}")
LONGEST = 60  # characters of a label, which is a part of the run's name
# Names of neither regimen nor LLaMA-Factory that other trainers and habit have for a key.
OTHER_NAMES = {
    "batch_size": "training.micro_batch",
    "max_length": "data.cutoff",
    "max_len": "data.cutoff",
    "max_seq_len": "data.cutoff",
    "max_seq_length": "data.cutoff",
    "model_max_length": "data.cutoff",
    "model_name": "model.path",
    "num_epochs": "training.epochs",
    "r": "regime.rank",
    "target_modules": "regime.targets",
    "train_file": "data.sets",
}


@cache
def known_keys() -> list[str]:
    """Every dotted key of the schema, over all choices."""
    keys = ["name", "output", *GROUPS, "recipe"]
    for group in GROUPS:
        keys += [f"{group}.{field.name}" for node in types_of(group) for field in fields(node)]
    return list(dict.fromkeys(keys))


def types_of(group: str) -> list[type]:
    return [PLAIN_GROUPS[group]] if group in PLAIN_GROUPS else list(subtypes()[group].values())


def field_type(key: str) -> str:
    """The annotation of a key, such as `list[str]`; empty for a group and for what is no key."""
    group, _, name = key.partition(".")
    if not name and group not in GROUPS:
        group, name = "", key
    types = [Composed] if group == "" else types_of(group) if group in GROUPS else []
    found = [str(field.type) for node in types for field in fields(node) if field.name == name]
    return found[0].removeprefix("<class '").removesuffix("'>") if found else ""


def nearest_key(key: str) -> str | None:
    """The key that is probably meant: the same last word in any spelling, a name of other trainers, else one that looks like it."""
    word = key.rsplit(".", 1)[-1].lower().replace("-", "_")
    same = [known for known in known_keys() if known.rsplit(".", 1)[-1] == word]
    if same or word in OTHER_NAMES:
        return next((known for known in same if known.split(".")[0] == key.split(".")[0]), same[0] if same else OTHER_NAMES[word])
    near = difflib.get_close_matches(key, known_keys(), n=1, cutoff=0.7)
    if near:
        return near[0]
    words = {row.theirs: row.ours for row in NAMES} | OTHER_NAMES | {known.rsplit(".", 1)[-1]: known for known in reversed(known_keys())}
    return next((words[found] for found in difflib.get_close_matches(word, list(words), n=1, cutoff=0.7)), None)


def nearest_choices(name: str, known: Sequence[str]) -> list[str]:
    """The choices that are probably meant. Capitals and the sort of separator do not count."""
    plain = {known_as.lower().replace("-", "_"): known_as for known_as in known}
    word = name.rsplit("/", 1)[-1].lower().replace("-", "_").removesuffix(".yaml")
    begun = [known_as for text, known_as in plain.items() if text.startswith(word)]
    if word in plain:
        return [plain[word]]
    return begun or [plain[near] for near in difflib.get_close_matches(word, list(plain), n=1, cutoff=0.5)]


def folder_name(path: str | None) -> str:
    """The label of a model by its path: the last part that says which model it is. conf/model/local.yaml calls it by this name."""
    parts = Path(path or "").absolute().parts if (path or "").startswith(".") else Path(path or "").parts
    telling = [part for part in parts if not GENERIC.fullmatch(part)]
    label = re.sub(r"[^\w.+=,@-]", "_", telling[-1].rpartition("--")[2]) if telling else ""
    return label.lstrip(".+=,@-")[:LONGEST] or "model"


def preset_of(path: str) -> str | None:
    """The model preset whose files a hub id means."""
    from conf.keys import yaml_lines

    return next((choice for choice in built_in_choices("model") if yaml_lines("model", choice)["path"][0] == path), None)
