"""The data of a run, ready for a trainer: read, tokenised, split, mixed, packed; the same on every rank."""

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy
from datasets import Dataset, IterableDataset
from transformers import PreTrainedTokenizerBase

from conf.ranks import ranks
from conf.schema import Data, Run
from conf.stages import Kind, stage_row
from trainers.data.prepare.cache import cached
from trainers.data.prepare.problems import problem_lines, refuse_problems, refuse_too_many
from trainers.data.prepare.progress import counter_for
from trainers.data.prepare.report import TOO_LONG, DataReport
from trainers.data.prepare.selection import drop_reasons, kept, select
from trainers.data.prepare.tokenising import Tokenised, Work, tokenise_chunks
from trainers.data.prepare.writing import write_rows
from trainers.data.rows.rows import ROWS
from trainers.data.sources.chunks import chunks_of, record_count
from trainers.data.sources.sets import sources_of
from trainers.errors import DataError

TRAIN, EVALUATION, REPORT = "train.arrow", "evaluation.arrow", "report.json"


@dataclass(frozen=True)
class PreparedData:
    """Rows of the kind that the stage reads (kinds.py):

    text, answers: input_ids, labels, and position_ids when packed
    pairs: prompt_ids, chosen_ids, rejected_ids
    labelled: prompt_ids, completion_ids, label
    prompts: prompt_ids, prompt (its text), answer (the set's own, or "")
    """

    train: Dataset | IterableDataset
    evaluation: Dataset | None
    report: DataReport | None  # None of a stream, which is not counted beforehand


def build_datasets(run: Run, tokenizer: PreTrainedTokenizerBase) -> PreparedData:
    """Read, tokenise, split, mix and pack the sets of a run; what it maps from disk is gone with the process.

    Raises:
        DataError: naming file, record and column, or the key of run.data that leaves too little.
        ValueError: naming a key of run.data.
    """
    with tempfile.TemporaryDirectory(prefix="regimen-data-") as folder:
        build_into(Path(folder), run, tokenizer)
        prepared = load_prepared(Path(folder))  # a file that is mapped outlives its name
    refuse_too_few(run, len(prepared.train))
    return prepared


def prepare(run: Run, tokenizer: PreTrainedTokenizerBase, folder: Path) -> PreparedData:
    """Put the datasets into `folder`, for one rank while the others wait for the folder; what is already there is taken.

    They are linked from the cache, which may be deleted at any time.

    Raises:
        DataError, ValueError: as build_datasets; naming data.cache where it cannot be written.
        OSError: when the folder cannot be written.
    """
    if not folder.exists():
        unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(unfinished, ignore_errors=True)  # of a process with the same id that was killed
        shutil.copytree(prepare_cache(run, tokenizer), unfinished, copy_function=link_or_copy)
        os.replace(unfinished, folder)  # readers see all of it or nothing
    return load_prepared(folder)


def prepare_cache(run: Run, tokenizer: PreTrainedTokenizerBase) -> Path:
    """The folder of the cache that holds the run's datasets, made first where it is not there."""
    return cached(run, tokenizer, lambda folder: build_into(folder, run, tokenizer))


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def load_prepared(folder: Path) -> PreparedData:
    """What was built into a folder, mapped from disk: the ranks of a node share its memory."""
    evaluation = Dataset.from_file(str(folder / EVALUATION)) if (folder / EVALUATION).exists() else None
    report = DataReport(**json.loads((folder / REPORT).read_text(encoding="utf-8")))
    return PreparedData(Dataset.from_file(str(folder / TRAIN)), evaluation, report)


@dataclass(frozen=True)
class Part:
    """Samples that were chosen to train or to evaluate on: rows, and positions among them."""

    rows: Dataset
    chosen: numpy.ndarray

    def total(self, column: str) -> int:
        return int(numpy.sum(self.rows.with_format("numpy")[column][:][self.chosen]))


