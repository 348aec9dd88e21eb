"""Reward models: where they may come from, and what they say."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from reward_models import save_reward_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, TrainingArguments

from conf.run_dir import RunDir, save_run
from conf.schema import Run
from tests.described import composed
from trainers.model.tokenizer import byte_tokenizer
from trainers.reinforcement.reward_model import Judge, load_judge

ROWS = [[5, 6, 7], [8, 9, 10, 11, 12], [13]]


def run_of(*overrides: str) -> Run:
    return composed("model=demo", "data=demo", "stage=ppo", "training.precision=fp32", "training.micro_batch=2", *overrides)


def judge_of(source: Path, folder: Path, *overrides: str) -> Judge:
    arguments = TrainingArguments(output_dir=str(folder / "arguments"), use_cpu=True)
    return load_judge(str(source), run_of(*overrides), byte_tokenizer(), arguments)


def test_the_score_of_a_text_is_the_models_own_whatever_it_is_padded_with(tmp_path: Path) -> None:
    folder = save_reward_model(tmp_path / "rewards")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    alone = [model(input_ids=torch.tensor([row])).logits[0, 0].item() for row in ROWS]
    scores = judge_of(folder, tmp_path)(ROWS)
    assert scores.tolist() == pytest.approx(alone, abs=1e-5)
    assert not scores.requires_grad
    assert scores.std() > 0.01


def test_a_run_folder_stands_for_its_final_model(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run")
    run_dir.path.mkdir()
    save_run(run_of(), run_dir)
    save_reward_model(run_dir.model)
    assert torch.equal(judge_of(run_dir.path, tmp_path)(ROWS), judge_of(run_dir.model, tmp_path)(ROWS))


def test_an_adapter_is_merged_into_the_base_that_lies_beside_it(tmp_path: Path) -> None:
    """A run folder may move: the adapter names the folder where its base was."""
    run_dir = RunDir(tmp_path / "run")
    run_dir.path.mkdir()
    save_run(run_of(), run_dir)
    save_reward_model(run_dir.base)
    base = AutoModelForSequenceClassification.from_pretrained(run_dir.base)
    config = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_proj"], modules_to_save=["score"], init_lora_weights=False)
    model = get_peft_model(base, config).eval()
    with torch.no_grad():
        model.get_submodule("base_model.model.score.modules_to_save.default").weight.fill_(0.5)
    model.save_pretrained(run_dir.model)
    byte_tokenizer().save_pretrained(run_dir.model)
    alone = [model(input_ids=torch.tensor([row])).logits[0, 0].item() for row in ROWS]
    run_dir.path.rename(tmp_path / "moved")
    assert judge_of(tmp_path / "moved", tmp_path)(ROWS).tolist() == pytest.approx(alone, abs=1e-4)


def test_it_computes_in_the_dtype_of_weights_that_do_not_learn(tmp_path: Path) -> None:
    folder = save_reward_model(tmp_path / "rewards")
    whole, rounded = judge_of(folder, tmp_path)(ROWS), judge_of(folder, tmp_path, "training.precision=bf16_amp")(ROWS)
    assert rounded.dtype == torch.float32
    assert 0 < (whole - rounded).abs().max() < 0.1


def test_a_model_of_other_tokens_is_refused(tmp_path: Path) -> None:
    folder = save_reward_model(tmp_path / "rewards")
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<|new|>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match="reads different tokens from those that this model writes"):
        judge_of(folder, tmp_path)


def test_a_folder_without_a_model_is_refused_by_name(tmp_path: Path) -> None:
    byte_tokenizer().save_pretrained(tmp_path / "rewards")
    with pytest.raises(ValueError, match=r"stage.reward_model=.*rewards cannot be loaded"):
        judge_of(tmp_path / "rewards", tmp_path)


def test_a_language_model_has_no_head_for_scores(tmp_path: Path) -> None:
    """Its head would be drawn at random: rewards that mean nothing."""
    folder = save_reward_model(tmp_path / "rewards")
    config = AutoModelForSequenceClassification.from_pretrained(folder).config
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    with pytest.raises(ValueError, match=r"has no weights for score\.weight"):
        judge_of(folder, tmp_path)
