"""What data.sets names (an entry of the registry, a file, a folder, a hub id or the generated set), as the launcher and the trainers both read it."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from conf.constants import GENERATED
from conf.data_registry import DataError, Source, read_registry, registered_names, registered_source
from conf.schema import Data

ENDINGS = (".json", ".jsonl", ".csv", ".parquet", ".txt")  # of data files; they tell how a file is read
COMPRESSIONS = (".gz", ".zst")  # which may follow any of them
SPLITS = {"train": "train|training", "validation": "validation|valid|val|dev", "test": "test|testing|eval|evaluation"}  # and the names of their files
LISTED = 20  # names that a message shows of many
HELD_OUT = ("validation", "test")
NOTES = re.compile(r"(readme|licen[sc]e).*|.*\.md", re.IGNORECASE)  # files about a set, which nobody expects to be read
HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


def evaluates(data: Data) -> bool:
    return data.validation_share > 0 or len(data.evaluation_sets) > 0


def refuse_empty_share(samples: int, share: float) -> None:
    """Raises DataError where holding out `share` of the samples leaves none to train on, or none to evaluate on."""
    count = round(samples * share)
    if share > 0 and not 0 < count < samples:
        raise DataError(
            f"data.validation_share={share} of {samples} samples leaves none to {'evaluate' if count == 0 else 'train'} on. "
            f"Set data.validation_share so that both get at least one, or set it to 0."
        )


def sources_of(names: Sequence[str], data: Data) -> list[Source]:
    """Where the named sets are and how they are laid out.

    Raises:
        DataError: naming the set or the entry of the registry that is wrong.
        ValueError: where no set is named.
    """
    if not names:
        raise ValueError("data.sets is empty. Name at least one set of the registry, data file or hub id, or `generated`.")
    registry = Path(data.folder, data.registry)
    entries = read_registry(registry)
    return [find_source(name, data, registry, entries) for name in names]


def find_source(name: str, data: Data, registry: Path, entries: dict[str, object]) -> Source:
    if name in entries:
        source = registered_source(registry, name, entries[name])
        refuse_other_file(name, source, data)
        return source
    if name == GENERATED:
        return Source(name=name)
    local = [path for path in (Path(data.folder, name), Path(name)) if name and path.exists()]
    if local and local[0].is_dir():
        refuse_folder_of_registry(name, local[0], data.registry)
    if local and (local[0].is_dir() or data_ending(local[0])):
        return Source(name=name, file=local[0])
    if data_ending(Path(name)):
        return Source(name=name, file=Path(data.folder, name))
    if HUB_ID.match(name):
        return Source(name=name, hub_id=name)
    raise DataError(unknown_set(name, registry, entries))


def refuse_other_file(name: str, source: Source, data: Data) -> None:
    """An entry with the name of a file that it does not read would hide that file."""
    for path in (Path(data.folder, name), Path(name)):
        if data_ending(path) and path.is_file() and not (source.file is not None and source.file.exists() and source.file.samefile(path)):
            raise DataError(
                f"data.sets: {name} is an entry of {Path(data.folder, data.registry)} and also the file {path}, which the entry does not read. "
                f"Name the file as {path.absolute()}, or give the entry another name."
            )


def refuse_folder_of_registry(name: str, folder: Path, registry: str) -> None:
    """A registry among the files of a folder would be read as data."""
    named = registered_names(folder / registry)
    if named:
        raise DataError(
            f"data.sets: {name}: the folder {folder} has a registry ({registry}). "
            f"Set data.folder={folder} and name entries of it in data.sets: {listed(named)}. To read the files themselves, name them one by one."
        )


def listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED:,} more" if len(names) > LISTED else "")


def unknown_set(name: str, registry: Path, entries: dict[str, object]) -> str:
    near = difflib.get_close_matches(name, [*entries, GENERATED], n=3)
    known = f"Did you mean {', '.join(near)}?" if near else f"{registry} " + (f"has {listed(list(entries))}." if entries else "is absent or empty.")
    files = ", ".join(ENDINGS)
    return f"data.sets: {name} is neither a name in {registry} nor a folder, a file ending in {files}, `{GENERATED}` or a hub id (org/name). {known}"


def evaluation_sources(data: Data) -> list[Source]:
    """Where data.evaluation_sets are: of a folder with a validation or test split that split, else the whole set.

    Raises:
        DataError: as sources_of.
    """
    return [replace(source, split=held_out_split(source)) for source in sources_of(data.evaluation_sets, data)] if data.evaluation_sets else []


def held_out_split(source: Source) -> str:
    files = files_in(source.file) if source.file is not None and source.file.is_dir() else []
    return next((split for split in ("validation", "test") if any(split_of(file) == split for file in files)), source.split)


def parts_of(source: Source) -> list[Source]:
    """A folder as the files of its split, anything else as it is.

    Raises:
        DataError: for a folder without data files, or without those of the split.
    """
    if source.file is None:
        return [source]
    if not source.file.is_dir():
        if source.split != "train" and source.file.is_file():
            raise DataError(
                f"data.sets: {source.name}: split={source.split} is named, but {source.file} is one file. "
                "Name a folder of splits, or the file of the split."
            )
        return [source]
    every = files_in(source.file)
    own = [file for file in every if (split_of(file) or "train") == source.split] or (every if source.split not in HELD_OUT else [])
    if not own:
        raise DataError(f"data.sets: {source.name}: {source.file} holds no file of the split {source.split}. Name the file {source.split}.jsonl.")
    return [replace(source, file=file) for file in own]


def left_out(data: Data) -> list[Path]:
    """Files of the sets' folders, and of folders inside, that are neither trained nor evaluated on; without what is hidden and NOTES."""
    sources = [*sources_of(data.sets, data), *evaluation_sources(data)]
    read = {part.file for source in sources for part in parts_of(source)}
    folders = [source.file for source in sources if source.file is not None and source.file.is_dir()]
    every = dict.fromkeys(file for folder in folders for file in sorted(folder.rglob("*")) if not is_aside(file.relative_to(folder)))
    return [file for file in every if file not in read and file.is_file()]


