"""A reward that does not depend on what was sampled."""

from typing import Any


def own_number(answer: list[str], **_: Any) -> list[float]:
    return [float(number) for number in answer]
