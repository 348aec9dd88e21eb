"""Reward models as transformers and PEFT save them, without what a reward model needs."""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, TrainingArguments

from conf.run_dir import RunDir
from launcher.errors import ConfigError
from launcher.rules.reward_model import refuse_unfit_reward_model
from tests.described import described
from trainers.model.tokenizer import byte_tokenizer
from trainers.reinforcement.reward_model import load_judge

SIZES = {"vocab_size": 264, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}


def save(model: LlamaForSequenceClassification | LlamaForCausalLM, folder: Path) -> Path:
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return save(LlamaForSequenceClassification(LlamaConfig(**SIZES, num_labels=1)), tmp_path / "whole")


@pytest.fixture
def adapter(whole: Path, tmp_path: Path) -> Path:
    """The folder of a run whose model is an adapter on `whole`."""
    run_dir = RunDir(tmp_path / "run")
    base = LlamaForSequenceClassification.from_pretrained(whole)
    config = LoraConfig(task_type=TaskType.SEQ_CLS, r=2, target_modules=["q_proj"], modules_to_save=["score"])
    get_peft_model(base, config).save_pretrained(run_dir.model)
    byte_tokenizer().save_pretrained(run_dir.model)
    run_dir.run_yaml.write_text("")
    return run_dir.path


def check(source: Path) -> None:
    refuse_unfit_reward_model(described("model=demo", "data=demo", "node=cpu", "stage=ppo", f"stage.reward_model={source}"))


def loads(source: Path, tmp_path: Path) -> None:
    """As the ranks do it."""
    arguments = TrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True, report_to="none")
    run = described("model=demo", "data=demo", "node=cpu", "stage=ppo", f"stage.reward_model={source}", "training.precision=fp32")
    judge = load_judge(str(source), run, byte_tokenizer(), arguments)
    assert judge([[1, 2, 3]]).shape == (1,)


def test_what_the_ranks_can_load_is_permitted(whole: Path, adapter: Path, tmp_path: Path) -> None:
    for source in (whole, adapter):
        check(source)
        loads(source, tmp_path)


def test_a_model_without_a_head_is_refused(whole: Path, tmp_path: Path) -> None:
    weights = safetensors.torch.load_file(whole / "model.safetensors")
    del weights["score.weight"]
    safetensors.torch.save_file(weights, whole / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"has no weights for score.weight: its scores would be random. Train it with stage=rm."):
        check(whole)
    with pytest.raises(ValueError, match=r"has no weights for score.weight"):
        loads(whole, tmp_path)


def test_an_adapter_without_a_head_is_refused(adapter: Path) -> None:
    path = RunDir(adapter).model / "adapter_model.safetensors"
    weights = {name: weight for name, weight in safetensors.torch.load_file(path).items() if "score" not in name}
    safetensors.torch.save_file(weights, path)
    with pytest.raises(ConfigError, match=r"has no weights for score.weight"):
        check(adapter)


def test_a_head_of_several_outputs_is_refused(tmp_path: Path) -> None:
    several = save(LlamaForSequenceClassification(LlamaConfig(**SIZES, num_labels=2)), tmp_path / "several")
    with pytest.raises(ConfigError, match=r"has a head of 2 outputs, and a reward is one number"):
        check(several)
    with pytest.raises((ValueError, RuntimeError), match=r"mismatch|size"):
        loads(several, tmp_path)


def test_a_folder_without_weights_or_tokenizer_is_refused(whole: Path, adapter: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (whole / name).unlink()
    with pytest.raises(ConfigError, match=r"holds no tokenizer. Copy the files of its tokenizer into"):
        check(whole)
    (whole / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"holds no weights \(model.safetensors\)"):
        check(whole)
    (RunDir(adapter).model / "adapter_model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"holds no weights \(adapter_model.safetensors\)"):
        check(adapter)


def test_an_adapter_whose_base_is_gone_is_refused_unless_the_base_lies_beside_it(adapter: Path, whole: Path) -> None:
    config = RunDir(adapter).model / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": str(whole)}))
    check(adapter)
    moved = whole.with_name("moved")
    whole.rename(moved)
    with pytest.raises(ConfigError, match=rf"is an adapter on {whole}, which is not there"):
        check(adapter)
    shutil.copytree(moved, RunDir(adapter).base)
    check(adapter)


def test_an_adapter_whose_random_base_was_never_written_is_refused(adapter: Path) -> None:
    path = RunDir(adapter).model / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "None"}))
    with pytest.raises(ConfigError, match=r"random weights that were never written.* export --merge"):
        check(adapter)
