"""What data.sets names: an entry of the registry, a file, the generated set or a hub id, read into samples."""

import difflib
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from conf.constants import GENERATED
from conf.schema import Data
from trainers.data.kinds import Kind
from trainers.data.samples.chat import Sample
from trainers.data.samples.conversion import refuse_other_kind
from trainers.data.samples.samples import read_samples
from trainers.data.sources.generated import generated_records
from trainers.data.sources.layout import Layout, layout_of_record
from trainers.data.sources.records import READERS, Records, files_in, read_file, read_hub
from trainers.data.sources.registry import Source, read_registry, registered_source
from trainers.errors import DataError

LAYOUTS_IN_WORDS = (
    "text (pre-training), instruction and output (alpaca), conversations of from and value (sharegpt), messages of role and content (openai), "
    "prompt and completion, or chosen and rejected (trl)"
)
HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


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


def read_sets(data: Data, kind: Kind) -> list[Sample]:
    """The samples of every set, one set after the other, as the kind of rows wants them.

    Raises:
        DataError: naming the set, file, record and column that is wrong.
        ValueError: naming a key of run.data.
    """
    return [sample for source in sources_of(data.sets, data) for sample in read_set(source, data.max_samples, kind)]


def find_source(name: str, data: Data, registry: Path, entries: dict[str, object]) -> Source:
    if name in entries:
        return registered_source(registry, name, entries[name])
    if name == GENERATED:
        return Source(name=name)
    local = [path for path in (Path(data.folder, name), Path(name)) if name and path.exists()]
    if local and (local[0].is_dir() or local[0].suffix in READERS):
        return Source(name=name, file=local[0])
    if Path(name).suffix in READERS:
        return Source(name=name, file=Path(data.folder, name))
    if HUB_ID.match(name):
        return Source(name=name, hub_id=name)
    raise DataError(unknown_set(name, registry, entries))


def unknown_set(name: str, registry: Path, entries: dict[str, object]) -> str:
    near = difflib.get_close_matches(name, [*entries, GENERATED], n=3)
    known = f"Did you mean {', '.join(near)}?" if near else f"{registry} " + (f"has {len(entries)} entries." if entries else "is absent or empty.")
    files = ", ".join(READERS)
    return f"data.sets: {name} is neither a name in {registry} nor a folder, a file ending in {files}, `{GENERATED}` or a hub id (org/name). {known}"


def parts_of(source: Source) -> list[Source]:
    """A folder as its files, anything else as it is."""
    if source.hub_id is None and source.file is not None and source.file.is_dir():
        return [replace(source, file=path) for path in files_in(source.file)]
    return [source]


def read_set(source: Source, max_samples: int | None, kind: Kind) -> list[Sample]:
    samples: list[Sample] = []
    left = sample_limit(source, max_samples)
    for part in parts_of(source):
        records = first_records(read_source(part, kind), left)
        layout = source.layout or guess_layout(records)
        refuse_other_kind(f"data.sets: {source.name}", layout.holds, kind)
        samples += read_samples(records, layout, kind)
        left -= len(records.rows)
        if left == 0:
            break
    return samples


def sample_limit(source: Source, max_samples: int | None) -> int:
    return min((limit for limit in (source.samples, max_samples) if limit is not None), default=sys.maxsize)


def read_source(source: Source, kind: Kind) -> Records:
    if source.hub_id is not None:
        return read_hub(source.hub_id, source.subset, source.split, source.folder)
    return generated_records(kind) if source.file is None else read_file(source.file)


def first_records(records: Records, count: int) -> Records:
    return Records(records.origin, records.unit, records.rows[:count])


def guess_layout(records: Records) -> Layout:
    number, record = records.rows[0]
    columns = record if isinstance(record, dict) else {}
    layout = layout_of_record(columns)
    if layout is None:
        raise DataError(
            f"{records.place(number)}: the columns ({', '.join(sorted(columns)) or 'none'}) fit no known layout: {LAYOUTS_IN_WORDS}. "
            f"Describe the file in the registry (data.registry), or rename its columns."
        )
    return layout
