"""A small task that the project makes itself: sums of the numbers from 1 to 5, asked by eighty people, the same in every run.

A model of 0.4 M parameters learns it within a hundred steps on any machine, so that what it answers to held-out questions shows that it learned.
"""

import random
from collections.abc import Callable, Iterable

from conf.stages import Kind
from trainers.data.sources.rows import Row

NAMES = (
    "Abel Ada Aida Alba Alma Amir Anna Anton Arlo Aya Ben Bina Bo Cara Chen Cleo Dag Dana Dora Edda Eli Elsa Emil Emma Esra Eva Ezra Finn Flora Gita "
    "Greta Hana Hugo Ida Ines Iris Ivo Jan Jana Jonas Juan Kai Kara Kofi Kurt Lars Lea Lena Leo Lina Luca Luis Mara Marta Max Mei Mila Mina Mona "
    "Nadia Nia Nils Nina Noah Nora Olga Omar Otto Paul Pia Rafa Rita Rosa Sara Sven Tara Theo Uma Vera"
)
NUMBERS = range(1, 6)
SEED = 0  # of the order alone: max_samples takes the first n


def generated_rows(kind: Kind = "answers") -> Iterable[Row]:
    """2,000 different questions: 5 x 5 sums, each asked plainly and by 79 people. What is held out was asked by others of them in training."""
    sums = [(question, a, b) for a in NUMBERS for b in NUMBERS for question in ask(a, b)]
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
