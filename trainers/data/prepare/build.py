"""The rows of a run, built into a folder: read, tokenised, split, mixed, packed."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from conf.data_registry import Source
from conf.data_sets import evaluation_sources, left_out, sources_of
from conf.schema import Data, Run
from conf.stages import Kind, stage_row
from trainers.data.prepare.problems import problem_lines, refuse_problems, refuse_too_many
from trainers.data.prepare.progress import counter_for
from trainers.data.prepare.report import DataReport, SetsReport, one_class_lines
from trainers.data.prepare.selection import drop_reasons, kept, select
from trainers.data.prepare.tokenising import Tokenised, Work, tokenise_chunks
from trainers.data.prepare.writing import write_rows
from trainers.data.rows.drops import TOO_LONG
from trainers.data.rows.row_kinds import ROWS
from trainers.data.sources.chunks import chunks_of, record_count

NONE = numpy.empty(0, int)  # positions of no samples
TRAIN, EVALUATION, REPORT = "train.arrow", "evaluation.arrow", "report.json"


@dataclass(frozen=True)
class Part:
    """Samples that were chosen to train or to evaluate on: rows, and positions among them."""

    rows: Dataset
    chosen: numpy.ndarray

    def total(self, column: str) -> int:
        return int(numpy.sum(self.rows.with_format("numpy")[column][:][self.chosen]))


@dataclass(frozen=True)
class Parts:
    """What a run trains and evaluates on, and the samples that they are of."""

    train: Part
    evaluation: Part
    samples: Tokenised | None  # of data.sets; None of a streamed run, which reads them while it trains
    held_out: Tokenised | None  # of data.evaluation_sets


def build_into(folder: Path, run: Run, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the rows to train and evaluate on, and the report, into an empty folder; of a streamed run there are none to train on."""
    kind = stage_row(run.stage.name).reads
    refuse_bad_values(run.data, kind)
    work = Work(tokenizer, run.data, kind)
    with tempfile.TemporaryDirectory(dir=folder) as workshop:
        parts = parts_of_run(run, work, Path(workshop))
        written = write_rows(parts.train.rows, parts.train.chosen, run.data, kind, folder / TRAIN)
        if len(parts.evaluation.chosen):
            write_rows(parts.evaluation.rows, parts.evaluation.chosen, run.data, kind, folder / EVALUATION)
        report = replace(report_on(parts, len(written), work), left_out=[str(file) for file in left_out(run.data)])
    (folder / REPORT).write_text(json.dumps(asdict(report)), encoding="utf-8")


def parts_of_run(run: Run, work: Work, workshop: Path) -> Parts:
    samples = None if run.data.streaming else usable(sources_of(run.data.sets, run.data), work, workshop / "samples.arrow")
    held_out = usable(evaluation_sources(run.data), work, workshop / "held_out.arrow") if run.data.evaluation_sets else None
    apart = None if held_out is None else Part(held_out.rows, select(held_out.rows, unmixed(run.data), run.training.seed).train)
    if samples is None:
        if apart is None:
            raise ValueError("data.streaming=true tokenises while the run trains. Without data.evaluation_sets there is nothing to prepare.")
        return Parts(Part(apart.rows, NONE), apart, None, held_out)
    selected = select(samples.rows, run.data, run.training.seed)
    return Parts(Part(samples.rows, selected.train), apart or Part(samples.rows, selected.evaluation), samples, held_out)


def usable(sources: Sequence[Source], work: Work, file: Path) -> Tokenised:
    """The samples of the sets, unless too many of their records are of no use.

    Raises:
        DataError: listing the first records that gave no sample.
    """
    samples = tokenised(sources, work, file)
    refuse_useless(samples, work.data)
    tell_dropped(samples)
    return samples


def tokenised(sources: Sequence[Source], work: Work, file: Path) -> Tokenised:
    """The samples of the sets, and what is wrong with their records."""
    with counter_for(record_count(sources)) as counter:
        return tokenise_chunks(chunks_of(sources, work.data.max_samples, work.kind), len(sources), work, file, counter)


def refuse_useless(samples: Tokenised, data: Data, listed: bool = True) -> None:
    """Refuse samples of which more are of no use than data.on_bad, data.on_long and data.bad_share permit.

    Raises:
        DataError: listing the first records that gave no sample, unless a report lists them.
    """
    read = sum(samples.read)
    refuse_problems(samples.problems, read, data, listed)
    refuse_too_many(len(samples.problems) + drop_reasons(samples.rows)[TOO_LONG], read, data)


def tell_dropped(samples: Tokenised) -> None:
    for line in problem_lines(samples.problems):
        print(f"dropped: {line}", flush=True)


def unmixed(data: Data) -> Data:
    """Evaluation sees every sample of its sets once."""
    return replace(data, mixing="concatenate", validation_share=0.0)


def report_on(parts: Parts, train_rows: int, work: Work) -> DataReport:
    train, evaluation, samples = parts.train, parts.evaluation, parts.samples
    apart = None if parts.held_out is None else sets_report(parts.held_out, work)
    lengths = numpy.append(train.rows.with_format("numpy")["length"][:], 0)
    left_over = 0
    if samples is not None:
        held_out = len(evaluation.chosen) if parts.held_out is None else 0
        left_over = int(kept(samples.rows).sum()) - held_out - len(numpy.unique(train.chosen))
    return DataReport(
        **vars(
            SetsReport(samples=0, unreadable=0, truncated=0, drops={}, cutoff=work.data.cutoff) if samples is None else sets_report(samples, work)
        ),
        train_samples=len(train.chosen),
        evaluation_samples=len(evaluation.chosen),
        train_rows=train_rows,
        tokens=train.total("tokens") + evaluation.total("tokens"),
        learned_tokens=train.total("learned") + evaluation.total("learned"),
        longest=int(lengths.max()),
        left_over=left_over,
        one_class=one_class_lines(train.total("label"), len(train.chosen)) if work.kind == "labelled" else [],
        evaluation_sets=apart,
    )


def sets_report(samples: Tokenised, work: Work) -> SetsReport:
    lengths, learnable = samples.rows.with_format("numpy")["length"][:], kept(samples.rows)
    return SetsReport(
        samples=len(samples.rows),
        unreadable=len(samples.problems),
        truncated=int(numpy.sum(lengths[learnable] > work.data.cutoff)) if ROWS[work.kind].cuts else 0,
        drops=dict(drop_reasons(samples.rows)),
        cutoff=work.data.cutoff,
        unread=samples.noted("unread"),
        repairs=samples.noted("repairs"),
        controls=samples.noted("controls"),
        control_tokens=work.data.control_tokens,
    )


def refuse_bad_values(data: Data, kind: Kind) -> None:
    if data.packing and kind not in ("text", "answers"):
        raise ValueError("data.packing=true: only the rows of stage=pt and stage=sft can share a sequence. Set data.packing=false.")
    if not 0 <= data.validation_share < 1:
        raise ValueError(f"data.validation_share={data.validation_share} is not a share. Set it to 0 (none held out) or more, and to less than 1.")
    if data.cutoff < 2:
        raise ValueError(f"data.cutoff={data.cutoff} leaves no token to predict. Set it to 2 or more.")
    if data.max_samples is not None and data.max_samples < 1:
        raise ValueError(f"data.max_samples={data.max_samples} is less than 1. Set it to 1 or more, or to null for all samples.")
