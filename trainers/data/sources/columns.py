"""Whether some record has each column that the registry names: a misspelt one would silently remove every input."""

from collections.abc import Iterable, Iterator

from conf.data_registry import Source
from trainers.data.sources.rows import Row, RowError, parsed
from trainers.errors import DataError


class NamedColumns:
    """The columns that an entry names and no record has had so far."""

    def __init__(self, source: Source) -> None:
        self.set = source.name
        self.absent = set(source.layout.named) if source.layout is not None else set()
        self.present: dict[str, None] = {}  # in the order in which they are met

    def looked_for(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows, looked at only as long as a column is absent."""
        for row in rows:
            if self.absent:
                self.look(row)
            yield row

    def look(self, row: Row) -> None:
        try:
            record = parsed(row[1])
        except RowError:
            return
        if isinstance(record, dict):
            self.present.update(dict.fromkeys(map(str, record)))
            self.absent -= record.keys()

    def refuse_absent(self) -> None:
        """Raises DataError where no record of the set has a column that the registry names."""
        if self.absent and self.present:
            raise DataError(
                f"data.sets: {self.set}: the registry names the column {', '.join(sorted(self.absent))}, which no record has. "
                f"The records have: {', '.join(self.present)}. Fix `columns` of the entry, or remove the column from it."
            )
