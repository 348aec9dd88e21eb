"""Which stages a set suits, and what each makes of it."""

import pytest

from conf.data_kinds import GIVES, WORDS, refuse_other_kind, stages_served
from conf.stages import STAGES
from trainers.data.samples.chat import Sample, plain
from trainers.data.samples.conversion import MAKE, last_answer_alone
from trainers.errors import DataError

BASE: Sample = {"place": "f.json, record 1", "messages": [plain("user", "U")], "tools": [{"name": "t"}]}
PAIR: Sample = {**BASE, "chosen": [plain("assistant", "good")], "rejected": [plain("assistant", "bad")]}
ANSWERED: Sample = {**BASE, "messages": [*BASE["messages"], plain("assistant", "A")]}


def test_every_kind_of_rows_has_words_a_way_to_be_made_and_a_stage_that_reads_it():
    assert {row.reads for row in STAGES.values()} == set(WORDS) == set(MAKE)


@pytest.mark.parametrize(
    ("held", "stages"),
    [
        ("text", ["pt", "ppo", "grpo"]),
        ("answers", ["sft", "ppo", "grpo"]),
        ("pairs", ["sft", "rm", "dpo", "orpo", "simpo", "kto", "ppo", "grpo"]),
        ("labelled", ["kto", "ppo", "grpo"]),
        ("prompts", ["ppo", "grpo"]),
    ],
)
def test_a_set_suits_these_stages(held: str, stages: list[str]):
    assert stages_served(held) == stages


def test_a_set_that_a_stage_cannot_read_is_refused_with_the_stages_that_it_suits():
    message = (
        r"^data.sets: mine holds conversations that end with an answer, but this stage reads prompts with a chosen and a rejected "
        r"answer. This set suits stage=sft, ppo, grpo. Choose one of these stages, or another set.$"
    )
    with pytest.raises(DataError, match=message):
        refuse_other_kind("data.sets: mine", "answers", "pairs")


def test_an_answered_question_gives_its_prompt_and_keeps_the_answer_apart():
    assert MAKE["answers"]["prompts"](ANSWERED) == [{**BASE, "answer": "A"}]
    assert MAKE["answers"]["prompts"](BASE) == [{**BASE, "answer": ""}]


def test_a_pair_gives_a_prompt_the_chosen_answer_or_two_labelled_answers():
    good, bad = ([*BASE["messages"], plain("assistant", text)] for text in ("good", "bad"))
    assert MAKE["pairs"]["prompts"](PAIR) == [{**BASE, "answer": "good", "unread": ["rejected answers, as prompts alone are used"]}]
    assert MAKE["pairs"]["answers"](PAIR) == [{**BASE, "messages": good, "unread": ["rejected answers, as chosen ones alone are learned"]}]
    assert MAKE["pairs"]["labelled"](PAIR) == [{**BASE, "messages": good, "label": True}, {**BASE, "messages": bad, "label": False}]


def test_a_labelled_answer_is_an_answer_to_its_prompt_only_if_it_is_good():
    assert MAKE["labelled"]["prompts"]({**ANSWERED, "label": True}) == [{**BASE, "answer": "A"}]
    unread = ["answers that are labelled bad, as prompts alone are used"]
    assert MAKE["labelled"]["prompts"]({**ANSWERED, "label": False}) == [{**BASE, "answer": "", "unread": unread}]


def test_without_history_the_last_answer_alone_is_learned():
    turns = [plain("user", "U"), plain("assistant", "A"), plain("user", "V"), plain("assistant", "B")]
    assert [message["learn"] for message in last_answer_alone({**BASE, "messages": turns})["messages"]] == [False, False, False, True]


def test_what_the_launcher_expects_of_a_set_is_what_can_be_made_of_it() -> None:
    assert {held: tuple(made) for held, made in MAKE.items()} == GIVES
