"""A toy task that the project makes itself: sums of single digits asked by twenty people, the same in every run."""

import random

from trainers.data.records import Records

NAMES = "Ada Ben Chen Dora Emil Finn Gita Hugo Ines Jan Kofi Lena Mara Nils Olga Paul Rosa Sven Tara"
SEED = 0  # of the order alone: max_samples takes the first n


def generated_records() -> Records:
    """2,000 questions: 10 x 10 sums, each asked plainly and by 19 names, so that held-out questions have been seen in other words."""
    digits = range(10)
    rows = [{"instruction": question, "input": "", "output": f"{a} + {b} = {a + b}."} for a in digits for b in digits for question in ask(a, b)]
    random.Random(SEED).shuffle(rows)
    return Records("generated", "record", list(enumerate(rows, start=1)))


def ask(a: int, b: int) -> list[str]:
    return [f"What is {a} + {b}?", *(f"{name}, what is {a} + {b}?" for name in NAMES.split())]
