"""`python -m trainers.verbs.validate FOLDER`: read, tokenise and judge the data of a run, and say what training would meet."""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy
from transformers import PreTrainedTokenizerBase

from conf.data_sets import evaluation_sources, left_out, sources_of
from conf.request import Validate, load_validate
from conf.run_dir import load_composed
from conf.schema import Composed
from conf.stages import Kind, stage_row
from conf.words import aligned
from trainers.data.inspect.agreement import disagreements
from trainers.data.inspect.lengths_picture import draw_lengths
from trainers.data.inspect.preview import Preview, plain_text, previews, show
from trainers.data.inspect.survey import SetCounts, Survey, common_samples, survey
from trainers.data.prepare.build import refuse_bad_values, refuse_useless, tokenised, unmixed
from trainers.data.prepare.cache import cache_folder, naming_the_cache
from trainers.data.prepare.problems import Problem, problem_lines
from trainers.data.prepare.report import control_lines, left_out_lines, one_class_lines, repair_lines, unread_lines
from trainers.data.prepare.selection import kept, select
from trainers.data.prepare.tokenising import Tokenised, Work
from trainers.data.sources.records import SHOWN
from trainers.errors import DataError
from trainers.model.tokenizer import load_tokenizer
from trainers.verbs.frame import perform


@dataclass(frozen=True)
class Findings:
    train: Survey
    evaluation: Survey | None
    in_both: int  # samples of the evaluation sets that are trained on
    disagreements: list[str]
    problems: list[Problem]
    previews: list[Preview]
    left_out: list[str]  # files of the sets' folders that are not read
    one_class: list[str]  # a warning where the answers are all labelled alike
    refusal: str | None  # what training would end with


def validate(run: Composed, request: Validate) -> None:
    """Print what was found.

    Raises:
        DataError: when training on it would end with one.
    """
    tokenizer = load_tokenizer(run)
    refuse_bad_values(run.data, stage_row(run.stage.name).reads)
    with tempfile.TemporaryDirectory(prefix="regimen-data-") as workshop:
        found, train = findings(run, tokenizer, Path(workshop))
        picture = draw(run, train.rows.with_format("numpy")["length"][:], request)
    if request.as_json:
        print(as_json(found, picture))
    else:
        print("\n".join([*report_lines(found), f"picture of the lengths: {picture}"]))
        for preview in found.previews:
            show(preview, sys.stdout)
    if found.refusal is not None:
        raise DataError(found.refusal)


def draw(run: Composed, lengths: numpy.ndarray, request: Validate) -> Path:
    title = ", ".join(run.data.sets)
    if request.picture is not None:  # the launcher has looked whether it can be written
        draw_lengths(lengths, run.data.cutoff, title, Path(request.picture))
        return Path(request.picture)
    folder = cache_folder(run)
    with naming_the_cache(folder):
        folder.mkdir(parents=True, exist_ok=True)
        draw_lengths(lengths, run.data.cutoff, title, folder / "lengths.png")
    return folder / "lengths.png"


def findings(run: Composed, tokenizer: PreTrainedTokenizerBase, workshop: Path) -> tuple[Findings, Tokenised]:
    kind = stage_row(run.stage.name).reads
    work = Work(tokenizer, run.data, kind)
    train = tokenised(sources_of(run.data.sets, run.data), work, workshop / "train.arrow")
    held_out = tokenised(evaluation_sources(run.data), work, workshop / "evaluation.arrow") if run.data.evaluation_sets else None
    found = Findings(
        train=survey(train, run.data.sets, run.data, kind),
        evaluation=survey(held_out, run.data.evaluation_sets, run.data, kind) if held_out else None,
        in_both=common_samples(train, held_out) if held_out else 0,
        disagreements=disagreements(run, tokenizer, train.rows),
        problems=[*train.problems, *(held_out.problems if held_out else [])],
        previews=shown(train, kind, tokenizer) if len(train.rows) else [],
        left_out=[str(file) for file in left_out(run.data)],
        one_class=labels_alike(train) if kind == "labelled" else [],
        refusal=refusal(run, train, held_out),
    )
    return found, train


