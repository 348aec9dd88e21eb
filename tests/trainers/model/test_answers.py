"""Prompts in, answers out."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, set_seed

from trainers.model.answers import greedy, padded, sampling, until_end, write_answers
from trainers.model.tokenizer import byte_tokenizer

TOKENIZER = byte_tokenizer()
END = TOKENIZER.eos_token_id
PROMPTS = [[1, 2, 3, 4, 5], [6, 7]]


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    set_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=264, initializer_range=0.1, **sizes)).eval()
    model.generation_config.top_k = 1  # as a model's own settings may cut what is sampled
    return model


def test_rows_are_padded_on_the_side_that_is_asked_for() -> None:
    ids, mask = padded([[1, 2], [3]], 9, "left")
    assert (ids.tolist(), mask.tolist()) == ([[1, 2], [9, 3]], [[1, 1], [0, 1]])
    ids, mask = padded([[1, 2], [3]], 9, "right")
    assert (ids.tolist(), mask.tolist()) == ([[1, 2], [3, 9]], [[1, 1], [1, 0]])


def test_an_answer_ends_with_its_end_token() -> None:
    assert until_end([4, END, 7, END], [END]) == [4, END]
    assert until_end([4, 8, END], [8, END]) == [4, 8]
    assert until_end([4, 5], [END]) == [4, 5]


def test_padding_changes_no_answer(model: PreTrainedModel) -> None:
    together = write_answers(model, PROMPTS, greedy(6, TOKENIZER))
    alone = [write_answers(model, [prompt], greedy(6, TOKENIZER))[0] for prompt in PROMPTS]
    assert together == alone
    assert [len(answer) for answer in together] == [6, 6]


def test_sampled_answers_are_of_the_whole_distribution_whatever_the_model_prefers(model: PreTrainedModel) -> None:
    set_seed(0)
    first = {answer[0] for answer in write_answers(model, [PROMPTS[0]] * 64, sampling(1, 1.0, TOKENIZER))}
    assert len(first) > 16


def test_a_low_temperature_samples_the_likeliest(model: PreTrainedModel) -> None:
    set_seed(0)
    sampled = write_answers(model, PROMPTS, sampling(4, 1e-4, TOKENIZER))
    assert sampled == write_answers(model, PROMPTS, greedy(4, TOKENIZER))
    assert torch.is_grad_enabled()


def test_both_the_tokenizers_end_and_the_templates_end_an_answer() -> None:
    """As with Gemma, whose tokenizer ends texts with one token and whose template ends answers with another."""
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    assert sampling(4, 1.0, tokenizer).eos_token_id == sorted([tokenizer.eos_token_id, END])
    assert tokenizer.eos_token_id != END
