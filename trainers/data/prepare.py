"""The data of a run, ready for a trainer: read, tokenised, split, packed; the same on every rank."""

import json
import os
import random
import shutil
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from datasets import Dataset, Features, load_from_disk
from transformers import PreTrainedTokenizerBase

from conf.schema import Data, Run
from trainers.data.chat import Sample
from trainers.data.documents import chunk_row, chunked, packed_chunk_row
from trainers.data.kinds import KINDS, Kind
from trainers.data.packing import pack_lengths, packed_row
from trainers.data.records import refuse_bad_rows
from trainers.data.report import EMPTY, EQUAL, DataReport
from trainers.data.rows import IDS, ROWS, tokenise_row
from trainers.data.sets import read_sets
from trainers.errors import DataError

TRAIN, EVALUATION, REPORT = "train", "evaluation", "report.json"


@dataclass(frozen=True)
class PreparedData:
    """Rows of the kind that the stage reads (kinds.py):

    text, answers: input_ids, labels, and position_ids when packed
    pairs: prompt_ids, chosen_ids, rejected_ids
    labelled: prompt_ids, completion_ids, label
    prompts: prompt_ids, prompt (its text), answer (the set's own, or "")
    """

    train: Dataset
    evaluation: Dataset | None
    report: DataReport


def build_datasets(run: Run, tokenizer: PreTrainedTokenizerBase) -> PreparedData:
    """Read, tokenise, split and pack the sets of a run.

    Raises:
        DataError: naming file, record and column, or the key of run.data that leaves too little.
        ValueError: naming a key of run.data.
    """
    kind = KINDS[run.stage.name]
    refuse_bad_values(run.data, kind)
    tokenised = tokenise_all(read_sets(run.data, kind), run.data, tokenizer, kind)
    kept = keep_learnable(tokenised, run.data)
    train, evaluation = split(kept, run.data, run.training.seed)
    prepared = [finished(part, run.data, kind) for part in (train, evaluation)]
    refuse_too_few(run, len(prepared[0]))
    report = DataReport(
        samples=len(tokenised),
        truncated=sum(length > run.data.cutoff for length in tokenised["length"]) if ROWS[kind].cuts else 0,
        drops=dict(Counter(reason for reason in tokenised["drop"] if reason)),
        train_samples=len(train),
        evaluation_samples=len(evaluation),
        train_rows=len(prepared[0]),
        tokens=sum(kept["tokens"]),
        learned_tokens=sum(kept["learned"]),
        longest=max(tokenised["length"]),
        cutoff=run.data.cutoff,
    )
    return PreparedData(prepared[0], prepared[1] if len(evaluation) else None, report)


def prepare(run: Run, tokenizer: PreTrainedTokenizerBase, folder: Path) -> PreparedData:
    """Build the datasets into `folder`, for one rank while the others wait for the folder; what is already there is taken.

    Raises:
        DataError, ValueError: as build_datasets.
        OSError: when the folder cannot be written.
    """
    if not folder.exists():
        prepared = build_datasets(run, tokenizer)
        unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(unfinished, ignore_errors=True)  # of a process with the same id that was killed
        save_prepared(prepared, unfinished)
        os.replace(unfinished, folder)  # readers see all of it or nothing
    return load_prepared(folder)


def save_prepared(prepared: PreparedData, folder: Path) -> None:
    prepared.train.save_to_disk(folder / TRAIN)
    if prepared.evaluation is not None:
        prepared.evaluation.save_to_disk(folder / EVALUATION)
    (folder / REPORT).write_text(json.dumps(asdict(prepared.report)), encoding="utf-8")


def load_prepared(folder: Path) -> PreparedData:
    """What `prepare` left, mapped from disk: the ranks of a node share its memory."""
    evaluation = load_from_disk(folder / EVALUATION) if (folder / EVALUATION).exists() else None
    report = DataReport(**json.loads((folder / REPORT).read_text(encoding="utf-8")))
    return PreparedData(load_from_disk(folder / TRAIN), evaluation, report)


