"""What ends an answer under each template, and how sampling is handed to transformers."""

import pytest

from conf.request import Sampling
from trainers.data.rows.chat_template import named_template
from trainers.model.conversation import answer_end, generation_config, prompt_ids, refuse_missing_template, sampling_keywords, stop_tokens
from trainers.model.tokenizer import byte_tokenizer


def test_chatml_ends_an_answer_with_its_own_token_beside_the_end_token() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"  # as base models have it
    end, turn_end = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    assert answer_end(tokenizer) == turn_end
    assert stop_tokens(tokenizer) == sorted([end, turn_end])
    assert generation_config(tokenizer).eos_token_id == sorted([end, turn_end])


def test_a_template_that_ends_with_plain_text_leaves_the_end_token_alone() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    assert answer_end(tokenizer) is None
    assert stop_tokens(tokenizer) == [tokenizer.eos_token_id]


def test_without_any_end_generation_is_refused() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    with pytest.raises(ValueError, match="would never stop"):
        stop_tokens(tokenizer)


def test_a_model_of_plain_text_has_no_turns_to_ask_in() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match=r"without a chat template .* stage=sft"):
        refuse_missing_template(tokenizer)


def test_the_prompt_ends_where_the_answer_begins() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = named_template("chatml")
    text = tokenizer.decode(prompt_ids(tokenizer, [{"role": "user", "content": "Hi"}]))
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_temperature_zero_is_greedy_and_another_samples_among_all_tokens() -> None:
    tokenizer = byte_tokenizer()
    assert sampling_keywords(Sampling(5, 0.0, 1.0, 0), tokenizer)["do_sample"] is False
    sampled = sampling_keywords(Sampling(5, 0.7, 0.9, 0), tokenizer)
    assert (sampled["do_sample"], sampled["temperature"], sampled["top_p"], sampled["top_k"], sampled["max_new_tokens"]) == (True, 0.7, 0.9, 0, 5)


def test_what_has_no_end_can_still_be_exported() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    tokenizer.chat_template = None
    assert generation_config(tokenizer).eos_token_id is None
