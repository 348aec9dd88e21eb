"""What a finished run answered before and after its training, in lines."""

import json
from typing import Any

from conf.run_dir import RunDir

SHOWN = 60  # characters of an answer: an untrained model may write anything


def generated_lines(run_dir: RunDir) -> list[str]:
    if not run_dir.samples.exists():
        return []
    try:
        return lines_of(json.loads(run_dir.samples.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, KeyError, TypeError, IndexError):
        return [f"{run_dir.samples} is damaged"]


def lines_of(entries: list[dict[str, Any]]) -> list[str]:
    asked = [f"asked {one['when']} training: {one['prompt']!r}\n  answered: {one['answer']!r}" for one in entries if "prompt" in one]
    return [*asked, *right_lines([one for one in entries if "asked" in one])]


def right_lines(judged: list[dict[str, Any]]) -> list[str]:
    """A run that was resumed at its end has no answers of before."""
    if not judged:
        return []
    counts = ", ".join(f"{one['right']} of {one['asked']} {one['when']} training" for one in judged)
    shown = [f"  answered {one['when']} training: {short(one['answers'][0]['answer'])}" for one in judged]
    return [f"right answers to held-out questions: {counts}", f"  the first one: {last_turn(judged[-1])}", *shown]


def last_turn(entry: dict[str, Any]) -> str:
    """The prompt with its control tokens; its end says most."""
    prompt = repr(entry["answers"][0]["prompt"])
    return prompt if len(prompt) <= 2 * SHOWN else f"... {prompt[-2 * SHOWN :]}"


def short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")
