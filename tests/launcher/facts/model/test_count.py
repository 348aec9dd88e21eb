"""Counts against the modules that transformers builds, for small models of every family; the messages of impossible ones."""

import re
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from launcher.errors import ConfigError
from launcher.facts.model import ModelFacts, ModuleKind, model_facts

SIZES = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 112,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MLA = {"kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8, "v_head_dim": 12, "qk_nope_head_dim": 16}
DEEPSEEK = {
    **SIZES,
    **MLA,
    "model_type": "deepseek_v3",
    "num_key_value_heads": 6,
    "moe_intermediate_size": 20,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
}
GPT2 = {"model_type": "gpt2", "vocab_size": 97, "n_embd": 48, "n_layer": 3, "n_head": 6, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2}
WITHOUT_KV = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}

SMALL: dict[str, dict[str, Any]] = {
    "llama": {**SIZES, "model_type": "llama"},
    "llama without num_key_value_heads": {**WITHOUT_KV, "model_type": "llama"},
    "llama with null head_dim and kv heads": {**SIZES, "model_type": "llama", "head_dim": None, "num_key_value_heads": None},
    "llama with biases and a head_dim of its own": {**SIZES, "model_type": "llama", "attention_bias": True, "mlp_bias": True, "head_dim": 10},
    "llama tied": {**SIZES, "model_type": "llama", "tie_word_embeddings": True},
    "mistral": {**SIZES, "model_type": "mistral"},
    "mistral without num_key_value_heads": {**WITHOUT_KV, "model_type": "mistral", "num_attention_heads": 8},
    "qwen2": {**SIZES, "model_type": "qwen2", "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2},
    "qwen3": {**SIZES, "model_type": "qwen3"},
    "qwen3 with biases": {**SIZES, "model_type": "qwen3", "attention_bias": True, "head_dim": 8},
    "phi3": {**SIZES, "model_type": "phi3"},
    "gemma2": {**SIZES, "model_type": "gemma2"},
    "gemma3_text": {**SIZES, "model_type": "gemma3_text"},
    "gemma3_text as published, without heads and vocabulary": {
        "model_type": "gemma3_text",
        "hidden_size": 64,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "sliding_window": 1024,
    },
    "gpt2": GPT2,
    "gpt2 with a narrow MLP and a head of its own": {**GPT2, "n_inner": 50, "tie_word_embeddings": False},
    "gpt_neox": {**WITHOUT_KV, "model_type": "gpt_neox"},
    "gpt_neox without attention bias": {**WITHOUT_KV, "model_type": "gpt_neox", "attention_bias": False, "tie_word_embeddings": True},
    "mixtral": {**SIZES, "model_type": "mixtral"},
    "mixtral with four experts": {**SIZES, "model_type": "mixtral", "num_local_experts": 4, "head_dim": 12},
    "qwen2_moe": {**SIZES, "model_type": "qwen2_moe", "moe_intermediate_size": 24, "shared_expert_intermediate_size": 40, "num_experts": 6},
    "qwen2_moe with dense layers": {
        **SIZES,
        "model_type": "qwen2_moe",
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 40,
        "num_experts": 6,
        "decoder_sparse_step": 2,
        "qkv_bias": False,
    },
    "qwen3_moe": {**SIZES, "model_type": "qwen3_moe", "moe_intermediate_size": 24, "num_experts": 6},
    "qwen3_moe with dense layers": {**SIZES, "model_type": "qwen3_moe", "moe_intermediate_size": 24, "num_experts": 6, "mlp_only_layers": [0, 3]},
    "deepseek_v3": {**DEEPSEEK, "first_k_dense_replace": 1, "n_group": 2, "topk_group": 1},
    "deepseek_v3 with whole queries and no dense layer": {**DEEPSEEK, "first_k_dense_replace": 0, "q_lora_rank": None, "attention_bias": True},
}


@pytest.fixture(params=SMALL)
def built(request: pytest.FixtureRequest) -> tuple[ModelFacts, PreTrainedModel]:
    architecture = SMALL[request.param]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**architecture))
    return model_facts(architecture, "the test"), model


def pattern(name: str) -> str:
    return re.sub(r"\.\d+\.", ".*.", name)


def layer_of(name: str) -> int | None:
    match = re.search(r"\.(\d+)\.", name)
    return int(match[1]) if match else None


def shape_of(part: torch.nn.Module) -> tuple[int, int]:
    return (part.nx, part.nf) if isinstance(part, Conv1D) else (part.in_features, part.out_features)


def test_total_is_that_of_transformers(built: tuple[ModelFacts, PreTrainedModel]) -> None:
    facts, model = built
    assert facts.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_every_layer_has_the_count_of_transformers(built: tuple[ModelFacts, PreTrainedModel]) -> None:
    facts, model = built
    counts = [0] * facts.layers
    for name, parameter in model.named_parameters():
        number = layer_of(name)
        if number is not None:
            counts[number] += parameter.numel()
    assert [facts.layer_parameters(number) for number in range(facts.layers)] == counts


def test_linears_are_those_of_transformers(built: tuple[ModelFacts, PreTrainedModel]) -> None:
    facts, model = built
    linears = [(name, part) for name, part in model.named_modules() if isinstance(part, (torch.nn.Linear, Conv1D)) and name != "lm_head"]
    assert {(kind.name, kind.inputs, kind.outputs) for kind in facts.linears} == {(pattern(name), *shape_of(part)) for name, part in linears}
    assert {(kind.name, number) for kind in facts.linears for number in kind.layers} == {(pattern(name), layer_of(name)) for name, _ in linears}


