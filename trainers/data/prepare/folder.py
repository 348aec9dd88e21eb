"""The data of a run, ready for a trainer: built, linked from the cache into a folder, loaded from there; the same on every rank."""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, IterableDataset
from transformers import PreTrainedTokenizerBase

from conf.ranks import ranks
from conf.schema import Run
from conf.stages import stage_row
from trainers.data.prepare.build import EVALUATION, REPORT, TRAIN, build_into
from trainers.data.prepare.cache import cached
from trainers.data.prepare.report import DataReport, read_report
from trainers.errors import DataError

KEY = "key"  # of the cache from which a folder was linked: equal for equal data


@dataclass(frozen=True)
class PreparedData:
    """Rows of the kind that the stage reads (kinds.py):

    text, answers: input_ids, labels, and position_ids when packed
    pairs: prompt_ids, chosen_ids, rejected_ids
    labelled: prompt_ids, completion_ids, label
    prompts: prompt_ids, prompt (its text), answer (the set's own, or "")
    """

    train: Dataset | IterableDataset  # empty where a streamed run is prepared: it reads its rows while it trains
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
    if not run.data.streaming:
        refuse_too_few(run, len(prepared.train))
    return prepared


def prepare(run: Run, tokenizer: PreTrainedTokenizerBase, folder: Path, key: Path | None = None) -> PreparedData:
    """Put the datasets into `folder`, for one rank while the others wait for the folder; what is already there is used.

    They are linked from the cache, which may be deleted at any time. `key` is what remove_prepared left of a finished run.

    Raises:
        DataError, ValueError: as build_datasets; where the data is not that of `key`; naming data.cache where it cannot be written.
        OSError: when the folder cannot be written.
    """
    if not folder.exists():
        unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(unfinished, ignore_errors=True)  # of a process with the same id that was killed
        cache = prepare_cache(run, tokenizer)
        if key is not None:
            refuse_other_data(cache, key)
        shutil.copytree(cache, unfinished, copy_function=link_or_copy)
        (unfinished / KEY).write_text(cache.name, encoding="utf-8")
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
    report = read_report(json.loads((folder / REPORT).read_text(encoding="utf-8")))
    return PreparedData(Dataset.from_file(str(folder / TRAIN)), evaluation, report)


def remove_prepared(folder: Path, key: Path) -> None:
    """Of a finished run; `key` keeps what tells whether it goes on later with the data that it was trained on."""
    if (folder / KEY).exists():
        os.replace(folder / KEY, key)
    shutil.rmtree(folder, ignore_errors=True)


def refuse_other_data(cache: Path, key: Path) -> None:
    """Raises DataError where a finished run goes on and its data is not what it was."""
    if key.exists() and key.read_text(encoding="utf-8") != cache.name:
        raise DataError(
            "The data of this finished run has changed since: the files of data.sets, the tokenizer or the version of transformers. "
            "Its further steps would not see the samples that come next. Put back what was there, or start a new run from the weights."
        )


def refuse_too_few(run: Run, rows: int) -> None:
    """Every rank needs one full micro batch."""
    needed = ranks(run) * run.training.micro_batch
    if rows < needed:
        filled = run.data.packing or stage_row(run.stage.name).reads == "text"
        what = f"rows of data.cutoff={run.data.cutoff} tokens" if filled else "samples"
        raise DataError(
            f"There are {rows} {what} to train on, and one batch needs {ranks(run)} ranks x training.micro_batch={run.training.micro_batch} = "
            f"{needed}. Lower training.micro_batch{' or data.cutoff' if filled else ''}, use fewer ranks, or give more data."
        )
