"""Records of the sets as tokens on disk: tokenised by several processes, a few chunks in memory at a time, however many there are."""

import gc
import multiprocessing
import os
import signal
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path

import pyarrow.compute
from datasets import Dataset, Features, Value
from transformers import PreTrainedTokenizerBase

from conf.data_kinds import refuse_other_kind
from conf.schema import Data
from conf.stages import Kind
from trainers.data.prepare.problems import Problem
from trainers.data.prepare.progress import Counter as Progress
from trainers.data.rows.drops import TOO_LONG
from trainers.data.rows.row_kinds import ROWS, Row, rows_of
from trainers.data.samples.chat import RowError, Sample
from trainers.data.samples.conversion import MAKE, last_answer_alone
from trainers.data.samples.reading import read_sample
from trainers.data.sources.chunks import Chunk
from trainers.data.sources.rows import BrokenJson, parsed

AHEAD = 2  # chunks that each process may be ahead of the writer
FACTS = {"set": Value("int16"), "digest": Value("int64")}  # which set a sample is of; equal samples have equal digests
# Of a row: what data.turns=repair did to its sample, what its record holds that it does not, and the control tokens in its texts.
NOTES = ("repairs", "unread", "controls")
Notes = dict[str, Counter[str]]  # of each kind: what, and of how many samples


@dataclass(frozen=True)
class Work:
    """What a process needs beside the chunk."""

    tokenizer: PreTrainedTokenizerBase
    data: Data
    kind: Kind

    @property
    def features(self) -> Features:
        return Features({**ROWS[self.kind].features, **FACTS})


@dataclass(frozen=True)
class Tokenised:
    """One row a sample: the columns of its kind, the counts and FACTS; mapped from disk."""

    rows: Dataset
    read: list[int]  # records of each set
    problems: list[Problem]  # records that gave no sample, in order
    notes: list[Notes]  # of each set

    def noted(self, what: str) -> dict[str, int]:
        """The notes of one kind over all sets."""
        return dict(sum((notes[what] for notes in self.notes), Counter()))


def tokenise_chunks(chunks: Iterable[Chunk], sets: int, work: Work, file: Path, counter: Progress) -> Tokenised:
    """Tokenise every chunk into `file`, in order.

    Raises:
        DataError: from reading the chunks, and for a set of another kind.
    """
    read, problems = [0] * sets, []
    notes: list[Notes] = [{what: Counter() for what in NOTES} for _ in range(sets)]
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, work.features.arrow_schema) as writer:
        for chunk, (batch, found, noted) in each_tokenised(chunks, work):
            writer.write_batch(batch)
            read[chunk.set] += len(chunk.records)
            problems += found
            for what in NOTES:
                notes[chunk.set][what] += noted[what]
            counter.add(len(chunk.records), pyarrow.compute.sum(batch.column("tokens")).as_py() or 0)
    return Tokenised(Dataset.from_file(str(file)), read, problems, notes)


Done = tuple[pyarrow.RecordBatch, list[Problem], Notes]


def each_tokenised(chunks: Iterable[Chunk], work: Work) -> Iterator[tuple[Chunk, Done]]:
    workers = work.data.workers or len(os.sched_getaffinity(0))
    rest = iter(chunks)
    begin = list(islice(rest, 2))
    if workers == 1 or len(begin) < 2:  # what is one chunk long is done before another process has begun
        return ((chunk, tokenise_chunk(chunk, work)) for chunk in chain(begin, rest))
    return tokenised_in_processes(chain(begin, rest), work, workers)


def tokenised_in_processes(chunks: Iterable[Chunk], work: Work, workers: int) -> Iterator[tuple[Chunk, Done]]:
    # forked, because importing the tokenizer's library again needs seconds in each process
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), initializer=remember, initargs=(work,)) as pool:
        waiting: deque[tuple[Chunk, Future[Done]]] = deque()
        try:
            for chunk in chunks:
                waiting.append((chunk, pool.submit(tokenise_remembered, chunk)))
                if len(waiting) >= AHEAD * workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            for first, future in waiting:
                yield first, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after an error or a request to stop, what was not begun is not begun


REMEMBERED: list[Work] = []  # of a worker process: the tokenizer travels once


