"""What ends an answer under each template, and how sampling is handed to transformers."""

from pathlib import Path

import pytest
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerBase

from conf.chat_templates import named_template
from conf.request import Sampling
from trainers.model.conversation import (
    answer_end,
    end_answers,
    generation_config,
    prompt_ids,
    refuse_missing_template,
    sampling_keywords,
    save_ends,
    stop_tokens,
)
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


SIZES = {"vocab_size": 264, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}


def like_a_base() -> PreTrainedTokenizerBase:
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    return tokenizer


def model_with(**settings: object) -> LlamaForCausalLM:
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    model.generation_config = GenerationConfig(**settings)
    return model


def test_a_model_ends_answers_as_the_template_does_and_samples_as_it_did() -> None:
    tokenizer = like_a_base()
    end, turn_end, other = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>", "<|im_start|>"])
    model = model_with(eos_token_id=[other, 2], do_sample=True, temperature=0.7, repetition_penalty=1.1)
    assert end_answers(model, tokenizer) == []
    found = model.generation_config
    assert found.eos_token_id == sorted([end, turn_end, other])  # 2 is the byte `#` of this tokenizer, and text
    assert (found.pad_token_id, found.temperature, found.repetition_penalty) == (tokenizer.pad_token_id, 0.7, 1.1)
    made = LlamaForCausalLM(LlamaConfig(**SIZES))
    assert made.generation_config._from_model_config is True
    end_answers(made, tokenizer)
    assert made.generation_config._from_model_config is False


def test_settings_that_transformers_would_refuse_to_save_are_left_out_and_told(tmp_path: Path) -> None:
    tokenizer = like_a_base()
    model = model_with(do_sample=False, temperature=0.9, top_p=0.6)
    [told] = end_answers(model, tokenizer)
    assert "generation_config.json contradicts itself" in told
    assert "`temperature`" in told
    save_ends(model, tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == stop_tokens(tokenizer)


def test_a_model_of_scores_ends_nothing(tmp_path: Path) -> None:
    scorer = LlamaForSequenceClassification(LlamaConfig(**SIZES))
    assert end_answers(scorer, like_a_base()) == []
    save_ends(scorer, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_greedy_answers_are_the_likeliest_whatever_the_model_would_penalise() -> None:
    keywords = sampling_keywords(Sampling(5, 0.0, 1.0, 0), byte_tokenizer())
    assert (keywords["repetition_penalty"], keywords["num_beams"], keywords["do_sample"]) == (1.0, 1, False)
