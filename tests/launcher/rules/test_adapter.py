"""An adapter that goes on learning: found, and compared with the run, before any process starts."""

import json
from functools import cache
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from conf.schema import Lora, Run
from launcher.errors import ConfigError
from launcher.facts.model import model_facts
from launcher.rules.adapter import refuse_other_layers, with_adapter_folder
from tests.described import composed

SAVED = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "use_rslora": False, "use_dora": False, "base_model_name_or_path": "org/tiny-llama"}


def saved(folder: Path, **changed: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**SAVED, **changed}), encoding="utf-8")
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


def described(adapter: Path, *overrides: str) -> Run:
    return composed("model=local", "model.path=/models/tiny-llama", "data=demo", "regime=lora", f"regime.adapter={adapter}", *overrides)


def folder_of(run: Run) -> str | None:
    assert isinstance(run.regime, Lora)
    return run.regime.adapter


def test_a_run_folder_stands_for_the_adapter_that_it_trained(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    assert folder_of(with_adapter_folder(described(tmp_path))) == str(folder)
    assert folder_of(with_adapter_folder(described(folder))) == str(folder)


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"regime\.adapter=.* holds no adapter\. Give the folder with adapter_config\.json"):
        with_adapter_folder(described(tmp_path))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"r": 8}, r"regime\.rank=16, but the adapter in .* has 8\. Set regime\.rank=8\."),
        ({"lora_alpha": 8}, r"regime\.alpha=32\.0, but the adapter in .* has 8\. Set regime\.alpha=8\."),
        ({"use_dora": True}, r"regime\.dora=False, but the adapter in .* has True\. Set regime\.dora=true\."),
        ({"peft_type": "IA3"}, r"does not describe a LoRA adapter"),
        ({"base_model_name_or_path": "org/other"}, r"was trained on org/other, and this run's model is /models/tiny-llama\. Set model\.path"),
    ],
)
def test_an_adapter_of_another_shape_or_base_is_refused(changed: dict[str, object], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        with_adapter_folder(described(saved(tmp_path, **changed)))


def test_a_damaged_description_is_refused(tmp_path: Path) -> None:
    (saved(tmp_path) / "adapter_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"adapter_config\.json cannot be read"):
        with_adapter_folder(described(tmp_path))


# The adapter's tensors, of a llama with two layers of width 16.

SIZES = {"vocab_size": 97, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}


@cache
def tensors(targets: str | tuple[str, ...], **sizes: int) -> dict[str, Tensor]:
    """Of an adapter as PEFT names them."""
    model = LlamaForCausalLM(LlamaConfig(**{**SIZES, **sizes}))
    chosen = targets if isinstance(targets, str) else list(targets)
    return get_peft_model_state_dict(get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=16, target_modules=chosen)))


def check(folder: Path, found: dict[str, Tensor], *overrides: str) -> None:
    folder.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, folder / "adapter_model.safetensors")
    run = composed("model=local", "model.path=x", "data=demo", "regime=lora", f"regime.adapter={folder}", *overrides)
    refuse_other_layers(run, model_facts({**SIZES, "model_type": "llama"}, "test"))


def test_an_adapter_of_the_same_layers_is_permitted(tmp_path: Path) -> None:
    check(tmp_path, tensors("all-linear"))
    check(tmp_path, tensors(("q_proj", "v_proj")), "regime.targets=[q_proj,v_proj]")


def test_an_adapter_of_other_layers_is_refused_with_its_targets(tmp_path: Path) -> None:
    told = r"has none for model.layers.0.mlp.down_proj. Set regime.targets=\[q_proj,v_proj\], the layers that it was trained on."
    with pytest.raises(ConfigError, match=told):
        check(tmp_path, tensors(("q_proj", "v_proj")))
    with pytest.raises(ConfigError, match=r"has one for model.layers.0.self_attn.v_proj, which this run would not train"):
        check(tmp_path, tensors(("q_proj", "v_proj")), "regime.targets=[q_proj]")


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is \[32, 16\] instead of \[16, 16\], so it was trained on another model"):
        check(tmp_path, tensors("all-linear", hidden_size=32))
    with pytest.raises(ConfigError, match=r"has none for model.layers.1.mlp.down_proj"):
        check(tmp_path, tensors("all-linear", num_hidden_layers=1))
    with pytest.raises(ConfigError, match=r"has one for layer 2, and x has 2 layers, so it was trained on another model"):
        check(tmp_path, tensors("all-linear", num_hidden_layers=3))
    with pytest.raises(ConfigError, match=r"has adapters for no layer of x"):
        check(tmp_path, {name.replace("layers", "blocks"): tensor for name, tensor in tensors("all-linear").items()})
