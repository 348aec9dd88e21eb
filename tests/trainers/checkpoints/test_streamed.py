"""A model that was written file by file is the one that transformers writes at once. Split weights: tests/distributed/test_read_shares.py."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from trainers.checkpoints import streamed
from trainers.checkpoints.streamed import layers_of, write_parts

SMALL = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
FAMILIES = {
    "llama": {**SMALL, "intermediate_size": 64},
    "llama, tied": {**SMALL, "intermediate_size": 64, "tie_word_embeddings": True},
    "gpt2": {"vocab_size": 96, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 32},
    "mixtral": {**SMALL, "intermediate_size": 64, "num_local_experts": 4},
    "qwen3_moe": {**SMALL, "intermediate_size": 64, "moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2},
}


def model_of(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family.partition(",")[0], **FAMILIES[family]))


def tensors_in(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


@pytest.mark.parametrize("limit", [20_000, 10**9])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_files_hold_what_transformers_writes(family: str, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "WEIGHTS_FILE", limit)
    model = model_of(family)
    model.save_pretrained(tmp_path / "at once")
    (tmp_path / "files").mkdir()
    model.config.save_pretrained(tmp_path / "files")
    write_parts(model, tmp_path / "files", leads=True)
    expected, found = tensors_in(tmp_path / "at once"), tensors_in(tmp_path / "files")

    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    assert (len(list((tmp_path / "files").glob("*.safetensors"))) > 1) == (limit == 20_000)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "files")
    assert all(torch.equal(weight, again.get_parameter(name)) for name, weight in model.named_parameters())


def test_a_layer_stays_together_and_what_is_outside_of_layers_stands_alone() -> None:
    names = ("model.embed.weight", "model.layers.0.q.weight", "model.layers.0.mlp.experts.1.up.weight", "model.layers.1.q.weight", "lm_head.weight")
    assert layers_of(names) == [names[:1], names[1:3], names[3:4], names[4:]]


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    write_parts(model_of("llama"), tmp_path, leads=False)
    assert list(tmp_path.iterdir()) == []