def tokenise_all(samples: list[Sample], data: Data, tokenizer: PreTrainedTokenizerBase, kind: Kind) -> Dataset:
    """Columns of the kind and its counts, one row per sample; samples travel as JSON because their calls have no common schema."""
    rows = Dataset.from_dict({"sample": [json.dumps(sample) for sample in samples]})
    tokenised = rows.map(
        tokenise_row,
        fn_kwargs={"tokenizer": tokenizer, "data": data, "kind": kind},
        features=ROWS[kind].features,
        remove_columns=["sample"],
        num_proc=processes(data, len(samples)),
        new_fingerprint=uuid.uuid4().hex,  # nothing is cached, so the tokenizer need not be hashed
    )
    problems = [problem for problem in tokenised["problem"] if problem]
    refuse_bad_rows("data.template", problems, len(samples), "Name another template, or mend or remove these rows.")
    return tokenised


def processes(data: Data, samples: int) -> int | None:
    """Without data.workers every core, but one a thousand samples at most: fewer are done before a process has started."""
    count = min(os.cpu_count() or 1, samples // 1000) if data.workers is None else data.workers
    return count if count > 1 else None


def keep_learnable(tokenised: Dataset, data: Data) -> Dataset:
    """The samples from which something is learned.

    Raises:
        DataError: when more than half would be dropped, which no one wants unnoticed.
    """
    reasons = Counter(reason for reason in tokenised["drop"] if reason)
    dropped = reasons.total()
    if dropped * 2 > len(tokenised):
        raise DataError(mostly_dropped(reasons, tokenised["length"], data.cutoff))
    return tokenised.select([index for index, reason in enumerate(tokenised["drop"]) if not reason]) if dropped else tokenised


def mostly_dropped(reasons: Counter[str], lengths: Sequence[int], cutoff: int) -> str:
    told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    ordered = sorted(lengths)
    if (reasons[EMPTY] + reasons[EQUAL]) * 2 > reasons.total():
        return (
            f"data.sets: {reasons.total()} of {len(ordered)} samples are of no use ({told}). Mend the data, or correct the columns in the registry."
        )
    return (
        f"data.cutoff={cutoff} leaves nothing to learn in {reasons.total()} of {len(ordered)} samples ({told}). Samples have {ordered[0]} to "
        f"{ordered[-1]} tokens, the middle one {ordered[len(ordered) // 2]}: set data.cutoff to {ordered[-1]} to keep everything."
    )


def split(samples: Dataset, data: Data, seed: int) -> tuple[Dataset, Dataset]:
    """Training and evaluation samples, both in their order; the same for the same seed."""
    count = round(len(samples) * data.validation_share)
    if data.validation_share > 0 and not 0 < count < len(samples):
        raise DataError(
            f"data.validation_share={data.validation_share} of {len(samples)} samples leaves none to {'evaluate' if count == 0 else 'train'}: "
            f"set data.validation_share so that both get one, or to 0."
        )
    held_out = set(random.Random(seed).sample(range(len(samples)), count))
    train = [index for index in range(len(samples)) if index not in held_out]
    return samples.select(train), samples.select(sorted(held_out))


def finished(part: Dataset, data: Data, kind: Kind) -> Dataset:
    """Rows as the stage reads them."""
    if kind == "text":
        return chunk(part, data)
    return pack(part, data.cutoff) if data.packing else part.select_columns(list(ROWS[kind].columns))


def pack(samples: Dataset, cutoff: int) -> Dataset:
    ids, labels = list(samples["input_ids"]), list(samples["labels"])
    rows = [packed_row([(ids[index], labels[index]) for index in row]) for row in pack_lengths([len(sample) for sample in ids], cutoff)]
    return dataset_of(rows, ["input_ids", "labels", "position_ids"])


def chunk(documents: Dataset, data: Data) -> Dataset:
    chunks = chunked(documents["input_ids"], data.cutoff)
    if data.packing:
        return dataset_of([packed_chunk_row(pieces) for pieces in chunks], ["input_ids", "labels", "position_ids"])
    return dataset_of([chunk_row(pieces) for pieces in chunks], ["input_ids", "labels"])


def dataset_of(rows: Sequence[Mapping[str, object]], columns: list[str]) -> Dataset:
    return Dataset.from_dict({column: [row[column] for row in rows] for column in columns}, features=Features(dict.fromkeys(columns, IDS)))


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
    ranks = run.cluster.nodes * (run.cluster.ranks_per_node or 1)
    needed = ranks * run.training.micro_batch
    if rows < needed:
        packed = " packed rows (data.packing=true)" if run.data.packing else " samples"
        raise DataError(
            f"{rows}{packed} to train are fewer than one batch: {ranks} ranks x training.micro_batch={run.training.micro_batch} = {needed}. "
            f"Lower training.micro_batch, use fewer ranks, or give more data."
        )
