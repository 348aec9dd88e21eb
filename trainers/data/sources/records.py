"""The records of one source, and one message for all of them that cannot be used."""

from collections.abc import Iterable
from dataclasses import dataclass

from conf.constants import GENERATED
from conf.data_registry import Source
from conf.data_sets import ending_of
from conf.stages import Kind
from trainers.data.sources.formats import FORMATS
from trainers.data.sources.generated import generated_rows
from trainers.data.sources.hub import load_hub, rows_of_hub
from trainers.data.sources.rows import Row
from trainers.errors import DataError

SHOWN = 20  # bad rows that a message lists


@dataclass(frozen=True)
class Records:
    origin: str  # file or hub id
    unit: str  # what a number counts: record or line
    rows: Iterable[Row]  # numbers start at 1

    def place(self, number: int) -> str:
        return f"{self.origin}, {self.unit} {number}"


def opened(source: Source, kind: Kind) -> Records:
    """The records of a file, a hub set or the generated set.

    Raises:
        DataError: naming the file that is absent or not read; while it is read, the place where it is broken.
    """
    if source.hub_id is not None:
        return Records(source.hub_id, "record", rows_of_hub(load_hub(source.hub_id, source.subset, source.split, source.folder)))
    if source.file is None:
        return Records(GENERATED, "record", generated_rows(kind))
    form = FORMATS[ending_of(source.file)]
    return Records(str(source.file), form.unit, form.rows(source.file))


def refuse_bad_rows(origin: str, problems: list[str], total: int, remedy: str) -> None:
    """Nothing is dropped silently: one error lists what is wrong, the first rows in full.

    Raises:
        DataError: when there are problems.
    """
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        listed = "".join(f"\n  {line}" for line in [*problems[:SHOWN], *more])
        raise DataError(f"{origin}: {len(problems)} of {total} rows cannot be used:{listed}\n{remedy}")
