"""Whole sets as samples, for predictions from a few of them; training tokenises chunks of them (prepare/)."""

import sys

from conf.data_kinds import refuse_other_kind
from conf.data_sets import sources_of
from conf.schema import Data
from conf.stages import Kind
from trainers.data.samples.chat import Sample
from trainers.data.samples.reading import read_samples
from trainers.data.sources.chunks import chunks_of
from trainers.data.sources.records import Records


def read_sets(data: Data, kind: Kind) -> list[Sample]:
    """The samples of every set, one set after the other, as the kind of rows wants them.

    Raises:
        DataError: naming the set, file, record and column that is wrong.
        ValueError: naming a key of run.data.
    """
    samples: list[Sample] = []
    for chunk in chunks_of(sources_of(data.sets, data), data.max_samples, kind, size=sys.maxsize):  # a file, so that one message has all of its rows
        refuse_other_kind(f"data.sets: {chunk.name}", chunk.layout.holds, kind)
        samples += read_samples(Records(chunk.origin, chunk.unit, chunk.records), chunk.layout, kind, data.turns)
    return samples
