"""Blocks that are inserted change nothing at the start, learn alone, and are part of the model that is saved."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, LlamaConfig, MixtralConfig, PreTrainedConfig, PreTrainedModel

from conf.schema import Run
from tests.described import composed
from trainers.regimes import prepare_model
from trainers.regimes.new_blocks import insert_blocks

PROMPT = torch.arange(3, 35).reshape(2, 16)
WIDTHS = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 4, "vocab_size": 100}
CONFIGS = [
    LlamaConfig(**WIDTHS),
    MixtralConfig(num_local_experts=2, **WIDTHS),
    Gemma3TextConfig(head_dim=8, sliding_window=8, layer_types=["sliding_attention", "full_attention"] * 2, **WIDTHS),
    GPT2Config(n_embd=32, n_layer=4, n_head=4, vocab_size=100, bos_token_id=0, eos_token_id=0),
]


def described(*overrides: str) -> Run:
    return composed("model=demo", "data=demo", "regime=freeze", "regime.layers=0", "training.precision=fp32", *overrides)


def logits(model: PreTrainedModel) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(input_ids=PROMPT, use_cache=False).logits


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_a_family_answers_as_before_also_after_it_was_saved_and_loaded(config: PreTrainedConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(deepcopy(config))
    before = logits(model)
    assert len(insert_blocks(model, 2)) == 2
    assert torch.equal(logits(model), before)
    model.save_pretrained(tmp_path)
    back = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert back.config.num_hidden_layers == 6
    assert torch.equal(logits(back), before)


def test_kinds_of_layers_are_those_of_the_layers_that_were_copied() -> None:
    model = AutoModelForCausalLM.from_config(deepcopy(CONFIGS[2]))
    insert_blocks(model, 4)
    sliding, full = ["sliding_attention"] * 2, ["full_attention"] * 2
    assert model.config.layer_types == [*sliding, *full, *sliding, *full]


def test_generation_with_a_cache_is_that_of_the_model_before() -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(deepcopy(CONFIGS[0]))
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    before = model.generate(PROMPT, **settings)
    insert_blocks(model, 2)
    assert torch.equal(model.generate(PROMPT, **settings), before)


def test_the_new_blocks_learn_and_nothing_else(tmp_path: Path) -> None:
    prepared = prepare_model(described("regime.new_blocks=2"), AutoModelForCausalLM, tmp_path)
    learning = {".".join(name.split(".")[:3]) for name, weight in prepared.model.named_parameters() if weight.requires_grad}
    assert learning == {"model.layers.1", "model.layers.3"}


def test_blocks_that_do_not_spread_evenly_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"regime\.new_blocks=3 cannot be spread evenly over 2 layers"):
        prepare_model(described("regime.new_blocks=3"), AutoModelForCausalLM, tmp_path)
