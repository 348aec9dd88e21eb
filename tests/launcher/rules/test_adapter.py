"""An adapter that goes on learning: found, and compared with the run, before any process starts."""

import json
from pathlib import Path

import pytest

from conf.schema import Lora, Run
from launcher.composition.compose import compose
from launcher.errors import ConfigError
from launcher.rules.adapter import with_adapter_folder

SAVED = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "use_rslora": False, "use_dora": False, "base_model_name_or_path": "org/tiny-llama"}


def saved(folder: Path, **changed: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**SAVED, **changed}), encoding="utf-8")
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


def described(adapter: Path, *overrides: str) -> Run:
    return compose(["model=local", "model.path=/models/tiny-llama", "data=demo", "regime=lora", f"regime.adapter={adapter}", *overrides])


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
