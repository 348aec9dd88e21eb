"""What data.sets names (an entry of the registry, a file, a folder, a hub id or the generated set), as the launcher and the trainers both read it."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from conf.data_registry import DataError, Source, read_registry, registered_source
from conf.schema import Data

ENDINGS = (".json", ".jsonl", ".csv", ".parquet", ".txt")  # of data files; they tell how a file is read
GENERATED = "generated"
GENERATED_RECORDS = 2000  # trainers/data/sources/generated.py makes this many; a test holds the two together
HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


def evaluates(data: Data) -> bool:
    return data.validation_share > 0 or len(data.evaluation_sets) > 0


def sources_of(names: Sequence[str], data: Data) -> list[Source]:
    """Where the named sets are and how they are laid out.

    Raises:
        DataError: naming the set or the entry of the registry that is wrong.
        ValueError: where no set is named.
    """
    if not names:
        raise ValueError("data.sets is empty: name at least one set of the registry, data file, hub id, or generated.")
    registry = Path(data.folder, data.registry)
    entries = read_registry(registry)
    return [find_source(name, data, registry, entries) for name in names]


def find_source(name: str, data: Data, registry: Path, entries: dict[str, object]) -> Source:
    if name in entries:
        return registered_source(registry, name, entries[name])
    if name == GENERATED:
        return Source(name=name)
    local = [path for path in (Path(data.folder, name), Path(name)) if name and path.exists()]
    if local and (local[0].is_dir() or local[0].suffix in ENDINGS):
        return Source(name=name, file=local[0])
    if Path(name).suffix in ENDINGS:
        return Source(name=name, file=Path(data.folder, name))
    if HUB_ID.match(name):
        return Source(name=name, hub_id=name)
    raise DataError(unknown_set(name, registry, entries))


def unknown_set(name: str, registry: Path, entries: dict[str, object]) -> str:
    near = difflib.get_close_matches(name, [*entries, GENERATED], n=3)
    known = f"Did you mean {', '.join(near)}?" if near else f"{registry} " + (f"has {len(entries)} entries." if entries else "is absent or empty.")
    files = ", ".join(ENDINGS)
    return f"data.sets: {name} is neither a name in {registry} nor a folder, a file ending in {files}, `{GENERATED}` or a hub id (org/name). {known}"


def parts_of(source: Source) -> list[Source]:
    """A folder as its files, anything else as it is.

    Raises:
        DataError: for a folder without data files.
    """
    if source.file is not None and source.file.is_dir():
        return [replace(source, file=path) for path in files_in(source.file)]
    return [source]


def files_in(folder: Path) -> list[Path]:
    """The data files of a folder, by name; what is hidden or has another ending (a readme, a script) is passed over.

    Raises:
        DataError: where there are none.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in ENDINGS and not path.name.startswith("."))
    if not files:
        raise DataError(f"{folder}: the folder holds no file ending in {', '.join(ENDINGS)}. Correct data.sets, data.folder or the registry.")
    return files


def ending_of(file: Path) -> str:
    """The ending that tells how a file is read.

    Raises:
        DataError: for a file that is not there, or is not read.
    """
    if not file.is_file():
        raise DataError(f"{file}: there is no such file. Correct data.sets, data.folder or the registry.")
    if file.suffix not in ENDINGS:
        raise DataError(f"{file}: files ending in {file.suffix or 'nothing'} are not read. Give a file ending in {', '.join(ENDINGS)}.")
    return file.suffix


def limit_of(source: Source, max_samples: int | None) -> int | None:
    """How many of its first records a set is cut to; None: all are read."""
    return min((limit for limit in (source.samples, max_samples) if limit is not None), default=None)