def build_into(folder: Path, run: Run, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the rows to train and evaluate on, and the report, into an empty folder."""
    kind = stage_row(run.stage.name).reads
    refuse_bad_values(run.data, kind)
    work = Work(tokenizer, run.data, kind)
    with tempfile.TemporaryDirectory(dir=folder) as workshop:
        samples = usable(run.data.sets, work, Path(workshop, "samples.arrow"))
        selected = select(samples.rows, run.data, run.training.seed)
        train, evaluation = Part(samples.rows, selected.train), Part(samples.rows, selected.evaluation)
        if run.data.evaluation_sets:
            held_out = usable(run.data.evaluation_sets, work, Path(workshop, "held_out.arrow"))
            evaluation = Part(held_out.rows, select(held_out.rows, unmixed(run.data), run.training.seed).train)
        written = write_rows(train.rows, train.chosen, run.data, kind, folder / TRAIN)
        if len(evaluation.chosen):
            write_rows(evaluation.rows, evaluation.chosen, run.data, kind, folder / EVALUATION)
        report = report_on(samples, train, evaluation, len(written), work)
    (folder / REPORT).write_text(json.dumps(asdict(report)), encoding="utf-8")


def usable(names: list[str], work: Work, file: Path) -> Tokenised:
    """The samples of the named sets, unless too many of their records are of no use.

    Raises:
        DataError: listing the first records that gave no sample.
    """
    samples = tokenised(names, work, file)
    refuse_useless(samples, work.data)
    tell_dropped(samples)
    return samples


def tokenised(names: list[str], work: Work, file: Path) -> Tokenised:
    """The samples of the named sets, and what is wrong with their records."""
    sources = sources_of(names, work.data)
    with counter_for(record_count(sources)) as counter:
        return tokenise_chunks(chunks_of(sources, work.data.max_samples, work.kind), len(sources), work, file, counter)


def refuse_useless(samples: Tokenised, data: Data) -> None:
    """Refuse samples of which more are of no use than data.on_bad, data.on_long and data.bad_share permit.

    Raises:
        DataError: listing the first records that gave no sample.
    """
    read = sum(samples.read)
    refuse_problems(samples.problems, read, data)
    refuse_too_many(len(samples.problems) + drop_reasons(samples.rows)[TOO_LONG], read, data)


def tell_dropped(samples: Tokenised) -> None:
    for line in problem_lines(samples.problems):
        print(f"dropped: {line}", flush=True)


def unmixed(data: Data) -> Data:
    """Evaluation sees every sample of its sets once."""
    return replace(data, mixing="concatenate", validation_share=0.0)


def report_on(samples: Tokenised, train: Part, evaluation: Part, train_rows: int, work: Work) -> DataReport:
    lengths, learnable = samples.rows.with_format("numpy")["length"][:], kept(samples.rows)
    held_out = len(evaluation.chosen) if evaluation.rows is samples.rows else 0
    return DataReport(
        samples=len(samples.rows),
        unreadable=len(samples.problems),
        truncated=int(numpy.sum(lengths[learnable] > work.data.cutoff)) if ROWS[work.kind].cuts else 0,
        drops=dict(drop_reasons(samples.rows)),
        train_samples=len(train.chosen),
        evaluation_samples=len(evaluation.chosen),
        train_rows=train_rows,
        tokens=train.total("tokens") + evaluation.total("tokens"),
        learned_tokens=train.total("learned") + evaluation.total("learned"),
        longest=int(lengths.max()),
        cutoff=work.data.cutoff,
        left_over=int(learnable.sum()) - held_out - len(numpy.unique(train.chosen)),
    )


def refuse_bad_values(data: Data, kind: Kind) -> None:
    if data.packing and kind not in ("text", "answers"):
        raise ValueError("data.packing=true: only the rows of stage=pt and stage=sft can share a sequence. Set data.packing=false.")
    if not 0 <= data.validation_share < 1:
        raise ValueError(f"data.validation_share={data.validation_share} is no share: set it from 0 (none held out) to below 1.")
    if data.cutoff < 2:
        raise ValueError(f"data.cutoff={data.cutoff} leaves no token to predict: set it to 2 or more.")
    if data.max_samples is not None and data.max_samples < 1:
        raise ValueError(f"data.max_samples={data.max_samples}: set it to 1 or more, or null for all.")


def refuse_too_few(run: Run, rows: int) -> None:
    """Every rank needs one full micro batch."""
    needed = ranks(run) * run.training.micro_batch
    if rows < needed:
        filled = run.data.packing or stage_row(run.stage.name).reads == "text"
        what = f"rows of data.cutoff={run.data.cutoff} tokens" if filled else "samples"
        raise DataError(
            f"{rows} {what} to train are fewer than one batch: {ranks(run)} ranks x training.micro_batch={run.training.micro_batch} = {needed}. "
            f"Lower training.micro_batch{' or data.cutoff' if filled else ''}, use fewer ranks, or give more data."
        )
