"""The data of a run as its files show them: which files there are, and how many records they hold."""

import json
from pathlib import Path

from conf.constants import GENERATED, GENERATED_SAMPLES
from conf.schema import Data, Run
from conf.stages import stage_row
from launcher.errors import DataError

LARGEST_LIST = 256 * 2**20  # bytes of a .json file that is read whole to count its list; parsing takes seconds and several times its size


DATA_FILES = (".json", ".jsonl", ".csv", ".parquet", ".txt")  # what trainers/data/sources/records.py reads; a test holds the two together


def trained_samples(run: Run) -> int | None:
    """None where it is not the sum of the sets: mixed sets repeat or end early, a stream is not counted, texts are cut into rows."""
    data = run.data
    if data.streaming or data.mixing != "concatenate":
        return None
    samples = count_samples(data)  # for texts too: it tells of files that are not there
    return None if samples is None or stage_row(run.stage.name).reads == "text" else samples - round(samples * data.validation_share)


def count_samples(data: Data) -> int | None:
    """Samples of all sets, where local files tell; None for hub sets and formats whose count needs a full read by a library.

    Raises:
        DataError: for a set whose file is named but absent.
    """
    counts = [count_set(entry, data) for entry in data.sets]
    return None if any(count is None for count in counts) else sum(min(count, data.max_samples or count) for count in counts if count is not None)


def count_set(entry: str, data: Data) -> int | None:
    if entry == GENERATED:
        return GENERATED_SAMPLES
    path = file_of(entry, data)
    count = None if path is None else count_records(path)
    if count == 0:
        raise DataError(f"{path}: holds no records. Give a file with at least one.")
    return count


def file_of(entry: str, data: Data) -> Path | None:
    """The local file or folder of a data set entry; None: the entry means a hub set.

    Raises:
        DataError: when the file it names is not there.
    """
    folder, registry = Path(data.folder), Path(data.folder) / data.registry
    if registry.is_file():
        try:
            entries = json.loads(registry.read_text(encoding="utf-8-sig"))
        except json.JSONDecodeError as error:
            raise DataError(f"{registry}, line {error.lineno}, column {error.colno}: no valid JSON ({error.msg}). Mend the registry.") from error
        if entry in entries:
            name = entries[entry].get("file_name")
            return None if name is None else existing(folder / name, f"data set {entry} of {registry}")
    local = [path for path in (folder / entry, Path(entry)) if path.exists()]
    if local and (local[0].is_dir() or local[0].suffix in DATA_FILES):
        return local[0]
    if entry.endswith(DATA_FILES):
        return existing(Path(entry), f"data.sets: {entry}")
    if "/" in entry:
        return None
    files = ", ".join(DATA_FILES)
    raise DataError(f"data.sets: {entry} is neither in {registry} nor a folder, a file ending in {files} or a hub id such as org/name.")


def existing(path: Path, what: str) -> Path:
    if not path.exists():
        raise DataError(f"{what}: {path} does not exist. Set data.folder to the folder that holds it, or mend the name.")
    return path


def count_records(path: Path) -> int | None:
    """None: unknown before a library reads the file, or the files of a folder."""
    if path.is_dir():
        return None
    if path.suffix == ".jsonl":
        with path.open("rb") as file:
            return sum(1 for line in file if line.strip())
    if path.suffix == ".json" and path.stat().st_size <= LARGEST_LIST:
        try:
            records = json.loads(path.read_text(encoding="utf-8-sig"))
        except (json.JSONDecodeError, UnicodeDecodeError):
            return None  # JSON lines under another name, or broken: the reader of the data tells which line
        return len(records) if isinstance(records, list) else None
    return None
