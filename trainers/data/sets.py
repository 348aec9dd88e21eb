"""What data.sets names: an entry of the registry, a file, the generated set or a hub id, read into samples."""

import difflib
import re
from pathlib import Path

from conf.schema import Data
from trainers.data.generated import generated_records
from trainers.data.layout import ALPACA, Layout, layout_of_columns
from trainers.data.records import READERS, Records, read_file, read_hub
from trainers.data.registry import Source, read_registry, registered_source
from trainers.data.samples import Sample, read_samples
from trainers.errors import DataError

GENERATED = "generated"
HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


def read_sets(data: Data) -> list[Sample]:
    """The samples of every set, one set after the other.

    Raises:
        DataError: naming the set, file, record and column that is wrong.
        ValueError: naming a key of run.data.
    """
    if not data.sets:
        raise ValueError("data.sets is empty: name at least one set of the registry, data file, hub id, or generated.")
    registry = Path(data.folder, data.registry)
    entries = read_registry(registry)
    return [sample for name in data.sets for sample in read_set(find_source(name, data, registry, entries), data.max_samples)]


def find_source(name: str, data: Data, registry: Path, entries: dict[str, object]) -> Source:
    if name in entries:
        return registered_source(registry, name, entries[name])
    if name == GENERATED:
        return Source(name=name, layout=ALPACA)
    if Path(name).suffix in READERS:
        inside = Path(data.folder, name)
        return Source(name=name, file=inside if inside.is_file() or not Path(name).is_file() else Path(name))
    if HUB_ID.match(name):
        return Source(name=name, hub_id=name)
    raise DataError(unknown_set(name, registry, entries))


def unknown_set(name: str, registry: Path, entries: dict[str, object]) -> str:
    near = difflib.get_close_matches(name, [*entries, GENERATED], n=3)
    known = f"Did you mean {', '.join(near)}?" if near else f"{registry} " + (f"has {len(entries)} entries." if entries else "is absent or empty.")
    files = ", ".join(READERS)
    return f"data.sets: {name} is neither a name in {registry} nor a file ending in {files}, nor `{GENERATED}`, nor a hub id (org/name). {known}"


def read_set(source: Source, max_samples: int | None) -> list[Sample]:
    records = first_records(read_source(source), source.samples, max_samples)
    return read_samples(records, source.layout or guess_layout(records))


def read_source(source: Source) -> Records:
    if source.hub_id is not None:
        return read_hub(source.hub_id, source.subset, source.split, source.folder)
    return generated_records() if source.file is None else read_file(source.file)


def first_records(records: Records, *limits: int | None) -> Records:
    count = min((limit for limit in limits if limit is not None), default=len(records.rows))
    return Records(records.origin, records.unit, records.rows[:count])


def guess_layout(records: Records) -> Layout:
    number, record = records.rows[0]
    names = set(record) if isinstance(record, dict) else set()
    turns = next((record[name] for name in ("messages", "conversations") if name in names), None) if isinstance(record, dict) else None
    first = turns[0] if isinstance(turns, list) and turns else None
    layout = layout_of_columns(names, set(first) if isinstance(first, dict) else set())
    if layout is None:
        raise DataError(
            f"{records.place(number)}: the columns ({', '.join(sorted(names)) or 'none'}) fit no known layout: instruction and output (alpaca), "
            f"conversations of from and value (sharegpt), or messages of role and content (openai). "
            f"Describe the file in {{}}, or rename its columns."
        )
    return layout
