"""What the sets of a run hold, as hashes: equal for equal contents, wherever the files lie and whenever they were written."""

import hashlib
from dataclasses import asdict, replace
from pathlib import Path

from conf.data_registry import Source
from conf.data_sets import evaluation_sources, parts_of, sources_of
from conf.schema import Data
from trainers.data.sources import generated
from trainers.data.sources.hub import load_hub


def contents_of_sets(data: Data) -> list[list[object]]:
    """For each set that is prepared its layout and the hash of each of its files, in the order of data.sets and data.evaluation_sets.

    Raises:
        DataError, ValueError: as sources_of.
        OSError: when a file cannot be read.
    """
    sources = ([] if data.streaming else sources_of(data.sets, data)) + evaluation_sources(data)
    return [[asdict(replace(source, file=None)), *(hash_of(file) for file in files_of(source))] for source in sources]


def files_of(source: Source) -> list[Path]:
    """The files whose bytes are the set's contents: of the toy task its own source code, of a hub set what was downloaded."""
    if source.hub_id is not None:
        return [Path(entry["filename"]) for entry in load_hub(source.hub_id, source.subset, source.split, source.folder).cache_files]
    if source.file is None:
        return [Path(generated.__file__)]
    return [part.file for part in parts_of(source) if part.file is not None]


def hash_of(file: Path) -> str:
    if not file.is_file():
        return "absent"  # reading it says so in full
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
