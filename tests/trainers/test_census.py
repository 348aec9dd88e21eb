"""Counts of architectures that the launcher has no table of, against the modules that transformers builds."""

from dataclasses import fields
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from launcher.facts.model import ModelFacts, ModuleKind
from launcher.facts.model.families import FAMILIES
from trainers.census import census

SIZES = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OPT = {"model_type": "opt", "vocab_size": 97, "hidden_size": 48, "word_embed_proj_dim": 48, "ffn_dim": 112, "num_hidden_layers": 3}
SPARSE = {**SIZES, "model_type": "olmoe", "num_experts": 8, "num_experts_per_tok": 2}
UNLISTED: list[dict[str, Any]] = [
    *({**SIZES, "model_type": name} for name in ("olmo2", "starcoder2", "stablelm", "granite", "falcon", "cohere", "glm")),
    {**OPT, "num_attention_heads": 6, "max_position_embeddings": 64, "pad_token_id": 1},
    SPARSE,
]


@pytest.mark.parametrize("architecture", UNLISTED, ids=lambda architecture: architecture["model_type"])
def test_every_parameter_of_an_unlisted_architecture_is_counted_once(architecture):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**architecture))

    found = census(architecture)

    assert architecture["model_type"] not in FAMILIES
    assert sum(module["parameters"] * max(1, len(module["layers"])) for module in found["modules"]) == model.num_parameters()
    assert (found["hidden"], found["layers"], found["heads"], found["vocab"]) == (48, 3, 6, 97)


def test_the_answer_has_the_fields_that_the_launcher_reads():
    found = census({**SIZES, "model_type": "granite"})

    assert set(found) == {field.name for field in fields(ModelFacts)} - {"traits", "architecture"}  # which the launcher adds
    assert all(set(module) == {field.name for field in fields(ModuleKind)} for module in found["modules"])


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "mixtral", "phi3"])
def test_a_listed_architecture_counted_has_the_facts_of_its_table(name):
    """The two ways agree, but for what only a family's table knows: how sliding windows are used, and defaults of absent experts."""
    from launcher.facts.model import model_facts

    architecture = {**SIZES, "model_type": name, "sliding_window": None, "head_dim": 8}
    found, listed = census(architecture), model_facts(architecture, "test")

    for key in ("hidden", "layers", "intermediate", "heads", "kv_heads", "head_dim", "vocab", "tied", "gated_mlp", "experts", "norms_per_layer"):
        assert found[key] == getattr(listed, key), key
    assert {module["name"]: module["parameters"] for module in found["modules"]} == {
        module.name: module.parameters for module in listed.modules if module.parameters or module.kind == "head"
    }


def test_state_spaces_and_unknown_types_are_refused():
    with pytest.raises(ValueError, match="no attention heads"):
        census({"model_type": "mamba"})
    with pytest.raises(ValueError, match="does not know it"):
        census({"model_type": "nope"})


def test_linear_layers_of_a_class_of_their_own_are_not_plain():
    """transformers quantises torch's own alone."""
    falcon = census({"model_type": "falcon", "vocab_size": 97, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 6})
    granite = census({**SIZES, "model_type": "granite"})

    assert {module["plain"] for module in falcon["modules"] if module["kind"] == "linear"} == {False}
    assert {module["plain"] for module in granite["modules"] if module["kind"] == "linear"} == {True}
