"""Log-probabilities, entropies and values of answers, against the whole logits of the same model."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedModel, set_seed

from trainers.reinforcement.policy import VALUE_HEAD, Answered, add_value_head
from trainers.reinforcement.rollout import forward_inputs

PADDED = torch.tensor([[0, 0, 5, 6, 7, 8], [1, 2, 3, 4, 9, 0]])
MASK = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]])
ANSWERS = PADDED[:, -3:]
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
CONFIGS = {
    "llama": LlamaConfig(vocab_size=50, **SIZES, initializer_range=0.3),
    "gpt2": GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=16, initializer_range=0.3),
}


def built(name: str) -> PreTrainedModel:
    set_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[name]).eval()


def answered(model: nn.Module, temperature: float = 0.5) -> Answered:
    found: Answered = model(**forward_inputs(PADDED, MASK), answers=ANSWERS, temperature=temperature)
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_log_probabilities_and_entropies_are_those_of_the_tempered_logits_before_each_token(name: str) -> None:
    model = built(name)
    whole = model(**forward_inputs(PADDED, MASK))
    logits = whole.logits[:, 2:5] / 0.5  # columns 2 to 4 predict columns 3 to 5, the answers
    logs = torch.log_softmax(logits, dim=-1)
    add_value_head(model, torch.float32)
    found = answered(model)
    torch.testing.assert_close(found.logprobs, logs.gather(-1, ANSWERS.unsqueeze(-1)).squeeze(-1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.entropies, -(logs.exp() * logs).sum(-1), atol=1e-5, rtol=1e-5)
    assert not found.entropies.requires_grad


def test_values_are_read_from_the_last_hidden_states_before_each_token() -> None:
    model = built("llama")
    hidden = model(**forward_inputs(PADDED, MASK), output_hidden_states=True).hidden_states[-1]
    add_value_head(model, torch.float32)
    assert answered(model).values.abs().max() == 0  # before anything is learned
    head = model.get_submodule(VALUE_HEAD)
    nn.init.normal_(head.weight)
    torch.testing.assert_close(answered(model).values, head(hidden[:, 2:5]).squeeze(-1), atol=1e-5, rtol=1e-5)


def test_a_row_says_the_same_with_and_without_padding() -> None:
    model = built("gpt2")  # with absolute positions
    add_value_head(model, torch.float32)
    alone = model(**forward_inputs(PADDED[:1, 2:], MASK[:1, 2:]), answers=ANSWERS[:1], temperature=0.5)
    torch.testing.assert_close(answered(model).logprobs[:1], alone.logprobs, atol=1e-5, rtol=1e-5)


def test_the_loss_of_values_teaches_the_layers_below_too() -> None:
    model = built("llama")
    add_value_head(model, torch.float32)
    nn.init.normal_(model.get_submodule(VALUE_HEAD).weight)
    answered(model).values.sum().backward()
    assert model.model.layers[0].mlp.up_proj.weight.grad.abs().max() > 0


def test_without_answers_the_model_is_what_it_was_and_saved_it_has_no_head(tmp_path: Path) -> None:
    model = built("llama")
    before = model(**forward_inputs(PADDED, MASK)).logits
    add_value_head(model, torch.float32)
    torch.testing.assert_close(model(**forward_inputs(PADDED, MASK)).logits, before)
    model.save_pretrained(tmp_path)
    _, told = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not told["unexpected_keys"]
    assert not told["missing_keys"]


def test_an_adapter_is_switched_off_for_what_the_answers_are_compared_with() -> None:
    plain = built("llama")
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    base = answered_plainly(plain)
    model = get_peft_model(plain, config).eval()
    add_value_head(model, torch.float32)
    adapted = answered(model).logprobs
    with model.disable_adapter():
        torch.testing.assert_close(answered(model).logprobs, base, atol=1e-5, rtol=1e-5)
    assert (adapted - base).abs().max() > 0.01


def answered_plainly(model: PreTrainedModel) -> torch.Tensor:
    logs = torch.log_softmax(model(**forward_inputs(PADDED, MASK)).logits[:, 2:5] / 0.5, dim=-1)
    return logs.gather(-1, ANSWERS.unsqueeze(-1)).squeeze(-1)
