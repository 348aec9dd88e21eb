"""One sample as the model sees it, what is learned set apart: in colour on a terminal, between marks elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TextIO

from transformers import PreTrainedTokenizerBase

from conf.stages import Kind
from trainers.data.rows.tokens import MASKED

BEGIN, END = "⟦", "⟧"
LEARNED_STYLE = "bold green"
Part = tuple[str, bool]  # text, and whether it is learned


@dataclass(frozen=True)
class Preview:
    title: str
    parts: list[Part]


def previews(row: Mapping[str, object], kind: Kind, tokenizer: PreTrainedTokenizerBase) -> list[Preview]:
    """The sequences of one tokenised sample: one, of a pair two."""
    if kind == "answers":
        return [Preview("sample", masked_parts(ids(row, "input_ids"), ids(row, "labels"), tokenizer))]
    if kind == "text":
        return [Preview("sample", [(tokenizer.decode(ids(row, "input_ids")), True)])]
    prompt = tokenizer.decode(ids(row, "prompt_ids"))
    if kind == "prompts":
        answer = f"the set's answer: {row['answer']!r}" if row["answer"] else "the set has no answer"
        return [Preview(f"prompt ({answer})", [(prompt, False)])]
    columns = {"chosen": "chosen_ids", "rejected": "rejected_ids"} if kind == "pairs" else {label_title(row): "completion_ids"}
    return [Preview(title, [(prompt, False), (tokenizer.decode(ids(row, column)), True)]) for title, column in columns.items()]


def label_title(row: Mapping[str, object]) -> str:
    return "labelled good" if row["label"] else "labelled bad"


def ids(row: Mapping[str, object], column: str) -> list[int]:
    value = row[column]
    assert isinstance(value, list)
    return value


def masked_parts(input_ids: list[int], labels: list[int], tokenizer: PreTrainedTokenizerBase) -> list[Part]:
    pairs = zip(input_ids, labels, strict=True)
    return [(tokenizer.decode([token for token, _ in run]), learned) for learned, run in groupby(pairs, key=lambda pair: pair[1] != MASKED)]


def plain_text(preview: Preview) -> str:
    marked = "".join(f"{BEGIN}{text}{END}" if learned else text for text, learned in preview.parts)
    return f"{preview.title}, learned text between {BEGIN} and {END}:\n{marked}"


def show(preview: Preview, out: TextIO) -> None:
    if not out.isatty():
        print(plain_text(preview), file=out)
        return
    from rich.console import Console
    from rich.text import Text

    text = Text(f"{preview.title}, learned text in green:\n")
    for part, learned in preview.parts:
        text.append(part, style=LEARNED_STYLE if learned else "dim")
    Console(file=out).print(text)
