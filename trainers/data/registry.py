"""The registry of data sets: an entry of dataset_info.json becomes a Source, or a message why training on it cannot work."""

import difflib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from trainers.data.layout import ALPACA, OPENAI, SHAREGPT, Columns, Layout, Tags, kind
from trainers.errors import DataError

LAYOUTS = {"alpaca": ALPACA, "sharegpt": SHAREGPT, "openai": OPENAI}
MEDIA = ("images", "videos", "audios")
PREFERENCE = ("chosen", "rejected", "kto_tag")
OTHER_HUBS = ("ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
KEYS = ("file_name", "hf_hub_url", "split", "subset", "folder", "num_samples", "formatting", "ranking", "columns", "tags", *OTHER_HUBS)


@dataclass(frozen=True)
class Source:
    """Where the records of one set are, and how they are laid out; without a layout their columns decide."""

    name: str
    file: Path | None = None
    hub_id: str | None = None
    subset: str | None = None
    split: str = "train"
    folder: str | None = None  # inside the hub repository
    samples: int | None = None  # the first n
    layout: Layout | None = None


def read_registry(path: Path) -> dict[str, object]:
    """The entries by name; none where there is no registry.

    Raises:
        DataError: when the file is not a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}, column {error.colno}: broken JSON: {error.msg}. Mend the registry there.") from error
    if not isinstance(entries, dict):
        raise DataError(f"{path} holds a {kind(entries)}; a registry is an object of names and entries.")
    return entries


def registered_source(path: Path, name: str, entry: object) -> Source:
    """The source that entry `name` of the registry at `path` describes.

    Raises:
        DataError: naming the entry and the key that is wrong or cannot be served.
    """
    place = f"{path}, entry {name}"
    if not isinstance(entry, dict):
        raise DataError(f"{place}: is a {kind(entry)}; an entry is an object with file_name or hf_hub_url.")
    refuse_unknown_keys(place, entry, KEYS)
    refuse_other_stages(place, entry)
    file, hub_id = text(place, entry, "file_name"), text(place, entry, "hf_hub_url")
    if file is None and hub_id is None:
        others = [key for key in OTHER_HUBS if key in entry]
        raise DataError(f"{place}: {' and '.join(others) or 'no source'} cannot be read here. Give file_name (in {path.parent}) or hf_hub_url.")
    return Source(
        name=name,
        file=path.parent / file if file is not None and hub_id is None else None,
        hub_id=hub_id,
        subset=text(place, entry, "subset"),
        split=text(place, entry, "split") or "train",
        folder=text(place, entry, "folder"),
        samples=sample_count(place, entry),
        layout=registered_layout(place, entry),
    )


def registered_layout(place: str, entry: dict[str, object]) -> Layout:
    formatting = text(place, entry, "formatting") or "alpaca"
    if formatting not in LAYOUTS:
        raise DataError(f"{place}: formatting={formatting} is unknown. It is one of: {', '.join(LAYOUTS)}.")
    layout = LAYOUTS[formatting]
    if "columns" in entry:
        layout = replace(layout, columns=registered_columns(place, layout, mapping(place, entry, "columns")))
    if "tags" in entry:
        layout = replace(layout, tags=registered_tags(place, layout.tags, mapping(place, entry, "tags")))
    return layout


def registered_columns(place: str, layout: Layout, given: dict[str, str]) -> Columns:
    """Columns that an entry names; what it leaves out is not read, except the columns without which there is no sample."""
    known = tuple(Columns.__dataclass_fields__)
    refuse_unknown_keys(f"{place}, columns", given, known)
    if layout.kind == "alpaca" and "prompt" in given and "response" not in given:
        raise DataError(f"{place}: no response column is named, so this is text for pre-training. stage=sft learns answers: name columns.response.")
    return replace(layout.columns, **{name: given.get(name, getattr(layout.columns, name) if name in layout.required else None) for name in known})


def registered_tags(place: str, defaults: Tags, given: dict[str, str]) -> Tags:
    known = {f"{name}_tag": name for name in Tags.__dataclass_fields__}
    refuse_unknown_keys(f"{place}, tags", given, tuple(known))
    return replace(defaults, **{known[key]: value for key, value in given.items()})


def refuse_other_stages(place: str, entry: dict[str, object]) -> None:
    columns = entry.get("columns")
    named = list(columns) if isinstance(columns, dict) else []
    media = [key for key in MEDIA if key in named or key in entry]
    if media:
        raise DataError(f"{place}: {', '.join(media)} cannot be trained on; this runner trains on text. Choose another set.")
    preference = [key for key in PREFERENCE if key in named]
    if entry.get("ranking") is True or preference:
        what = "ranking: true" if entry.get("ranking") is True else f"columns.{preference[0]}"
        raise DataError(f"{place}: {what} marks preference data (answers to compare); stage=sft needs one answer per prompt. Choose another set.")


def refuse_unknown_keys(place: str, given: dict[str, object] | dict[str, str], known: tuple[str, ...]) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise DataError(f"{place}: {key} is not a key. {f'Did you mean {near[0]}? ' if near else ''}The keys are: {', '.join(known)}.")


def text(place: str, entry: dict[str, object], key: str) -> str | None:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{place}: {key} is a {kind(value)}; it must be text.")
    return value


def mapping(place: str, entry: dict[str, object], key: str) -> dict[str, str]:
    value = entry[key]
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise DataError(f"{place}: {key} must be an object whose values are column names or tags.")
    return value


def sample_count(place: str, entry: dict[str, object]) -> int | None:
    value = entry.get("num_samples")
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise DataError(f"{place}: num_samples={value!r}; it must be a whole number from 1 on.")
    return value
