"""A config.json beside weights of another model: headers as save_pretrained writes them, lies written into the config."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from launcher.errors import ConfigError
from launcher.facts.model import model_facts
from launcher.facts.model.weight_files import refuse_other_weights

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
    "head_dim": 8,
}
GPT2 = {"model_type": "gpt2", "vocab_size": 97, "n_embd": 48, "n_layer": 2, "n_head": 6, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    save({**SIZES, "model_type": "llama"}, folder)
    return folder


def save(architecture: dict[str, Any], folder: Path, **keywords: Any) -> None:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**architecture)).save_pretrained(folder, **keywords)


def check(folder: Path, **lies: Any) -> None:
    architecture = {**json.loads((folder / "config.json").read_text()), **lies}
    refuse_other_weights(folder, architecture, model_facts(architecture, "test"))


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma2", "phi3", "mixtral", "gpt_neox"])
def test_weights_agree_with_the_config_they_were_saved_with(tmp_path, name):
    save({**SIZES, "model_type": name}, tmp_path)
    check(tmp_path)


def test_gpt2s_transposed_layers_and_shards_agree_too(tmp_path):
    save(GPT2, tmp_path, max_shard_size="50KB")

    assert (tmp_path / "model.safetensors.index.json").exists()
    check(tmp_path)


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ({"intermediate_size": 96}, "model.layers.0.mlp.down_proj.weight is [48, 112] in model.safetensors, but [48, 96] by config.json"),
        ({"vocab_size": 100}, "lm_head.weight is [97, 48] in model.safetensors, but [100, 48] by config.json"),
        ({"num_key_value_heads": 3}, "model.layers.0.self_attn.k_proj.weight is [16, 48] in model.safetensors, but [24, 48] by config.json"),
        ({"num_hidden_layers": 2}, "model.safetensors holds model.layers.2.input_layernorm.weight, but num_hidden_layers is 2"),
        ({"num_hidden_layers": 5}, "no file holds model.layers.3.self_attn.q_proj, but config.json describes 5 layers"),
    ],
)
def test_a_config_that_lies_is_refused_by_the_tensor_and_both_shapes(saved, lie, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        check(saved, **lie)


def test_packed_weights_are_left_to_the_loader(saved):
    check(saved, intermediate_size=96, quantization_config={"load_in_4bit": True})


def test_a_folder_without_safetensors_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**SIZES, "model_type": "llama"}))
    with pytest.raises(ConfigError, match=r"holds no weights \(model.safetensors, or model.safetensors.index.json and its files\)"):
        check(tmp_path)


def test_broken_and_missing_files_are_one_message(saved, tmp_path):
    (tmp_path / "config.json").write_text((saved / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes()[:200])
    with pytest.raises(ConfigError, match=r"model.safetensors is broken: its header is not JSON"):
        check(tmp_path)

    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": "model-2.safetensors"}}))
    with pytest.raises(ConfigError, match=r"names model-2.safetensors, which is not there"):
        check(tmp_path)
