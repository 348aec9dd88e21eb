"""Every model preset is the model that transformers builds from it."""

import re
from functools import cache
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from conf.schema import Model
from launcher.composition.compose import choices, compose
from launcher.facts.model import ModelFacts, architecture_source, model_facts, read_architecture

# Totals of the published weights, as their safetensors index or model card states them.
PUBLISHED = {
    "llama2_7b": 6_738_415_616,
    "llama2_13b": 13_015_864_320,
    "llama2_70b": 68_976_648_192,
    "llama3.1_8b": 8_030_261_248,
    "llama3.1_70b": 70_553_706_496,
    "llama3.2_1b": 1_235_814_400,
    "llama3.2_3b": 3_212_749_824,
    "qwen1.5_110b": 111_209_914_368,
    "qwen2.5_0.5b": 494_032_768,
    "qwen2.5_1.5b": 1_543_714_304,
    "qwen2.5_7b": 7_615_616_512,
    "qwen2.5_14b": 14_770_033_664,
    "qwen2.5_32b": 32_763_876_352,
    "qwen2.5_72b": 72_706_203_648,
    "qwen3_8b": 8_190_735_360,
    "qwen3_30b_a3b": 30_532_122_624,
    "mistral_7b": 7_248_023_552,
    "mixtral_8x7b": 46_702_792_704,
    "mixtral_8x22b": 140_620_634_112,
    "llama3.1_8b_instruct": 8_030_261_248,
    "llama3.1_70b_instruct": 70_553_706_496,
    "llama3.2_1b_instruct": 1_235_814_400,
    "llama3.2_3b_instruct": 3_212_749_824,
    "qwen2.5_0.5b_instruct": 494_032_768,
    "qwen2.5_1.5b_instruct": 1_543_714_304,
    "qwen2.5_7b_instruct": 7_615_616_512,
    "qwen2.5_14b_instruct": 14_770_033_664,
    "qwen2.5_32b_instruct": 32_763_876_352,
    "qwen2.5_72b_instruct": 72_706_203_648,
    "qwen3_8b_instruct": 8_190_735_360,
    "qwen3_4b_instruct": 4_022_468_096,
    "qwen3_30b_a3b_instruct": 30_532_122_624,
}


@cache
def preset(name: str) -> Model:
    return compose([f"model={name}", "data=demo"]).model


def preset_facts(name: str) -> ModelFacts:
    model = preset(name)
    return model_facts(read_architecture(model), architecture_source(model))


def meta_model(architecture: dict[str, Any]) -> PreTrainedModel:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**architecture))


def linears(model: PreTrainedModel) -> set[tuple[str, int, int]]:
    found = {
        (re.sub(r"\.\d+\.", ".*.", name), part.in_features, part.out_features)
        for name, part in model.named_modules()
        if isinstance(part, torch.nn.Linear)
    }
    return {row for row in found if row[0] != "lm_head"}


def test_every_preset_but_the_demo_and_local_has_a_published_total() -> None:
    assert set(choices("model")) - {"demo", "local"} == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_preset_has_as_many_parameters_as_were_published(name: str) -> None:
    assert preset_facts(name).parameters == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_preset_names_itself_and_a_hub_repository(name: str) -> None:
    model = preset(name)
    assert model.name == name
    assert re.fullmatch(r"[\w-]+/[\w.-]+", model.path or "")


@pytest.mark.parametrize("name", ["demo", *PUBLISHED])
def test_transformers_builds_what_was_counted(name: str) -> None:
    model = meta_model(read_architecture(preset(name)))
    facts = preset_facts(name)
    assert facts.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert {(kind.name, kind.inputs, kind.outputs) for kind in facts.linears} == linears(model)
