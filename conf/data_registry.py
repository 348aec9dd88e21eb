"""The registry of data sets: an entry of dataset_info.json becomes a Source, or a message why it cannot be read."""

import difflib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from conf.data_layout import ALPACA, OPENAI, SHAREGPT, Columns, Layout, Tags, in_words
from conf.stages import Kind
from conf.strict_json import LongNumber, RepeatedKey, broken, loads
from conf.text_encoding import HEAD, other_encoding

LAYOUTS = {"alpaca": ALPACA, "sharegpt": SHAREGPT, "openai": OPENAI}
MEDIA = ("images", "videos", "audios")
# Sources that are named but not read, and what to do instead.
OTHER_SOURCES = {
    "ms_hub_url": "ModelScope is not read here: download the set",
    "om_hub_url": "Modelers is not read here: download the set",
    "cloud_file_name": "cloud storage is not read here: download the set",
    "script_url": "a loading script is code, and code of a data set is never run: save its records",
}
KEYS = ("file_name", "hf_hub_url", "split", "subset", "folder", "num_samples", "formatting", "ranking", "columns", "tags", *OTHER_SOURCES)


class DataError(ValueError):
    """A message for the user: which file and record, which column, what was expected, what to do."""


@dataclass(frozen=True)
class Source:
    """Where the records of one set are, and how they are laid out; without a layout their columns decide."""

    name: str
    file: Path | None = None  # or a folder of files; neither this nor hub_id: the generated set
    hub_id: str | None = None
    subset: str | None = None
    split: str = "train"
    folder: str | None = None  # inside the hub repository
    samples: int | None = None  # the first n
    layout: Layout | None = None


def read_registry(path: Path) -> dict[str, object]:
    """The entries by name; none where there is no registry.

    Raises:
        DataError: when the file is not a JSON object in UTF-8.
    """
    if not path.is_file():
        return {}
    try:
        entries = loads(path.read_text(encoding="utf-8-sig"))
    except (LongNumber, RepeatedKey) as error:
        raise DataError(f"{path}: {error}. Give each entry a name of its own, and each key one value.") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}, column {error.colno}: this is not valid JSON: {broken(error)}. Fix the registry there."
        ) from error
    except UnicodeDecodeError as error:
        told = other_encoding(path, path.read_bytes()[:HEAD])
        raise DataError(told or f"{path}: byte {error.start} is not UTF-8. Save the registry as UTF-8.") from error
    except RecursionError as error:
        raise DataError(f"{path}: its JSON is nested too deeply to be read. A registry is an object of names and entries.") from error
    if not isinstance(entries, dict):
        raise DataError(f"{path} holds {in_words(entries)}. Make it an object of names and entries.")
    return entries


def registered_names(path: Path) -> list[str]:
    """The names of the entries that say where data is; none of a file that is no registry: datasets writes one of the same name beside data."""
    try:
        entries = read_registry(path)
    except DataError:
        return []
    return [name for name, entry in entries.items() if isinstance(entry, dict) and {"file_name", "hf_hub_url", *OTHER_SOURCES} & entry.keys()]


def registered_source(path: Path, name: str, entry: object) -> Source:
    """The source that entry `name` of the registry at `path` describes.

    Raises:
        DataError: naming the entry and the key that is wrong or cannot be served.
    """
    place = f"{path}, entry {name}"
    if not isinstance(entry, dict):
        raise DataError(f"{place} is {in_words(entry)}. Make it an object with file_name or hf_hub_url.")
    refuse_unknown_keys(place, entry, KEYS)
    refuse_media(place, entry)
    file, hub_id = text(place, entry, "file_name"), text(place, entry, "hf_hub_url")
    if file is None and hub_id is None:
        why = "; ".join(f"{key}: {reason}" for key, reason in OTHER_SOURCES.items() if key in entry) or "no source is named"
        raise DataError(f"{place}: {why}. Give file_name (a file or folder in {path.parent}) or hf_hub_url.")
    if file is not None and hub_id is not None:
        raise DataError(f"{place}: file_name={file} and hf_hub_url={hub_id} both name the data. Keep the one that is to be read.")
    if hub_id is None:
        refuse_keys_of_the_hub(place, entry)
    return Source(
        name=name,
        file=None if file is None else path.parent / file,
        hub_id=hub_id,
        subset=text(place, entry, "subset"),
        split=text(place, entry, "split") or "train",
        folder=text(place, entry, "folder"),
        samples=sample_count(place, entry),
        layout=registered_layout(place, entry),
    )


def refuse_keys_of_the_hub(place: str, entry: dict[str, object]) -> None:
    """What only sets of the hub have would be left out of a local set."""
    given = [key for key in ("subset", "folder") if key in entry]
    if given:
        raise DataError(f"{place}: {' and '.join(given)} can be read of sets of the hub alone. Name the file or folder itself in file_name.")
    split = text(place, entry, "split") or "train"
    if "[" in split:
        raise DataError(f"{place}: split={split} is a part of a split, which only sets of the hub have. Use num_samples for the first records.")


