"""`python -m trainers.verbs.make_up FOLDER`: prompts for a canary, each as long as data.cutoff allows with the tokenizer of the run."""

import json
import sys
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from conf.request import MakeUp, load_make_up
from conf.run_dir import load_composed, write_text_atomically
from conf.schema import Composed, Data
from trainers.data.rows.row_kinds import row_of
from trainers.data.samples.chat import Sample, plain
from trainers.errors import DataError
from trainers.model.tokenizer import load_tokenizer
from trainers.verbs.frame import perform

WORD = "a "  # of few tokens, so that little is missing to the cutoff
ANSWER = "La."  # for rewards that compare with the set's own answer


def make_up(run: Composed, request: MakeUp) -> None:
    """Write the samples into the file of the request.

    Raises:
        DataError: where the cutoff has no room for a prompt of one word.
    """
    question = longest_question(run.data, load_tokenizer(run))
    write_text_atomically(Path(request.target), json.dumps([{"instruction": question, "output": ANSWER}] * request.count))


def longest_question(data: Data, tokenizer: PreTrainedTokenizerBase) -> str:
    """The largest number of words whose prompt is no longer than the cutoff; found by halves, since more words never are fewer tokens."""
    fits, too_many = 0, data.cutoff + 1
    while too_many - fits > 1:
        words = (fits + too_many) // 2
        fits, too_many = (words, too_many) if prompt_tokens(words, data, tokenizer) <= data.cutoff else (fits, words)
    if fits == 0:
        raise DataError(f"data.cutoff={data.cutoff} has no room for a prompt: with one word it has {prompt_tokens(1, data, tokenizer)} tokens.")
    return question_of(fits)


def question_of(words: int) -> str:
    return (WORD * words).strip()


def prompt_tokens(words: int, data: Data, tokenizer: PreTrainedTokenizerBase) -> int:
    sample: Sample = {"place": "a canary", "messages": [plain("user", question_of(words))], "tools": [], "answer": ANSWER}
    return int(row_of(sample, "prompts", tokenizer, data)["length"])


if __name__ == "__main__":
    sys.exit(perform(load_make_up, make_up, load=load_composed))
