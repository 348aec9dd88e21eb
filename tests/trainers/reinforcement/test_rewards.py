"""Reward functions: the built-in ones, and which others may be imported."""

from dataclasses import replace
from pathlib import Path

import pytest

from conf.constants import BUILT_IN_REWARDS
from conf.schema import Grpo
from launcher.composition.compose import compose
from trainers.reinforcement.rewards import contains_answer, exact_answer, reward_functions


def stage(*rewards: str, packages: tuple[str, ...] = (), pattern: str | None = None) -> Grpo:
    composed = compose(["stage=grpo", "model=demo", "data=demo"]).stage
    assert isinstance(composed, Grpo)
    return replace(composed, rewards=[*rewards], reward_packages=[*packages], format=pattern, response_length=10)


def test_an_exact_answer_is_the_whole_answer() -> None:
    assert exact_answer(completions=[" 7\n", "7.", "17"], answer=["7", "7", "7"]) == [1.0, 0.0, 0.0]


def test_a_contained_answer_is_no_part_of_a_longer_word_or_number() -> None:
    assert contains_answer(completions=["It is 7.", "It is 17.", "70", "seven"], answer=["7"] * 4) == [1.0, 0.0, 0.0, 0.0]


def test_a_format_must_match_the_whole_answer() -> None:
    (reward,) = reward_functions(stage("format", pattern=r"\d+ \+ \d+ = \d+\."))
    assert reward(completions=["3 + 4 = 8.", "3 + 4 = 7", "so 3 + 4 = 7."], answer=[""] * 3) == [1.0, 0.0, 0.0]
    assert reward.__name__ == "format"


def test_brevity_falls_with_the_tokens_of_an_answer() -> None:
    (reward,) = reward_functions(stage("brevity"))
    assert reward(completion_ids=[[], [1] * 5, [1] * 10]) == [1.0, 0.5, 0.0]


def test_the_launcher_knows_the_same_built_in_rewards() -> None:
    assert [reward.__name__ for reward in reward_functions(stage(*BUILT_IN_REWARDS, pattern="x"))] == [*BUILT_IN_REWARDS]
    with pytest.raises(ValueError, match=rf"Built in: {', '.join(BUILT_IN_REWARDS)};"):
        reward_functions(stage("exact"))


def test_a_function_of_an_allowed_package_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rewards.py").write_text("def praise(completions, **_):\n    return [2.0 for _ in completions]\n")
    monkeypatch.syspath_prepend(tmp_path)
    (reward,) = reward_functions(stage("my_rewards:praise", packages=("my_rewards",)))
    assert reward(completions=["a", "b"]) == [2.0, 2.0]


def test_code_of_other_packages_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other_rewards.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"Allow it with stage.reward_packages=\[other_rewards\]"):
        reward_functions(stage("other_rewards:praise", packages=("my_rewards",)))


@pytest.mark.parametrize("name", ["nowhere_at_all:praise", "json:praise"])
def test_what_cannot_be_imported_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=rf"stage.rewards: {name} cannot be imported"):
        reward_functions(stage(name, packages=("nowhere_at_all", "json")))