def shown(train: Tokenised, kind: Kind, tokenizer: PreTrainedTokenizerBase) -> list[Preview]:
    """The first sample that is learned from; where all are dropped the first of them, and why."""
    row = train.rows[int(numpy.argmax(kept(train.rows)))]
    made = previews(row, kind, tokenizer)
    return [replace(preview, title=f"{preview.title} (dropped: {row['drop']})") for preview in made] if row["drop"] else made


def labels_alike(train: Tokenised) -> list[str]:
    labels = train.rows.with_format("numpy")["label"][:][kept(train.rows)]
    return one_class_lines(int(labels.sum()), len(labels)) if len(labels) else []


def refusal(run: Composed, train: Tokenised, held_out: Tokenised | None) -> str | None:
    """The message with which training would end for its data; None: it would begin."""
    try:
        refuse_useless(train, run.data, listed=False)
        select(train.rows, run.data, run.training.seed)
        if held_out is not None:
            refuse_useless(held_out, run.data, listed=False)
            select(held_out.rows, unmixed(run.data), run.training.seed)
    except DataError as error:
        return str(error)
    return None


def as_json(found: Findings, picture: Path) -> str:
    shown = {"total": len(found.problems), "first": [asdict(problem) for problem in found.problems[:SHOWN]]}
    texts = [plain_text(preview) for preview in found.previews]
    values = {**asdict(found), "problems": shown, "previews": texts, "picture": str(picture)}
    return json.dumps(values, indent=1, ensure_ascii=False)


def report_lines(found: Findings) -> list[str]:
    evaluated = [] if found.evaluation is None else ["evaluation sets:", *survey_lines(found.evaluation)]
    both = [f"{found.in_both:,} samples of the evaluation sets are trained on too."] if found.in_both else []
    bad = [f"rows that cannot be used: {len(found.problems):,}", *(f"  {line}" for line in problem_lines(found.problems))] if found.problems else []
    agree = found.disagreements or ["none"]
    return [
        *survey_lines(found.train),
        *found.one_class,
        *left_out_lines(found.left_out),
        *evaluated,
        *both,
        *bad,
        "tokenizer against model:",
        *(f"  {line}" for line in agree),
    ]


def survey_lines(counted: Survey) -> list[str]:
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counted.drops.items()) or "none"
    lengths = ", ".join(f"{name} {tokens:,}" for name, tokens in counted.lengths.items()) or "none"
    return [
        *table(counted.sets),
        *(f"{one.name}: {line}" for one in counted.sets for line in note_lines(one, counted.control_tokens)),
        f"dropped: {reasons}; empty: {counted.empty:,}; duplicates: {counted.duplicates:,}",
        f"lengths in tokens: {lengths}; above data.cutoff={counted.cutoff}: {counted.over_cutoff:,}",
    ]


def note_lines(one: SetCounts, control_tokens: str) -> list[str]:
    return [*repair_lines(one.repairs), *unread_lines(one.unread), *control_lines(one.controls, control_tokens)]


COLUMNS = ("set", "records", "samples", "unusable", "dropped", "truncated", "tokens", "learned", "good")


def table(sets: Sequence[SetCounts]) -> list[str]:
    return aligned([COLUMNS, *(cells(counts) for counts in sets)], right_from=1)


def cells(counts: SetCounts) -> tuple[str, ...]:
    numbers = (counts.records, counts.samples, counts.unusable, counts.dropped, counts.truncated, counts.tokens, counts.learned_tokens)
    good = "" if counts.label_share is None else f"{counts.label_share:.0%}"
    return (counts.name, *(f"{number:,}" for number in numbers), good)


if __name__ == "__main__":
    sys.exit(perform(load_validate, validate, load=load_composed))
