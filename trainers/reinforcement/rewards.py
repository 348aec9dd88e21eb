"""Reward functions for stage=grpo: the built-in ones, and those imported from packages that the user allows.

A function is called as TRL calls it, with lists of equal length (prompts, completions, completion_ids, and every column of the data, `answer` among
them), and returns a list of numbers; None says that it does not judge this answer.
"""

import importlib
import re
from collections.abc import Callable
from typing import Any

from conf.constants import BUILT_IN_REWARDS
from conf.schema import Grpo

Reward = Callable[..., list[float | None]]


def exact_answer(completions: list[str], answer: list[str], **_: Any) -> list[float]:
    """1 where the whole answer is the set's own, but for spaces around it."""
    return [float(given.strip() == wanted.strip()) for given, wanted in zip(completions, answer, strict=True)]


def contains_answer(completions: list[str], answer: list[str], **_: Any) -> list[float]:
    """1 where the set's own answer stands somewhere in the answer, not as a part of a longer word or number."""
    return [
        float(re.search(rf"(?<!\w){re.escape(wanted.strip())}(?!\w)", given) is not None) for given, wanted in zip(completions, answer, strict=True)
    ]


def matching(pattern: str) -> Reward:
    """1 where the whole answer, but for spaces around it, matches `pattern`."""
    compiled = re.compile(pattern, re.DOTALL)

    def format(completions: list[str], **_: Any) -> list[float | None]:
        return [float(compiled.fullmatch(given.strip()) is not None) for given in completions]

    return format


def short_within(limit: int) -> Reward:
    """From 1 for an answer of no tokens down to 0 for one of `limit`."""

    def brevity(completion_ids: list[list[int]], **_: Any) -> list[float | None]:
        return [1 - len(tokens) / limit for tokens in completion_ids]

    return brevity


def reward_functions(stage: Grpo) -> list[Reward]:
    """What stage.rewards names.

    Raises:
        ValueError: naming the reward that is unknown, not allowed or not to be imported.
    """
    return [imported(name, stage.reward_packages) if ":" in name else built_in(name, stage) for name in stage.rewards]


def built_in(name: str, stage: Grpo) -> Reward:
    if name == "format" and stage.format is None:
        raise ValueError("stage.rewards: `format` needs stage.format, which is null. Set it to a regular expression.")
    rewards: dict[str, Callable[[], Reward]] = {
        "exact_answer": lambda: exact_answer,
        "contains_answer": lambda: contains_answer,
        "format": lambda: matching(str(stage.format)),
        "brevity": lambda: short_within(stage.response_length),
    }
    if name not in rewards:
        raise ValueError(f"stage.rewards: {name} is not known. Built in: {', '.join(BUILT_IN_REWARDS)}; your own: package.module:function.")
    return rewards[name]()


def imported(name: str, packages: list[str]) -> Reward:
    module, _, function = name.partition(":")
    if module.split(".")[0] not in packages:
        raise ValueError(
            f"stage.rewards: {name} would run code of {module.split('.')[0]}. Allow it with stage.reward_packages=[{module.split('.')[0]}]."
        )
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"stage.rewards: {name} cannot be imported ({error}). Install the package where the ranks run, or fix the name.") from error
    if not callable(found):
        raise ValueError(f"stage.rewards: {name} is not a function.")
    reward: Reward = found
    return reward
