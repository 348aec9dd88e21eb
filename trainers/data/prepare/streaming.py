"""Rows that are read, tokenised, shuffled and packed while a run trains on them.

The stream is cut into shares, one for each data worker of each rank: a share reads every record and keeps its own. It begins again when its sets are
used up, ends with the run, and is the same each time it is read, so that a resumed run finds its place by reading on from the beginning.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from typing import Any

import numpy
from datasets import Features, IterableDataset
from transformers import PreTrainedTokenizerBase

from conf.data_registry import Source
from conf.data_sets import left_out, sources_of
from conf.ranks import ranks
from conf.schema import Data, Run
from conf.stages import stage_row
from trainers.data.prepare.problems import Problem, refuse_problems
from trainers.data.prepare.report import left_out_lines
from trainers.data.prepare.tokenising import Work, rows_of_chunk
from trainers.data.rows.documents import Block, chunk_columns, chunked, packed_chunk_columns
from trainers.data.rows.packing import pack_lengths, packed_row
from trainers.data.rows.row_kinds import IDS
from trainers.data.sources.chunks import Chunk, chunks_of
from trainers.errors import DataError

TOGETHER = 64  # records that are tokenised at once
JUDGED_AFTER = 1000  # records: a share of fewer says little
Record = tuple[Chunk, int, object]  # with its number
Key = tuple[int, str, int]  # set, file and number of a record
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Share:
    own: int
    of: int
    seed: int

    def held(self, work: Work) -> int:
        """Records that this share keeps in hand."""
        return max(1, work.data.buffer // self.of)


def streamed_rows(run: Run, tokenizer: PreTrainedTokenizerBase) -> IterableDataset:
    """The rows to train on, endless; accelerate gives each rank, and torch each data worker, a share of its own."""
    work = Work(tokenizer, run.data, stage_row(run.stage.name).reads)
    shares = ranks(run) * max(1, run.training.dataloader_workers)
    for line in left_out_lines([str(file) for file in left_out(run.data)]):
        print(line, flush=True)
    columns = ["input_ids", "labels", *(["position_ids"] if run.data.packing else [])]
    dealt = [Share(own, shares, run.training.seed) for own in range(shares)]
    return IterableDataset.from_generator(rows_of_share, features=Features(dict.fromkeys(columns, IDS)), gen_kwargs={"dealt": dealt, "work": work})


def rows_of_share(dealt: list[Share], work: Work) -> Iterator[Row]:
    """The rows of one share, in a list because datasets deals lists out."""
    [share] = dealt
    rows = learned_rows(endless(share, work), work)
    if work.kind == "text":
        return chunks(rows, work)
    if work.data.packing:
        return packed(rows, share.held(work), work.data.cutoff)
    return ({"input_ids": row["input_ids"], "labels": row["labels"]} for row in rows)


def endless(share: Share, work: Work) -> Iterator[Record]:
    """The share's records in an order of their own each time that the sets are read.

    Raises:
        DataError: when the sets hold too few records for every share to get one.
    """
    for time in count():
        every = mixed(work, random.Random(f"{share.seed} {time}"))  # alike in every share, to agree on whose a record is
        own = (record for position, record in enumerate(every) if position % share.of == share.own)
        shuffling = shuffled(own, share.held(work), random.Random(f"{share.seed} {time} {share.own}"))
        first = next(shuffling, None)
        if first is None:
            raise DataError(
                f"data.sets hold fewer records than the {share.of} processes that read them (ranks x training.dataloader_workers). "
                "Use fewer, or set data.streaming=false."
            )
        yield first
        yield from shuffling


def mixed(work: Work, draw: random.Random) -> Iterator[Record]:
    """Every record of the sets, one set after the other or interleaved as in mixing.mixed_order."""
    data, sources = work.data, sources_of(work.data.sets, work.data)
    if data.mixing == "concatenate" or len(sources) == 1:
        return records_of(sources, work)
    return interleaved(sources, work, draw)


def interleaved(sources: list[Source], work: Work, draw: random.Random) -> Iterator[Record]:
    data, numbers = work.data, range(len(sources))
    streams = [records_of([source], work) for source in sources]
    used_up: set[int] = set()
    for turn in count():
        number = turn % len(sources) if data.probabilities is None else draw.choices(numbers, data.probabilities)[0]
        record = next(streams[number], None)
        if record is None:
            used_up.add(number)
            if data.mixing == "interleave_under" or len(used_up) == len(sources):
                return
            streams[number] = records_of([sources[number]], work)
            record = next(streams[number])
        yield record


def records_of(sources: list[Source], work: Work) -> Iterator[Record]:
    chunks = chunks_of(sources, work.data.max_samples, work.kind, TOGETHER)
    return ((chunk, number, record) for chunk in chunks for number, record in chunk.records)


def shuffled(records: Iterator[Record], size: int, draw: random.Random) -> Iterator[Record]:
    """Yields a random one of the `size` records in hand, and puts the next record in its place."""
    hand = list(islice(records, size))
    for record in records:
        place = draw.randrange(len(hand))
        yield hand[place]
        hand[place] = record
    draw.shuffle(hand)
    yield from hand


def learned_rows(records: Iterator[Record], work: Work) -> Iterator[Row]:
    """The rows from which something is learned.

    Raises:
        DataError: for a record that cannot be used, or for too many of them, as data.on_bad and data.bad_share say.
    """
    read, kept = 0, 0
    problems: list[Problem] = []
    noted: set[str] = set()
    while part := list(islice(records, TOGETHER)):
        rows, found = rows_of_records(part, work)
        found_now = {line for row in rows for line in lines_of(row, work)}
        for line in sorted(found_now - noted):
            print(line, flush=True)
        noted |= found_now
        read += len(part)
        problems += told(found, read, work.data)
        learned = [row for row in rows if not row["drop"]]
        yield from learned
        kept += len(learned)
        if read >= JUDGED_AFTER:
            refuse_problems(problems, read, work.data)
            refuse_nothing(kept, read)


def lines_of(row: Row, work: Work) -> list[str]:
    """What a report would count; a stream has none, so each line is printed once."""
    data = work.data
    if row["drop"]:
        return [f"Samples are dropped: {row['drop']}."]
    stays = "stays text" if data.control_tokens == "text" else "is read as such by the model; to keep it text, set data.control_tokens=text"
    repairs = [f"data.turns=repair: {what}." for what in row["repairs"]]
    unread = [f"The model does not see {name}." for name in row["unread"]]
    return [*repairs, *unread, *(f"A text of the data holds the control token {token}, which {stays}." for token in row["controls"])]


def refuse_nothing(kept: int, read: int) -> None:
    if kept == 0:
        raise DataError(f"data.sets: nothing can be learned from the first {read:,} records. `regimen data validate` shows the reason for each.")


def told(found: list[Problem], read: int, data: Data) -> list[Problem]:
    """Nothing is dropped without a line in the log."""
    if data.on_bad == "fail":
        refuse_problems(found, read, data)
    for problem in found:
        print(f"dropped: {problem}", flush=True)
    return found


def rows_of_records(records: list[Record], work: Work) -> tuple[list[Row], list[Problem]]:
    """The rows in the order of their records, though those of one file are encoded together."""
    made: dict[Key, list[Row]] = {key_of(record): [] for record in records}
    problems: list[Problem] = []
    for chunk in regrouped(records):
        rows, found = rows_of_chunk(chunk, work)
        for number, row in rows:
            made[chunk.set, chunk.origin, number].append(row)
        problems += found
    return [row for record in records for row in made[key_of(record)]], problems


def key_of(record: Record) -> Key:
    chunk, number, _ = record
    return chunk.set, chunk.origin, number


def regrouped(records: list[Record]) -> list[Chunk]:
    """One chunk a file; a record that a small set gives twice is in it once."""
    groups: dict[tuple[int, str], dict[int, Record]] = {}
    for record in records:
        groups.setdefault(key_of(record)[:2], {})[record[1]] = record
    chunks = [next(iter(group.values()))[0] for group in groups.values()]
    return [
        replace(chunk, records=[(number, content) for _, number, content in group.values()])
        for chunk, group in zip(chunks, groups.values(), strict=True)
    ]


def packed(rows: Iterator[Row], size: int, cutoff: int) -> Iterator[Row]:
    """Best-fit packing within `size` rows at a time."""
    while part := list(islice(rows, size)):
        for members in pack_lengths([len(row["input_ids"]) for row in part], cutoff):
            yield packed_row([(part[member]["input_ids"], part[member]["labels"]) for member in members])


def chunks(rows: Iterator[Row], work: Work) -> Iterator[Row]:
    cutoff, columns = work.data.cutoff, packed_chunk_columns if work.data.packing else chunk_columns
    for tokens, begins in chunked(documents(rows), cutoff):
        made = columns(tokens, begins, cutoff)
        for start in range(0, len(tokens), cutoff):
            yield {name: column[start : start + cutoff].tolist() for name, column in made.items()}


def documents(rows: Iterator[Row]) -> Iterator[Block]:
    while part := [row["input_ids"] for row in islice(rows, TOGETHER)]:
        yield numpy.array(list(chain.from_iterable(part)), numpy.int32), numpy.array([len(ids) for ids in part])
