"""Every name of LLaMA-Factory in docs/llamafactory.md leads to one key that exists."""

import re
from pathlib import Path

import pytest

from launcher.composition.mistakes import known_keys

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "llamafactory.md"
ROW = re.compile(r"^\| `(\w+)` \| `([\w.]+)` \| ([^|]+) \|$")

NAMES = [
    "stage",
    "model_name_or_path",
    "finetuning_type",
    "quantization_bit",
    "template",
    "flash_attn",
    "dataset",
    "dataset_dir",
    "cutoff_len",
    "learning_rate",
    "num_train_epochs",
    "max_samples",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "lr_scheduler_type",
    "max_grad_norm",
    "logging_steps",
    "save_steps",
    "eval_steps",
    "warmup_ratio",
    "warmup_steps",
    "optim",
    "packing",
    "report_to",
    "output_dir",
    "fp16",
    "bf16",
    "pure_bf16",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "lora_target",
    "val_size",
    "load_best_model_at_end",
    "max_steps",
    "seed",
    "save_total_limit",
    "freeze_trainable_layers",
    "freeze_trainable_modules",
    "use_rslora",
    "use_dora",
    "double_quantization",
    "neftune_noise_alpha",
    "per_device_eval_batch_size",
    "preprocessing_num_workers",
    "deepspeed",
    "train_on_prompt",
    "mask_history",
    "rope_scaling",
    "enable_liger_kernel",
    "disable_gradient_checkpointing",
    "resume_from_checkpoint",
    "pref_loss",
    "pref_beta",
    "pref_ftx",
    "dpo_label_smoothing",
    "simpo_gamma",
    "kto_chosen_weight",
    "kto_rejected_weight",
    "reward_model",
    "ppo_epochs",
    "ppo_buffer_size",
    "ppo_whiten_rewards",
    "max_new_tokens",
]


def rows() -> list[tuple[str, str]]:
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    matches = [ROW.match(line) for line in lines]
    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if match is None]
    return [(match[1], match[2]) for match in matches if match]


@pytest.mark.parametrize("name", NAMES)
def test_each_name_has_one_key_that_exists(name: str) -> None:
    keys = [key for theirs, key in rows() if theirs == name]
    assert len(keys) == 1
    assert keys[0] in known_keys()


def test_every_further_row_is_right_too() -> None:
    assert {key for _, key in rows()} <= set(known_keys())
    assert len({theirs for theirs, _ in rows()}) == len(rows())


def test_the_loss_plot_that_needs_no_key_is_told() -> None:
    assert "`plot_loss`: the loss is always drawn" in DOCUMENT.read_text()
