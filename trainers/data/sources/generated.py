"""A toy task that the project makes itself: sums of single digits asked by twenty people, the same in every run."""

import random
from collections.abc import Callable, Iterable

from conf.stages import Kind
from trainers.data.sources.rows import Row

NAMES = "Ada Ben Chen Dora Emil Finn Gita Hugo Ines Jan Kofi Lena Mara Nils Olga Paul Rosa Sven Tara"
SEED = 0  # of the order alone: max_samples takes the first n


def generated_rows(kind: Kind = "answers") -> Iterable[Row]:
    """2,000 questions: 10 x 10 sums, each asked plainly and by 19 names, so that held-out questions have been seen in other words."""
    digits = range(10)
    sums = [(question, a, b) for a in digits for b in digits for question in ask(a, b)]
    rows = [COLUMNS[kind](question, f"{a} + {b} = {a + b}.", f"{a} + {b} = {a + b + 1}.", number) for number, (question, a, b) in enumerate(sums)]
    random.Random(SEED).shuffle(rows)
    return enumerate(rows, start=1)


def answers(question: str, right: str, wrong: str, number: int) -> dict[str, object]:
    return {"instruction": question, "input": "", "output": right}


def text(question: str, right: str, wrong: str, number: int) -> dict[str, object]:
    return {"text": f"{question} {right}"}


def pair(question: str, right: str, wrong: str, number: int) -> dict[str, object]:
    return {"prompt": question, "chosen": right, "rejected": wrong}


def labelled(question: str, right: str, wrong: str, number: int) -> dict[str, object]:
    good = number % 2 == 0
    return {"prompt": question, "completion": right if good else wrong, "label": good}


COLUMNS: dict[Kind, Callable[[str, str, str, int], dict[str, object]]] = {
    "text": text,
    "answers": answers,
    "pairs": pair,
    "labelled": labelled,
    "prompts": answers,
}


def ask(a: int, b: int) -> list[str]:
    return [f"What is {a} + {b}?", *(f"{name}, what is {a} + {b}?" for name in NAMES.split())]
