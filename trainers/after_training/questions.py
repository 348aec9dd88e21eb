"""The prompts of a prediction, with the answers that the data gives to them."""

from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from conf.schema import Data, Run
from conf.stages import stage_row
from trainers.data import build_datasets
from trainers.data.rows.drops import NOTHING_LEARNED
from trainers.data.rows.questions import Question, from_row
from trainers.data.rows.row_kinds import row_of
from trainers.data.samples.chat import RowError, Sample, plain
from trainers.data.samples.sets import read_sets
from trainers.data.sources.records import refuse_bad_rows
from trainers.errors import DataError

UNCUT = 2**31  # tokens: answers are references here, and whole


def held_out_questions(run: Run, tokenizer: PreTrainedTokenizerBase) -> list[Question]:
    """The samples that training evaluated on and did not learn from, as it saw them (cut at data.cutoff).

    Raises:
        DataError: when there are none.
    """
    kind = stage_row(run.stage.name).reads
    if kind == "text":
        raise DataError(f"stage={run.stage.name} holds out plain text, so there are no prompts to answer. Name sets with prompts: --data SET.")
    data = replace(run.data, packing=False, mask_prompt=True)  # packing is for rows, and the labels are to show the answers
    prepared = build_datasets(on_one_rank(run, data), tokenizer)
    if prepared.evaluation is None:
        raise DataError("The run held no samples out. Name sets with --data SET, or use its training data with --all.")
    unanswered = prepared.report.drops.get(NOTHING_LEARNED, 0)
    if unanswered and not run.data.mask_prompt:
        raise DataError(
            f"The run also learned prompts (data.mask_prompt=false), and {unanswered} samples have nothing else to learn. It is no longer known "
            "which samples were held out. Name sets with --data SET, or use its training data with --all."
        )
    return [from_row(row, tokenizer) for row in prepared.evaluation]


def on_one_rank(run: Run, data: Data) -> Run:
    """No batch has to be filled."""
    return replace(run, data=data, cluster=replace(run.cluster, nodes=1, ranks_per_node=1), training=replace(run.training, micro_batch=1))


def questions_of_sets(data: Data, tokenizer: PreTrainedTokenizerBase) -> list[Question]:
    """Every prompt of the sets that is no longer than data.cutoff, with the whole answer of the data.

    Raises:
        DataError: listing the rows that the template cannot show, and the prompts that are too long.
    """
    samples = read_sets(data, "prompts")
    questions: list[Question] = []
    problems: list[str] = []
    for sample in samples:
        try:
            question = from_sample(sample, tokenizer, data)
        except RowError as error:
            problems.append(f"{sample['place']}: {error}")
            continue
        questions.append(question)
        if len(question.prompt_ids) > data.cutoff:
            problems.append(f"{sample['place']}: the prompt has {len(question.prompt_ids)} tokens, more than data.cutoff={data.cutoff}")
    refuse_bad_rows("data.sets", problems, len(samples), "Raise data.cutoff, or fix or remove these rows.")
    return questions


def from_sample(sample: Sample, tokenizer: PreTrainedTokenizerBase, data: Data) -> Question:
    uncut = replace(data, cutoff=UNCUT)
    if sample["answer"] == "":
        return Question(row_of(sample, "prompts", tokenizer, uncut)["prompt_ids"], [], "")
    answered = {**sample, "messages": [*sample["messages"], plain("assistant", sample["answer"])], "label": True}
    row = row_of(answered, "labelled", tokenizer, uncut)
    return Question(row["prompt_ids"], row["completion_ids"], sample["answer"].strip())
