"""Every name of LLaMA-Factory leads to one key that exists: on its page, and in the message to who writes it on the command line."""

import re

import pytest

from conf.llamafactory import NAMES as ROWS
from conf.llamafactory import NEEDLESS
from docs.make_keys import LLAMAFACTORY_PAGE, llamafactory_page
from launcher.composition.compose import compose
from launcher.composition.names import known_keys
from launcher.errors import ConfigError

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


@pytest.mark.parametrize("name", NAMES)
def test_each_name_has_one_key_that_exists(name: str) -> None:
    keys = [row.ours for row in ROWS if row.theirs == name]
    assert len(keys) == 1
    assert keys[0] in known_keys()


def test_every_further_row_is_right_too() -> None:
    assert {row.ours for row in ROWS} <= set(known_keys())
    assert len({row.theirs for row in ROWS}) == len(ROWS)
    assert not {row.theirs for row in ROWS} & {name for row in NEEDLESS for name in row.theirs}


def test_the_page_is_what_the_generator_makes() -> None:
    assert LLAMAFACTORY_PAGE.read_text(encoding="utf-8") == llamafactory_page(), "run: python -m docs.make_keys"


def test_the_loss_plot_that_needs_no_key_is_told() -> None:
    assert "- `plot_loss`: the loss is always drawn" in LLAMAFACTORY_PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("lora_rank=8", "It is LLaMA-Factory's name for regime.rank. Write: regime.rank=8"),  # was: did you mean optim.rank?
        ("learning_rate=1e-4", "Write: optim.lr=1e-4"),  # was: did you mean evaluation.generate?
        ("finetuning_type=lora", "Write: regime=lora"),  # was: nothing
        ("optim.learning_rate=1e-4", "Write: optim.lr=1e-4"),
        ("output_dir=saves", "Write: output=saves"),
        ("plot_loss=true", "needs no key here: the loss is always drawn"),
        ("optim=adamw_torch", "`adamw_torch` is `adamw_foreach`."),
        ("warmup_stepz=3", "Did you mean optim.warmup=3?"),  # nobody's name: the nearest key
    ],
)
def test_a_name_of_theirs_is_answered_with_ours(given: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([given])
    assert said in str(caught.value)


def test_every_name_that_is_not_ours_too_is_translated() -> None:
    ours = {key.rsplit(".", 1)[-1] for key in known_keys()}
    for row in ROWS:
        if row.theirs in ours:
            continue
        with pytest.raises(ConfigError) as caught:
            compose([f"{row.theirs}=x"])
        assert re.search(rf"LLaMA-Factory's name for {row.ours}\. Write:? '?(\w+=\w+ '?)?{row.ours}=", str(caught.value)), row.theirs
