"""Each named chat template against the published format written out by hand, and its mask token by token."""

from dataclasses import replace
from pathlib import Path

import pytest
import trl
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from conf.chat_templates import control_tokens, named_template, template_names
from launcher.composition.compose import compose
from trainers.data.rows.rendering import render_prompts
from trainers.data.rows.row_kinds import Row, row_of
from trainers.data.rows.template import Rendered
from trainers.data.rows.tokens import MASKED
from trainers.data.samples.chat import Sample, plain
from trainers.model.tokenizer import byte_tokenizer

QUESTION = [plain("system", "Be kind."), plain("user", "Hi there"), plain("assistant", "Hello, you."), plain("user", "Bye?")]
CONVERSATION: Sample = {"place": "f.json, record 1", "messages": [*QUESTION, plain("assistant", "Good bye.")], "tools": []}
PROMPT: Sample = {"place": "f.json, record 1", "messages": QUESTION, "tools": []}
OPENER = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"

# Texts that the model reads, and in bold (True) those that it learns.
Segments = list[tuple[str, bool]]
EXPECTED: dict[str, Segments] = {
    "alpaca": [
        ("<s>Be kind.\n\n### Instruction:\nHi there\n\n### Response:\n", False),
        ("Hello, you.</s>", True),
        ("\n\n### Instruction:\nBye?\n\n### Response:\n", False),
        ("Good bye.</s>", True),
        ("\n\n", False),
    ],
    "chatml": [
        ("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n", False),
        ("Hello, you.<|im_end|>", True),
        ("\n<|im_start|>user\nBye?<|im_end|>\n<|im_start|>assistant\n", False),
        ("Good bye.<|im_end|>", True),
        ("\n", False),
    ],
    "gemma": [
        ("<s><start_of_turn>user\nBe kind.\n\nHi there<end_of_turn>\n<start_of_turn>model\n", False),
        ("Hello, you.<end_of_turn>", True),
        ("\n<start_of_turn>user\nBye?<end_of_turn>\n<start_of_turn>model\n", False),
        ("Good bye.<end_of_turn>", True),
        ("\n", False),
    ],
    "llama2": [
        ("<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi there [/INST]", False),
        (" Hello, you. </s>", True),
        ("<s>[INST] Bye? [/INST]", False),
        (" Good bye. </s>", True),
    ],
    "llama3": [
        ("<s><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi there<|eot_id|>", False),
        ("<|start_header_id|>assistant<|end_header_id|>\n\n", False),
        ("Hello, you.<|eot_id|>", True),
        ("<|start_header_id|>user<|end_header_id|>\n\nBye?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", False),
        ("Good bye.<|eot_id|>", True),
    ],
    "mistral": [
        ("<s>[INST] Be kind.\n\nHi there[/INST]", False),
        (" Hello, you.</s>", True),
        ("[INST] Bye?[/INST]", False),
        (" Good bye.</s>", True),
    ],
    "phi": [
        ("<|system|>\nBe kind.<|end|>\n<|user|>\nHi there<|end|>\n<|assistant|>\n", False),
        ("Hello, you.<|end|>", True),
        ("\n<|user|>\nBye?<|end|>\n<|assistant|>\n", False),
        ("Good bye.<|end|>", True),
        ("\n<|endoftext|>", False),
    ],
}
EXPECTED["qwen"] = EXPECTED["yi"] = EXPECTED["chatml"]
for chat, user, answer in (("baichuan", 102, 103), ("baichuan2", 106, 107)):
    EXPECTED[chat] = [
        (f"Be kind.<reserved_{user}>Hi there<reserved_{answer}>", False),
        ("Hello, you.", True),
        (f"<reserved_{user}>Bye?<reserved_{answer}>", False),
        ("Good bye.</s>", True),
    ]
EXPECTED["glm4"] = [
    ("[gMASK]<sop><|system|>\nBe kind.<|user|>\nHi there<|assistant|>", False),
    ("\nHello, you.<|user|>", True),
    ("\nBye?<|assistant|>", False),
    ("\nGood bye.<|user|>", True),
]
EXPECTED["deepseek"] = [
    ("<s>Be kind.<｜User｜>Hi there<｜Assistant｜>", False),
    ("Hello, you.</s>", True),
    ("<｜User｜>Bye?<｜Assistant｜>", False),
    ("Good bye.</s>", True),
]
WITHOUT_SYSTEM = {
    "alpaca": f"<s>{OPENER}### Instruction:\nHi\n\n### Response:\n",
    "chatml": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "gemma": "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
    "llama2": "<s>[INST] Hi [/INST]",
    "llama3": "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s>[INST] Hi[/INST]",
    "phi": "<|user|>\nHi<|end|>\n<|assistant|>\n",
    "baichuan": "<reserved_102>Hi<reserved_103>",
    "baichuan2": "<reserved_106>Hi<reserved_107>",
    "glm4": "[gMASK]<sop><|user|>\nHi<|assistant|>",
    "deepseek": "<s><｜User｜>Hi<｜Assistant｜>",
    "yi": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "qwen": "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
}


