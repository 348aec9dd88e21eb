"""A toy task that the project makes itself: small sums, the same in every run."""

import random

from trainers.data.records import Records

NUMBERS = 45  # 45 x 45 = 2,025 questions
SEED = 0  # of the order alone: max_samples takes the first n


def generated_records() -> Records:
    pairs = [(a, b) for a in range(NUMBERS) for b in range(NUMBERS)]
    random.Random(SEED).shuffle(pairs)
    rows = [{"instruction": f"What is {a} + {b}?", "input": "", "output": f"{a} + {b} = {a + b}."} for a, b in pairs]
    return Records("generated", "record", list(enumerate(rows, start=1)))
