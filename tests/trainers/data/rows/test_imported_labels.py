"""What a translated training file learns of a sample, token by token, written out by hand as the other program's documentation says it."""

from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from conf.chat_templates import named_template
from conf.stages import stage_row
from launcher.composition.compose import compose
from launcher.moving.axolotl import AXOLOTL
from launcher.moving.translate import LLAMA_FACTORY
from launcher.verbs.import_checks import overrides_of
from tests.launcher.moving.llamafactory_files import DPO, FULL, KTO, PRETRAIN, REWARD, arguments
from trainers.data.rows.row_kinds import row_of
from trainers.data.rows.tokens import MASKED
from trainers.data.samples.chat import Sample, plain
from trainers.data.samples.conversion import last_answer_alone
from trainers.model.tokenizer import byte_tokenizer

USER, BOT = "<|start_header_id|>user<|end_header_id|>\n\n", "<|start_header_id|>assistant<|end_header_id|>\n\n"
TURNS = [plain("user", "Hi"), plain("assistant", "Hello."), plain("user", "Bye?"), plain("assistant", "Good bye.")]
CONVERSATION: Sample = {"place": "f.json, record 1", "messages": TURNS, "tools": []}
TEXT: Sample = {"place": "f.json, record 1", "messages": [plain("assistant", "Water boils.")], "tools": []}
PAIR: Sample = {"place": "f.json, record 1", "messages": TURNS[:1], "chosen": TURNS[1:2], "rejected": [plain("assistant", "No.")], "tools": []}
ALPACA_OPENER = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
AXOLOTL_FILE = {"base_model": "a/b", "datasets": [{"path": "c/d", "type": "alpaca"}], "learning_rate": 2e-4}
ALPACA: Sample = {"place": "f.json, record 1", "messages": [plain("user", "Add 1 and 1."), plain("assistant", "2")], "tools": []}

# The file, a sample, and its text in parts: what is learned is True.
ANSWERS: dict[str, tuple[dict[str, Any], Sample, list[tuple[str, bool]]]] = {
    "every answer and its end": (
        arguments({}),
        CONVERSATION,
        [
            (f"<s>{USER}Hi<|eot_id|>{BOT}", False),
            ("Hello.<|eot_id|>", True),
            (f"{USER}Bye?<|eot_id|>{BOT}", False),
            ("Good bye.<|eot_id|>", True),
        ],
    ),
    "mask_history: the last answer": (
        arguments({"mask_history": True}),
        CONVERSATION,
        [(f"<s>{USER}Hi<|eot_id|>{BOT}Hello.<|eot_id|>{USER}Bye?<|eot_id|>{BOT}", False), ("Good bye.<|eot_id|>", True)],
    ),
    "train_on_prompt: all of it": (
        arguments({"train_on_prompt": True}),
        CONVERSATION,
        [(f"<s>{USER}Hi<|eot_id|>{BOT}Hello.<|eot_id|>{USER}Bye?<|eot_id|>{BOT}Good bye.<|eot_id|>", True)],
    ),
    "full training, another template": (
        arguments({**FULL, "template": "mistral"}),
        CONVERSATION,
        [("<s>[INST] Hi[/INST]", False), (" Hello.</s>", True), ("[INST] Bye?[/INST]", False), (" Good bye.</s>", True)],
    ),
    "axolotl: the type alpaca": (
        AXOLOTL_FILE,
        ALPACA,
        [(f"<s>{ALPACA_OPENER}### Instruction:\nAdd 1 and 1.\n\n### Response:\n", False), ("2</s>", True), ("\n\n", False)],
    ),
    "axolotl: train_on_inputs": (
        {**AXOLOTL_FILE, "train_on_inputs": True},
        ALPACA,
        [(f"<s>{ALPACA_OPENER}### Instruction:\nAdd 1 and 1.\n\n### Response:\n2</s>\n\n", True)],
    ),
}


def prepared(given: dict[str, Any]) -> tuple[Any, PreTrainedTokenizerBase]:
    """The translated run, and a tokenizer with its template: bytes, and tokens of beginning and end."""
    program = AXOLOTL if "base_model" in given else LLAMA_FACTORY
    run = compose(overrides_of({**program.translate(given).values, "data.sets": ["a"]}))
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    if run.data.template is not None:
        tokenizer.chat_template = named_template(run.data.template)
    return run, tokenizer


def row(given: dict[str, Any], sample: Sample) -> tuple[dict[str, Any], PreTrainedTokenizerBase]:
    run, tokenizer = prepared(given)
    sample = sample if run.data.train_history else last_answer_alone(sample)  # as trainers/data/prepare/tokenising.py does
    return dict(row_of(sample, stage_row(run.stage.name).reads, tokenizer, run.data)), tokenizer


@pytest.mark.parametrize("case", ANSWERS)
def test_the_labels_are_those_written_out_by_hand(case: str) -> None:
    given, sample, parts = ANSWERS[case]
    found, tokenizer = row(given, sample)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text, _ in parts]
    assert tokenizer.decode(found["input_ids"]) == "".join(text for text, _ in parts)
    by_hand = [label for each, (_, learned) in zip(ids, parts, strict=True) for label in (each if learned else [MASKED] * len(each))]
    assert found["labels"][1:] == by_hand[1:]  # nothing predicts the first token


@pytest.mark.parametrize("changes", [DPO, REWARD], ids=["dpo", "rm"])
def test_of_a_pair_both_answers_with_their_ends_are_compared(changes: dict[str, Any]) -> None:
    found, tokenizer = row(arguments(changes), PAIR)
    assert tokenizer.decode(found["prompt_ids"]) == f"<s>{USER}Hi<|eot_id|>{BOT}"
    assert [tokenizer.decode(found[name]) for name in ("chosen_ids", "rejected_ids")] == ["Hello.<|eot_id|>", "No.<|eot_id|>"]


def test_of_a_labelled_answer_the_answer_and_its_end_are_learned() -> None:
    found, tokenizer = row(arguments(KTO), {**CONVERSATION, "messages": TURNS[:2], "label": True})
    assert (tokenizer.decode(found["completion_ids"]), found["label"]) == ("Hello.<|eot_id|>", True)


def test_a_document_is_learned_from_its_first_token_to_its_end() -> None:
    found, tokenizer = row(arguments(PRETRAIN), TEXT)
    assert tokenizer.decode(found["input_ids"]) == "Water boils.</s>"