def tokenizer_for(name: str) -> PreTrainedTokenizerBase:
    """Bytes, with a begin token that the tokenizer itself puts before every text, as Llama's and Gemma's do."""
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])
    tokenizer.chat_template = named_template(name)
    return tokenizer


def tokenise(sample: Sample, tokenizer: PreTrainedTokenizerBase) -> Row:
    return row_of(sample, "answers", tokenizer, replace(compose(["model=demo", "data=demo"]).data, cutoff=4096))


def render_prompt(sample: Sample, tokenizer: PreTrainedTokenizerBase) -> str:
    [rendered] = render_prompts([sample], tokenizer)
    assert isinstance(rendered, Rendered)
    return rendered.text


def test_every_template_is_written_out_here():
    assert sorted(EXPECTED) == sorted(WITHOUT_SYSTEM) == template_names()


@pytest.mark.parametrize("name", template_names())
def test_a_template_writes_the_published_format_and_marks_exactly_the_answers(name: str):
    tokenizer = tokenizer_for(name)
    tokens = tokenise(CONVERSATION, tokenizer)
    expected_ids, expected_labels = [], []
    for text, learned in EXPECTED[name]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        expected_ids += ids
        expected_labels += ids if learned else [MASKED] * len(ids)
    assert tokenizer.decode(tokens["input_ids"]) == "".join(text for text, _ in EXPECTED[name])
    assert tokens["input_ids"] == expected_ids
    assert tokens["labels"] == expected_labels


@pytest.mark.parametrize("name", template_names())
def test_a_prompt_ends_where_the_answer_would_begin(name: str):
    prompt = render_prompt(PROMPT, tokenizer_for(name))
    last = max(number for number, (_, learned) in enumerate(EXPECTED[name]) if learned)
    assert prompt == "".join(text for text, _ in EXPECTED[name][:last])  # llama2, mistral and glm4: the model writes the space before its answer


@pytest.mark.parametrize("name", template_names())
def test_without_a_system_message_none_is_made_up_but_by_those_who_publish_one(name: str):
    sample: Sample = {"place": "f.json, record 1", "messages": [plain("user", "Hi")], "tools": []}
    assert render_prompt(sample, tokenizer_for(name)) == WITHOUT_SYSTEM[name]


def test_a_token_that_carries_the_space_before_the_answer_is_learned():
    """SentencePiece tokenizers write the space into the word that follows it."""
    words = ["<unk>", "<s>", "</s>", "▁[INST]", "▁U", "▁[/INST]", "▁A", "▁"]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = named_template("llama2")
    sample: Sample = {"place": "f.json, record 1", "messages": [plain("user", "U"), plain("assistant", "A")], "tools": []}
    tokens = tokenise(sample, tokenizer)
    assert tokenizer.convert_ids_to_tokens(tokens["input_ids"]) == ["<s>", "▁[INST]", "▁U", "▁[/INST]", "▁A", "▁", "</s>"]
    assert tokens["labels"] == [MASKED, MASKED, MASKED, MASKED, 6, 7, 2]


PUBLISHED = Path(trl.__file__).parent / "chat_templates"  # as their makers publish them


@pytest.mark.parametrize(("name", "published"), [("deepseek", "deepseekv3"), ("deepseek", "deepseek_r1_distill")])
def test_a_conversation_without_thoughts_is_the_text_of_the_published_template(name: str, published: str):
    tokenizer = tokenizer_for(name)
    tokenizer.eos_token = "<｜end▁of▁sentence｜>"  # which their templates write out
    turns = [{"role": message["role"], "content": message["content"]} for message in CONVERSATION["messages"]]
    ours = tokenizer.apply_chat_template(turns, tokenize=False)
    theirs = tokenizer.apply_chat_template(turns, tokenize=False, chat_template=(PUBLISHED / f"{published}.jinja").read_text(encoding="utf-8"))
    assert ours == theirs.rstrip(" ")  # deepseekv3.jinja ends with a space in its file


@pytest.mark.parametrize("field", ["reasoning_content", "thinking", "reasoning"])
def test_deepseek_learns_thoughts_as_the_data_hold_them(field: str):
    tokenizer = tokenizer_for("deepseek")
    early, late = plain("assistant", "<think>\nearly\n</think>\n\nA"), {**plain("assistant", "B"), "further": {field: "late"}}
    sample: Sample = {"place": "f.json, record 1", "messages": [plain("user", "U"), early, plain("user", "V"), late], "tools": []}
    row = tokenise(sample, tokenizer)
    assert row["unread"] == []
    learned = tokenizer.decode([label for label in row["labels"] if label != MASKED])
    assert learned == "<think>\nearly\n</think>\n\nA</s><think>\nlate\n</think>\n\nB</s>"


@pytest.mark.parametrize(("name", "token"), [("glm4", "<|user|>"), ("baichuan2", "<reserved_106>"), ("deepseek", "<｜User｜>"), ("yi", "<|im_end|>")])
def test_a_tokenizer_without_the_tokens_of_a_template_is_refused(name: str, token: str):
    assert token in control_tokens(named_template(name))
