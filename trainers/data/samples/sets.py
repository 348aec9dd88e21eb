"""Whole sets as samples, for predictions from a few of them; training reads chunks of them (prepare/)."""

import sys
from collections import deque

from conf.data_registry import Source
from conf.data_sets import limit_of, parts_of, sources_of
from conf.schema import Data
from conf.stages import Kind
from trainers.data.samples.chat import Sample
from trainers.data.samples.conversion import refuse_other_kind
from trainers.data.samples.reading import read_samples
from trainers.data.sources.chunks import read_source
from trainers.data.sources.columns import NamedColumns
from trainers.data.sources.layout import guess_layout
from trainers.data.sources.records import Records


def read_sets(data: Data, kind: Kind) -> list[Sample]:
    """The samples of every set, one set after the other, as the kind of rows wants them.

    Raises:
        DataError: naming the set, file, record and column that is wrong.
        ValueError: naming a key of run.data.
    """
    return [sample for source in sources_of(data.sets, data) for sample in read_set(source, data, kind)]


def read_set(source: Source, data: Data, kind: Kind) -> list[Sample]:
    samples: list[Sample] = []
    named = NamedColumns(source)
    limit = limit_of(source, data.max_samples)
    left = sys.maxsize if limit is None else limit
    for part in parts_of(source):
        whole = read_source(part, kind)
        deque(named.looked_for(iter(whole.rows)), maxlen=0)
        records = first_records(whole, left)
        layout = source.layout or guess_layout(records)
        refuse_other_kind(f"data.sets: {source.name}", layout.holds, kind)
        samples += read_samples(records, layout, kind, data.turns)
        left -= len(records.rows)
        if left == 0 and not named.absent:
            break
    named.refuse_absent()
    return samples


def first_records(records: Records, count: int) -> Records:
    return Records(records.origin, records.unit, records.rows[:count])