def is_aside(file: Path) -> bool:
    return any(part.startswith(".") for part in file.parts) or NOTES.fullmatch(file.name) is not None


def split_of(file: Path) -> str | None:
    """The split that a file's name begins or ends with (train-00000-of-00002.parquet, squad.test.jsonl); None where it names none."""
    stem = file.name.lower().removesuffix("".join(file.suffixes[-2 if is_compressed(file) else -1 :]).lower())
    return next((split for split, word in SPLITS.items() if re.search(rf"^({word})(?![a-z])|(?<![a-z])({word})$", stem)), None)


def files_in(folder: Path) -> list[Path]:
    """The data files of a folder, by name; what is hidden or has another ending (a readme, a script) is passed over.

    Raises:
        DataError: where there are none.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and data_ending(path) and not path.name.startswith("."))
    if not files:
        raise DataError(f"{folder} holds no file ending in {', '.join(ENDINGS)}. Fix data.sets, data.folder or the registry.")
    return files


def ending_of(file: Path) -> str:
    """The ending that tells how a file is read.

    Raises:
        DataError: for a file that is not there, or is not read.
    """
    if not file.is_file():
        raise DataError(f"{file} does not exist. Fix data.sets, data.folder or the registry.")
    ending = data_ending(file)
    if ending is None:
        raise DataError(
            f"{file} cannot be read. Files ending in {file.suffix or 'nothing'} are not read. Give a file ending in {', '.join(ENDINGS)}."
        )
    return ending


def data_ending(file: Path) -> str | None:
    """The ending of a data file without that of its compression; None for other files."""
    whole = file.with_suffix("") if file.suffix in COMPRESSIONS else file
    ending = whole.suffix.lower()
    return ending if ending in ENDINGS else None


def is_compressed(file: Path) -> bool:
    return file.suffix in COMPRESSIONS


def limit_of(source: Source, max_samples: int | None) -> int | None:
    """How many of its first records a set is cut to; None: all are read."""
    return min((limit for limit in (source.samples, max_samples) if limit is not None), default=None)