def remember(work: Work) -> None:
    """The process that waits for this one decides what a request to stop means; TERM is how it ends this one, where that is not ignored (Slurm)."""
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if signal.getsignal(signal.SIGTERM) != signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.freeze()  # the garbage collector leaves out what was imported, so that it stays shared with the other processes
    REMEMBERED[:] = [work]


def tokenise_remembered(chunk: Chunk) -> Done:
    return tokenise_chunk(chunk, REMEMBERED[0])


def tokenise_chunk(chunk: Chunk, work: Work) -> Done:
    rows, problems = rows_of_chunk(chunk, work)
    notes = {what: Counter(name for _, row in rows if not row["drop"] for name in row[what]) for what in NOTES}  # of what is learned from
    return as_batch([row for _, row in rows], chunk.set, work), problems, notes


def rows_of_chunk(chunk: Chunk, work: Work) -> tuple[list[tuple[int, Row]], list[Problem]]:
    """A row for each sample, with its record's number, and what is wrong with the records that gave none.

    Raises:
        DataError: for a set of which no rows of the kind can be made.
    """
    refuse_other_kind(f"data.sets: {chunk.name}", chunk.layout.holds, work.kind)
    numbers: list[int] = []
    samples: list[Sample] = []
    problems: list[Problem] = []
    for number, record in chunk.records:
        try:
            made = samples_of(chunk, number, parsed(record), work)
        except RowError as error:
            problems.append(problem_of(chunk, number, error))
        else:
            samples += made
            numbers += [number] * len(made)
    rows: list[tuple[int, Row]] = []
    for number, made in zip(numbers, rows_of(samples, work.kind, work.tokenizer, work.data), strict=True):
        row = made if isinstance(made, RowError) else judged(made, work)
        if isinstance(row, RowError):
            problems.append(problem_of(chunk, number, row))
        else:
            rows.append((number, row))
    return rows, sorted(problems, key=lambda problem: problem.number)


def problem_of(chunk: Chunk, number: int, error: RowError) -> Problem:
    column = error.column if isinstance(error, BrokenJson) else None
    return Problem(chunk.set, chunk.origin, chunk.unit, number, column, str(error))


def samples_of(chunk: Chunk, number: int, record: object, work: Work) -> list[Sample]:
    """The samples that one record gives.

    Raises:
        RowError: when it does not fit the layout.
    """
    sample = read_sample(chunk.place(number), record, chunk.layout, work.kind, work.data.turns)
    made = MAKE[chunk.layout.holds][work.kind](sample)
    return made if work.data.train_history else [last_answer_alone(each) for each in made]


def judged(row: Row, work: Work) -> Row | RowError:
    """The row, or what data.on_long makes of one that would be cut."""
    data = work.data
    if data.on_long == "truncate" or not ROWS[work.kind].cuts or row["length"] <= data.cutoff:
        return row
    if data.on_long == "fail":
        return RowError(f"has {row['length']} tokens, more than data.cutoff={data.cutoff} (data.on_long=fail)")
    return {**row, "drop": TOO_LONG}


def as_batch(rows: Sequence[Row], set_number: int, work: Work) -> pyarrow.RecordBatch:
    schema = work.features.arrow_schema
    columns = {name: pyarrow.array([row[name] for row in rows], schema.field(name).type) for name in schema.names if name not in FACTS}
    columns["set"] = pyarrow.array([set_number] * len(rows), pyarrow.int16())
    columns["digest"] = pyarrow.array(digests([column for name, column in columns.items() if name.endswith("_ids")]), pyarrow.int64())
    return pyarrow.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def digests(columns: Sequence[pyarrow.ListArray]) -> list[int]:
    """64 bits of each row's tokens: among a hundred million samples one false pair is to be expected in about 3,700 data sets."""
    hashes = [blake2b(digest_size=8) for _ in range(len(columns[0]))]
    for column in columns:
        values, ends = column.flatten().to_numpy().tobytes(), (4 * column.offsets.to_numpy()).tolist()  # int32: four bytes a token
        for index, row in enumerate(hashes):
            row.update(b"|" + values[ends[index] : ends[index + 1]])
    return [int.from_bytes(row.digest(), signed=True) for row in hashes]
