"""Prompt and answers as token ids: where they part, what is cut, what is dropped."""

from dataclasses import replace

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from conf.chat_templates import named_template
from conf.stages import Kind
from launcher.composition.compose import compose
from trainers.data.rows.drops import EMPTY, EQUAL, NO_ROOM, PROMPT_TOO_LONG
from trainers.data.rows.row_kinds import Row, row_of
from trainers.data.samples.chat import Message, Sample, plain
from trainers.model.tokenizer import byte_tokenizer

# ChatML in bytes: <|im_start|> user\n U <|im_end|> \n is 1 + 5 + 1 + 1 + 1 = 9 tokens, <|im_start|> assistant\n 1 + 10.
PROMPT = "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
PROMPT_TOKENS = 20


def pair(chosen: str, rejected: str, *before: Message) -> Sample:
    messages = [*before, plain("user", "U")]
    answers = {"chosen": [plain("assistant", chosen)], "rejected": [plain("assistant", rejected)]}
    return {"place": "f.json, record 1", "messages": messages, "tools": [], **answers}


def answered(answer: str, label: bool) -> Sample:
    return {"place": "f.json, record 1", "messages": [plain("user", "U"), plain("assistant", answer)], "tools": [], "label": label}


def tokenise(kind: Kind, sample: Sample, tokenizer: PreTrainedTokenizerBase, cutoff: int) -> Row:
    return row_of(sample, kind, tokenizer, replace(compose(["model=demo", "data=demo"]).data, cutoff=cutoff))


def ids(text: str, tokenizer: PreTrainedTokenizerBase | None = None) -> list[int]:
    return (tokenizer or byte_tokenizer())(text, add_special_tokens=False)["input_ids"]


def test_a_pair_shares_its_prompt_and_both_answers_end_with_the_end_token():
    tokens = tokenise("pairs", pair("AB", "C"), byte_tokenizer(), cutoff=64)
    assert tokens["prompt_ids"] == ids(PROMPT)
    assert (tokens["chosen_ids"], tokens["rejected_ids"]) == (ids("AB<|im_end|>"), ids("C<|im_end|>"))
    assert (tokens["length"], tokens["tokens"], tokens["learned"], tokens["drop"]) == (20 + 3, 2 * 20 + 3 + 2, 3 + 2, "")


def test_earlier_turns_and_the_system_message_belong_to_the_prompt():
    before = [plain("system", "S"), plain("user", "Q"), plain("assistant", "R")]
    tokens = tokenise("pairs", pair("A", "B", *before), byte_tokenizer(), cutoff=128)
    opening = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nR<|im_end|>\n"
    assert tokens["prompt_ids"] == ids(opening + PROMPT)
    assert tokens["chosen_ids"] == ids("A<|im_end|>")


def test_the_ends_of_answers_are_cut_and_the_prompt_is_kept_whole():
    tokens = tokenise("pairs", pair("ABC", "DE"), byte_tokenizer(), cutoff=PROMPT_TOKENS + 2)
    assert tokens["prompt_ids"] == ids(PROMPT)
    assert (tokens["chosen_ids"], tokens["rejected_ids"]) == (ids("AB"), ids("DE"))
    assert (tokens["length"], tokens["tokens"], tokens["drop"]) == (24, 44, "")


def test_pairs_that_teach_nothing_are_dropped_with_their_reason():
    for sample, cutoff, reason in [
        (pair("AB", "AB"), 64, EQUAL),
        (pair("AB", "AC"), PROMPT_TOKENS + 1, EQUAL),  # they would differ after the cutoff
        (pair("AB", "C"), PROMPT_TOKENS, NO_ROOM),
        (pair("AB", " \n"), 64, EMPTY),
        (pair("", "C"), 64, EMPTY),
    ]:
        assert tokenise("pairs", sample, byte_tokenizer(), cutoff)["drop"] == reason


def test_a_pair_with_an_empty_answer_among_others_is_dropped():
    sample = pair("A", "B")
    sample["chosen"] = [plain("assistant", ""), plain("user", "V"), plain("assistant", "A")]
    assert tokenise("pairs", sample, byte_tokenizer(), cutoff=4096)["drop"] == EMPTY


def test_a_token_that_joins_prompt_and_answer_belongs_to_the_answer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate([*alphabet, "ĊA"])}  # Ċ is a new line
    backend = Tokenizer(models.BPE(vocabulary, [("Ċ", "A")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", chat_template=named_template("chatml"))
    tokens = tokenise("pairs", pair("A", "B"), tokenizer, cutoff=64)
    assert tokens["prompt_ids"] == ids(PROMPT.removesuffix("\n"), tokenizer)
    assert tokenizer.convert_ids_to_tokens(tokens["chosen_ids"]) == ["ĊA", "<|im_end|>"]
    assert tokenizer.convert_ids_to_tokens(tokens["rejected_ids"]) == ["Ċ", "B", "<|im_end|>"]


def test_tool_calls_may_be_compared_with_words():
    sample = pair("", "B")
    sample["chosen"] = [{**plain("assistant", ""), "calls": [{"name": "add", "arguments": {}}]}]
    sample["tools"] = [{"type": "function", "function": {"name": "add"}}]
    tokens = tokenise("pairs", sample, byte_tokenizer(), cutoff=4096)
    assert tokens["drop"] == ""
    assert tokens["chosen_ids"] == ids('<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call><|im_end|>')


def test_a_labelled_answer_keeps_its_label():
    tokens = tokenise("labelled", answered("AB", False), byte_tokenizer(), cutoff=64)
    assert (tokens["prompt_ids"], tokens["completion_ids"], tokens["label"]) == (ids(PROMPT), ids("AB<|im_end|>"), False)
    assert (tokens["length"], tokens["tokens"], tokens["learned"], tokens["drop"]) == (23, 23, 3, "")


def test_labelled_answers_are_cut_and_dropped_as_pairs_are():
    cut = tokenise("labelled", answered("ABC", True), byte_tokenizer(), cutoff=PROMPT_TOKENS + 1)
    assert (cut["completion_ids"], cut["length"], cut["tokens"], cut["drop"]) == (ids("A"), 24, 21, "")
    assert tokenise("labelled", answered("ABC", True), byte_tokenizer(), cutoff=PROMPT_TOKENS)["drop"] == NO_ROOM
    assert tokenise("labelled", answered(" ", True), byte_tokenizer(), cutoff=64)["drop"] == EMPTY


def test_a_prompt_ends_where_the_model_is_to_answer_and_keeps_the_sets_own_answer():
    sample: Sample = {"place": "f.json, record 1", "messages": [plain("user", "U")], "tools": [], "answer": "42"}
    tokens = tokenise("prompts", sample, byte_tokenizer(), cutoff=PROMPT_TOKENS)
    assert (tokens["prompt_ids"], tokens["prompt"], tokens["answer"]) == (ids(PROMPT), PROMPT, "42")
    assert (tokens["length"], tokens["learned"], tokens["drop"]) == (20, 0, "")


def test_prompts_longer_than_the_cutoff_or_empty_are_dropped():
    sample: Sample = {"place": "f.json, record 1", "messages": [plain("user", "U")], "tools": [], "answer": ""}
    assert tokenise("prompts", sample, byte_tokenizer(), cutoff=PROMPT_TOKENS - 1)["drop"] == PROMPT_TOO_LONG
    assert tokenise("prompts", {**sample, "messages": [plain("user", " ")]}, byte_tokenizer(), cutoff=64)["drop"] == EMPTY