def test_every_kind_has_the_parameters_of_transformers(built: tuple[ModelFacts, PreTrainedModel]) -> None:
    facts, model = built
    expected: dict[str, set[int]] = {}
    for kind in facts.modules:
        own = [
            parameter.numel()
            for name, parameter in model.named_parameters()
            if owner(name) == kind.name and layer_of(name) in (kind.layers or (None,))
        ]
        expected[kind.name] = {sum(own) // kind.instances}
    assert expected == {kind.name: {kind.parameters} for kind in facts.modules}


def owner(parameter: str) -> str:
    return pattern(parameter).removesuffix(".weight").removesuffix(".bias")


def facts_of(name: str) -> ModelFacts:
    return model_facts(SMALL[name], "the test")


def test_widths_of_llama() -> None:
    facts = facts_of("llama without num_key_value_heads")
    assert (facts.hidden, facts.layers, facts.intermediate, facts.heads, facts.kv_heads, facts.head_dim) == (48, 4, 112, 6, 6, 8)
    assert (facts.vocab, facts.max_positions, facts.tied, facts.gated_mlp, facts.mixture) == (97, 2048, False, True, False)
    assert (facts.norms_per_layer, facts.qk_norm, facts.logit_softcap, facts.sliding_window) == (2, False, False, None)


def test_llama_layer_by_hand() -> None:
    # q and o: 48 x 48 each; k and v: 48 x 16 each; MLP: 3 x 48 x 112; norms: 2 x 48
    assert facts_of("llama").layer_parameters(0) == 2 * 2304 + 2 * 768 + 16128 + 96
    # embedding and head: 97 x 48 each; final norm: 48
    assert facts_of("llama").parameters == 4 * 22368 + 2 * 4656 + 48


def test_a_kind_of_module_by_hand() -> None:
    kinds = {kind.name: kind for kind in facts_of("llama").modules}
    assert kinds["model.layers.*.self_attn.k_proj"] == ModuleKind("model.layers.*.self_attn.k_proj", "linear", 48, 16, 768, (0, 1, 2, 3))
    assert kinds["lm_head"] == ModuleKind("lm_head", "head", 48, 97, 4656, ())


def test_a_tied_head_has_no_parameters() -> None:
    assert {kind.name: kind.parameters for kind in facts_of("llama tied").modules}["lm_head"] == 0


def test_experts_of_a_mixture_are_no_linears() -> None:
    facts = facts_of("mixtral with four experts")
    kinds = {kind.name: kind for kind in facts.modules}
    # per expert 48 -> 2 x 112; four of them
    assert kinds["model.layers.*.mlp.experts.gate_up_proj"] == ModuleKind(
        "model.layers.*.mlp.experts.gate_up_proj", "experts", 48, 224, 43008, (0, 1, 2, 3)
    )
    assert kinds["model.layers.*.mlp.gate"].kind == "router"
    assert (facts.mixture, facts.experts, facts.experts_per_token) == (True, 4, 2)
    assert {kind.name.rsplit(".", 1)[-1] for kind in facts.linears} == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_intermediate_of_a_mixture_is_that_of_one_expert() -> None:
    assert facts_of("qwen3_moe").intermediate == 24


@pytest.mark.parametrize(
    ("name", "window"), [("mistral", 4096), ("qwen2", 16), ("qwen3", None), ("gemma2", 4096), ("phi3", None), ("gpt2", None), ("mixtral", None)]
)
def test_sliding_window_is_the_default_of_the_class_and_only_where_it_is_used(name: str, window: int | None) -> None:
    assert facts_of(name).sliding_window == window


def test_gemma_has_four_norms_and_only_the_second_generation_caps_its_logits() -> None:
    assert (facts_of("gemma2").norms_per_layer, facts_of("gemma2").logit_softcap, facts_of("gemma2").qk_norm) == (4, True, False)
    assert (facts_of("gemma3_text").norms_per_layer, facts_of("gemma3_text").logit_softcap, facts_of("gemma3_text").qk_norm) == (4, False, True)


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "here: model_type is missing"),
    ({"model_type": "llama"}, "here: hidden_size is missing"),
    ({"model_type": "gpt2", "vocab_size": 97}, "here: n_embd is missing"),
    ({**SIZES, "model_type": "llama", "hidden_size": "48"}, "here: hidden_size='48' is not possible"),
    ({**SIZES, "model_type": "llama", "num_hidden_layers": 0}, "here: num_hidden_layers=0 is not possible"),
    (
        {**SIZES, "model_type": "llama", "num_hidden_layers": 10**12},
        "here: num_hidden_layers=1000000000000 is not possible. Give a whole number from 1 to 10000",
    ),
    ({**SIZES, "model_type": "llama", "vocab_size": True}, "here: vocab_size=True is not possible"),
    ({**SIZES, "model_type": "llama", "intermediate_size": 10.5}, "here: intermediate_size=10.5 is not possible"),
    ({**SIZES, "model_type": "llama", "num_key_value_heads": 4}, "here: 6 attention heads cannot share 4 key and value heads"),
    ({**SIZES, "model_type": "llama", "hidden_size": 50}, "here: hidden_size=50 is not a multiple of 6 attention heads"),
    ({**SIZES, "model_type": "llama", "tie_word_embeddings": "yes"}, "here: tie_word_embeddings='yes' is not possible. Give true or false"),
    ({**SMALL["qwen3_moe"], "mlp_only_layers": 3}, "here: mlp_only_layers=3 is not possible. Give a list of layer numbers"),
    ({**DEEPSEEK, "first_k_dense_replace": -1}, "here: first_k_dense_replace=-1 is not possible"),
]


@pytest.mark.parametrize(("architecture", "message"), BAD)
def test_an_impossible_architecture_is_one_message(architecture: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        model_facts(architecture, "here")