def registered_layout(place: str, entry: dict[str, object]) -> Layout:
    formatting = text(place, entry, "formatting") or "alpaca"
    if formatting not in LAYOUTS:
        raise DataError(f"{place}: formatting={formatting} is unknown. Use one of: {', '.join(LAYOUTS)}.")
    columns = mapping(place, entry, "columns") if "columns" in entry else {}
    refuse_unknown_keys(f"{place}, columns", columns, tuple(Columns.__dataclass_fields__))
    refuse_equal(f"{place}, columns", columns, "column")
    layout = replace(LAYOUTS[formatting], holds=what_it_holds(place, entry, formatting, columns))
    if columns:
        layout = replace(layout, columns=registered_columns(layout, columns), named=tuple(columns.values()))
    if "tags" in entry:
        layout = replace(layout, tags=registered_tags(place, layout.tags, mapping(place, entry, "tags")))
    if entry.get("tags") and formatting == "alpaca":
        raise DataError(
            f"{place}: tags name the roles of messages, and formatting=alpaca has no messages. Remove tags, or set formatting=sharegpt or openai."
        )
    return layout


def what_it_holds(place: str, entry: dict[str, object], formatting: str, columns: dict[str, str]) -> Kind:
    ranking = entry.get("ranking", False)
    if not isinstance(ranking, bool):
        raise DataError(f"{place}: ranking is {in_words(ranking)}. It must be true or false.")
    if ranking or {"chosen", "rejected"} <= set(columns):
        return "pairs"
    if "kto_tag" in columns:
        return "labelled"
    return "text" if formatting == "alpaca" and "prompt" in columns and "response" not in columns else "answers"


def registered_columns(layout: Layout, given: dict[str, str]) -> Columns:
    """Columns that an entry names; what it leaves out is not read, except the columns without which there is no sample."""
    names = Columns.__dataclass_fields__
    return replace(layout.columns, **{name: given.get(name, getattr(layout.columns, name) if name in layout.required else None) for name in names})


def registered_tags(place: str, defaults: Tags, given: dict[str, str]) -> Tags:
    known = {f"{name}_tag": name for name in Tags.__dataclass_fields__}
    refuse_unknown_keys(f"{place}, tags", given, tuple(known))
    tags = replace(defaults, **{known[key]: value for key, value in given.items()})
    calls = {} if tags.function == tags.assistant else {"function_tag": tags.function}  # an answer may hold calls and text
    roles = {"system_tag": tags.system, "user_tag": tags.user, "assistant_tag": tags.assistant, "observation_tag": tags.observation, **calls}
    refuse_equal(f"{place}, tags", roles, "role")
    refuse_equal(f"{place}, tags", {"role_tag": tags.role, "content_tag": tags.content}, "key of a message")
    return tags


def refuse_equal(place: str, names: dict[str, str], what: str) -> None:
    """Refuse two keys with one value: nobody could say which of them it stands for in the data."""
    keys: dict[str, str] = {}
    for key, value in names.items():
        other = keys.setdefault(value, key)
        if other != key:
            raise DataError(f"{place}: {other} and {key} are both {value!r}, so it is not known which {what} is meant. Give each its own.")


def refuse_media(place: str, entry: dict[str, object]) -> None:
    columns = entry.get("columns")
    media = [key for key in MEDIA if key in entry or (isinstance(columns, dict) and key in columns)]
    if media:
        raise DataError(f"{place}: {', '.join(media)} cannot be used, because regimen trains on text only. Choose another set.")


def refuse_unknown_keys(place: str, given: dict[str, object] | dict[str, str], known: tuple[str, ...]) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise DataError(f"{place}: {key} is not a key. {f'Did you mean {near[0]}? ' if near else ''}The keys are: {', '.join(known)}.")


def text(place: str, entry: dict[str, object], key: str) -> str | None:
    value = entry.get(key)
    if value is not None and not (isinstance(value, str) and value.strip()):
        raise DataError(f"{place}: {key} is {in_words(value)}. Give it a text, or remove the key.")
    return value


def mapping(place: str, entry: dict[str, object], key: str) -> dict[str, str]:
    value = entry[key]
    if not isinstance(value, dict):
        raise DataError(f"{place}: {key} is {in_words(value)}. It must be an object whose values are names of columns or tags.")
    return {name: word(f"{place}, {key}", value, name) for name in value}


def word(place: str, given: dict[str, object], key: str) -> str:
    value = text(place, given, key)
    if value is None:
        raise DataError(f"{place}: {key} is null. Give it a text, or remove the key.")
    return value


def sample_count(place: str, entry: dict[str, object]) -> int | None:
    value = entry.get("num_samples")
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise DataError(f"{place}: num_samples={value!r} is not possible. Give a whole number of at least 1.")
    return value
