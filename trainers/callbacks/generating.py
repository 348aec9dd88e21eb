"""Answers before and after training: to one prompt of the user's, and to held-out questions, of which the right answers are counted."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from conf.data_sets import evaluates
from conf.run_dir import RunDir, write_text_atomically
from conf.schema import Run
from conf.signs import GENERATION
from conf.stages import Loss, stage_row
from trainers.data.rows.questions import Question, first_questions
from trainers.model.answers import greedy, write_answers
from trainers.model.conversation import prompt_ids
from trainers.ranks.life import LIFE
from trainers.ranks.stop import leave_if_asked

NEW_TOKENS = 32  # of the answer to the user's prompt
SPARE = 8  # tokens that an answer to a question may have beyond the set's own

Entry = dict[str, Any]


def questions_to_ask(run: Run, rows: Iterable[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase) -> tuple[list[Question], str | None]:
    """The held-out questions of evaluation.answers, and a line where that asks for some and there are none."""
    wanted, stage = run.evaluation.answers, stage_row(run.stage.name)
    if not wanted:
        return [], None
    reason = f"this run holds out no samples with an answer{'' if evaluates(run.data) else ' (data.validation_share, data.evaluation_sets)'}"
    if stage.loss is Loss.SCORE:
        reason = f"stage={run.stage.name} trains a model of scores, which writes no answers"
    elif stage.reads == "text":
        reason = f"stage={run.stage.name} holds out plain text, which has no questions"
    elif not run.data.mask_prompt:
        reason = "with data.mask_prompt=false nothing in a row tells where its answer begins"
    else:
        found = first_questions(rows, wanted, tokenizer)
        if found:
            return found, None
    return [], f"evaluation.answers={wanted}: {reason}, so no question is asked before and after training."


class Generating(TrainerCallback):
    """On every rank alike: under ZeRO-3 and FSDP each forward pass gathers weights from all of them."""

    def __init__(
        self, run_dir: RunDir, prompt: str | None, questions: Sequence[Question], batch: int, tokenizer: PreTrainedTokenizerBase, leads: bool
    ) -> None:
        """`batch` questions are answered at a time."""
        self.run_dir, self.prompt, self.questions, self.batch = run_dir, prompt, questions, batch
        self.tokenizer, self.leads = tokenizer, leads

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any) -> None:
        if state.global_step == 0:
            self.write(self.entries("before", model))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            self.write(self.entries("after", model), beside=True)

    def entries(self, when: str, model: Any) -> list[Entry]:
        LIFE.enter(GENERATION)
        training = model.training
        model.eval()
        found: list[Entry] = []
        if self.prompt is not None:
            asked = prompt_ids(self.tokenizer, [{"role": "user", "content": self.prompt}])
            found.append({"when": when, "prompt": self.prompt, "answer": self.answers(model, [asked], NEW_TOKENS)[0]})
        if self.questions:
            found.append({"when": when, **self.judged(model)})
        model.train(training)
        return found

    def judged(self, model: Any) -> Entry:
        """An answer is right where its text is that of the set's own."""
        limit = SPARE + max(len(self.tokenizer(question.reference)["input_ids"]) for question in self.questions)
        batches = [self.questions[start : start + self.batch] for start in range(0, len(self.questions), self.batch)]
        said = [text for batch in batches for text in self.answers(model, [question.prompt_ids for question in batch], limit)]
        answers = [
            {"prompt": self.tokenizer.decode(question.prompt_ids), "answer": text, "reference": question.reference}
            for question, text in zip(self.questions, said, strict=True)
        ]
        return {"asked": len(answers), "right": sum(one["answer"] == one["reference"] for one in answers), "answers": answers}

    def answers(self, model: Any, prompts: list[list[int]], limit: int) -> list[str]:
        """The likeliest answers; under FSDP and ZeRO-3 every rank writes the same, so none has to wait for another."""
        room = model.config.get_text_config().max_position_embeddings - max(map(len, prompts))
        LIFE.move()
        written = write_answers(model, prompts, greedy(max(1, min(limit, room)), self.tokenizer))
        leave_if_asked()
        return [str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip() for tokens in written]

    def write(self, entries: list[Entry], beside: bool = False) -> None:
        """By one rank, which alone reads what is there: `beside` keeps that."""
        if not self.leads:
            return
        before = json.loads(self.run_dir.samples.read_text(encoding="utf-8")) if beside and self.run_dir.samples.exists() else []
        write_text_atomically(self.run_dir.samples, json.dumps([*before, *entries], ensure_ascii=False, indent=1))
