"""Training files of axolotl mean the same here: the values are worked out by hand from its documentation and schemas.

A case is called by the file of its repository (examples/) and has the keys of it that are not null.
"""

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import yaml

from conf.schedules import warmup_steps
from launcher.cli import main
from launcher.composition.compose import compose
from launcher.composition.described import described, in_grammar
from launcher.composition.names import known_keys
from launcher.moving.axolotl import AXOLOTL, is_axolotl
from launcher.moving.draft import WITHOUT_EFFECT

ALPACA = [{"path": "mhenrichsen/alpaca_2k_test", "type": "alpaca"}]
SHARED: dict[str, Any] = {
    **{"base_model": "NousResearch/Llama-3.2-1B", "load_in_8bit": False, "load_in_4bit": False, "strict": False, "datasets": ALPACA},
    **{"dataset_prepared_path": "last_run_prepared", "val_set_size": 0.05, "output_dir": "./outputs/out", "sequence_len": 4096},
    **{"sample_packing": True, "pad_to_sequence_len": True, "gradient_accumulation_steps": 4, "micro_batch_size": 2, "num_epochs": 4},
    **{"optimizer": "adamw_bnb_8bit", "lr_scheduler": "cosine", "learning_rate": 0.0002, "train_on_inputs": False, "group_by_length": False},
    **{"bf16": "auto", "fp16": None, "tf32": False, "gradient_checkpointing": True, "early_stopping_patience": None, "logging_steps": 1},
    **{"xformers_attention": None, "flash_attention": True, "warmup_steps": 10, "evals_per_epoch": 4, "saves_per_epoch": 1, "deepspeed": None},
    **{"weight_decay": 0.0, "fsdp": None, "fsdp_config": None, "wandb_project": None, "special_tokens": {"pad_token": "<|end_of_text|>"}},
}
LINEAR = ["gate_proj", "down_proj", "up_proj", "q_proj", "v_proj", "k_proj", "o_proj"]
LORA = {"adapter": "lora", "lora_r": 32, "lora_alpha": 16, "lora_dropout": 0.05, "lora_target_linear": True}
QLORA = {**LORA, "adapter": "qlora", "load_in_4bit": True}
LEARNS = {"regime.rank": 32, "regime.alpha": 16, "regime.dropout": 0.05, "regime.targets": ["all-linear"]}
KTO_ROWS = [{"path": "argilla/ultrafeedback-binarized-preferences-cleaned-kto", "type": "llama3.ultra", "split": "train"}]
DPO_ROWS = [
    {
        **{"path": "fozziethebeat/alpaca_messages_2k_dpo_test", "type": "chat_template.default", "field_messages": "conversation"},
        **{"field_chosen": "chosen", "field_rejected": "rejected", "message_property_mappings": {"role": "role", "content": "content"}},
        "roles": {"system": ["system"], "user": ["user"], "assistant": ["assistant"]},
    }
]
SPECIAL = {"special_tokens": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}}

# The file: its keys that differ from SHARED, and keys that they have to give.
MET: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "llama-3/lora-1b.yml": (
        {
            **{"datasets": [{"path": "teknium/GPT4-LLM-Cleaned", "type": "alpaca"}], "val_set_size": 0.1, "adapter": "lora", "sequence_len": 2048},
            **{"lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "lora_target_modules": LINEAR, "gradient_accumulation_steps": 2},
            **{"num_epochs": 1, "optimizer": "adamw_8bit", "loss_watchdog_threshold": 5.0, "loss_watchdog_patience": 3},
        },
        {
            **{"stage": "sft", "model": "local", "model.path": "NousResearch/Llama-3.2-1B", "data.sets": ["teknium/GPT4-LLM-Cleaned"]},
            **{"data.template": "alpaca", "data.validation_share": 0.1, "data.cutoff": 2048, "data.on_long": "drop", "data.packing": True},
            **{"regime": "lora", "regime.rank": 16, "regime.alpha": 32, "regime.dropout": 0.05, "regime.targets": LINEAR},
            **{"training.micro_batch": 2, "training.accumulation": 2, "training.epochs": 1, "optim": "adamw_8bit", "optim.lr": 0.0002},
            **{"optim.scheduler": "cosine", "optim.warmup": 10, "optim.weight_decay": 0.0, "training.precision": "bf16_amp"},
        },
    ),
    "llama-3/qlora-1b-kto.yaml": (
        {
            **{**QLORA, "lora_alpha": 64, "rl": "kto", "rl_beta": 0.5, "kto_desirable_weight": 0.2, "datasets": KTO_ROWS, "val_set_size": 0.0},
            **{"sequence_len": 2048, "sample_packing": False, "remove_unused_columns": False, "gradient_accumulation_steps": 1, "num_epochs": 1},
            **{"optimizer": "adamw_8bit", "tf32": True, "warmup_steps": 20, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
        },
        {
            **{"stage": "kto", "stage.beta": 0.5, "stage.desirable_weight": 0.2, "stage.undesirable_weight": 1, "regime": "qlora"},
            "data.template": "llama3",
            **{"regime.bits": 4, "regime.double_quant": True, "regime.alpha": 64, "data.packing": False, "optim.warmup": 20},
        },
    ),
    "llama-3/instruct-dpo-lora-8b.yml": (
        {
            **{**LORA, "base_model": "meta-llama/Meta-Llama-3-8B-Instruct", "load_in_8bit": True, "chat_template": "llama3", "rl": "dpo"},
            **{"datasets": DPO_ROWS, "sample_packing": False},
        },
        {
            **{**LEARNS, "stage": "dpo", "stage.beta": 0.1, "stage.loss": "sigmoid", "regime": "qlora", "regime.bits": 8},
            **{"data.template": "llama3", "data.sets": ["fozziethebeat/alpaca_messages_2k_dpo_test"], "data.packing": False},
        },
    ),
    "llama-2/fft_optimized.yml": (
        {
            **{"base_model": "NousResearch/Llama-2-7b-hf", "model_type": "LlamaForCausalLM", "is_llama_derived_model": True, "num_epochs": 1},
            **{
                "gradient_accumulation_steps": 1,
                "micro_batch_size": 1,
                "flash_attn_rms_norm": True,
                "warmup_steps": 100,
                "weight_decay": 0.1,
                **SPECIAL,
            },
        },
        {
            **{"regime": "full", "training.precision": "bf16", "training.micro_batch": 1, "training.accumulation": 1, "optim.warmup": 100},
            **{"optim": "adamw_8bit", "optim.weight_decay": 0.1, "data.packing": True, "training.gradient_checkpointing": True},
        },
    ),
    "code-llama/7b/qlora.yml": (
        {
            **{**QLORA, "base_model": "codellama/CodeLlama-7b-hf", "optimizer": "paged_adamw_32bit", "attn_implementation": "flash_attention_2"},
            **{"warmup_steps": None, "warmup_ratio": 0.1, **SPECIAL},
        },
        {**LEARNS, "regime": "qlora", "regime.bits": 4, "optim": "paged_adamw", "optim.warmup": 0.1, "training.micro_batch": 2},
    ),
    "openllama-3b/qlora.yml": (
        {
            **{**QLORA, "base_model": "openlm-research/open_llama_3b_v2", "lora_r": 8, "lora_alpha": 32, "sequence_len": 1024, "bf16": False},
            **{"fp16": True, "gradient_accumulation_steps": 1, "optimizer": "paged_adamw_32bit", "warmup_steps": None, "warmup_ratio": 0.1},
        },
        {"training.precision": "fp16_amp", "regime.rank": 8, "regime.alpha": 32, "data.cutoff": 1024, "training.accumulation": 1},
    ),
    "tiny-llama/pretrain.yml, on a set without parts": (
        {
            **{"base_model": "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "datasets": None, "max_steps": 200, "val_set_size": 0.0, "sequence_len": 2048},
            **{"pretraining_dataset": [{"path": "allenai/c4", "type": "pretrain"}], "warmup_steps": None, "warmup_ratio": 0.1},
        },
        {
            **{"stage": "pt", "data.sets": ["allenai/c4"], "data.streaming": True, "training.max_steps": 200, "data.packing": True},
            **{"optim.warmup": 0.1, "data.cutoff": 2048, "data.on_long": None},
        },
    ),
    "gemma2/reward-model.yaml": (
        {
            **{"base_model": "google/gemma-2-2b", "model_type": "AutoModelForSequenceClassification", "num_labels": 1, "reward_model": True},
            **{
                "chat_template": "gemma",
                "sample_packing": False,
                "sequence_len": 2048,
                "val_set_size": 0.0,
                "bf16": True,
                "eval_max_new_tokens": 128,
            },
            **{"datasets": [{"path": "argilla/distilabel-intel-orca-dpo-pairs", "type": "bradley_terry.chat_template"}]},
        },
        {"stage": "rm", "data.template": "gemma", "data.sets": ["argilla/distilabel-intel-orca-dpo-pairs"], "regime": "full", "data.packing": False},
    ),
    "DeepSpeed and wandb": (
        {**LORA, "deepspeed": "deepspeed_configs/zero2.json", "wandb_project": "mine", "wandb_entity": "lab", "wandb_name": "one"},
        {"sharding": "zero2", "tracking": "wandb", "tracking.project": "mine", "tracking.entity": "lab"},
    ),
    "conversations under FSDP2": (
        {
            **{**LORA, "datasets": [{"path": "winglian/pirate-ultrachat-10k", "type": "chat_template"}], "chat_template": "tokenizer_default"},
            **{
                "fsdp_version": 2,
                "fsdp_config": {"offload_params": False, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP"},
                "optimizer": "adamw_torch_fused",
            },
            **{"plugins": ["axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin"], "warmup_steps": None, "save_total_limit": 2},
        },
        {"sharding": "fsdp2", "data.template": None, "optim": "adamw", "optim.warmup": 0.03, "checkpoint.keep": 2, "tracking": None},
    ),
}

REFUSING: dict[str, tuple[Mapping[str, Any], str]] = {
    "dbrx/fft-ds-zero3.yaml": ({"unfrozen_parameters": ["transformer.blocks.[0-7]."]}, "unfrozen_parameters"),
    "llama-3/qlora-fsdp-70b.yaml": ({**QLORA, "fsdp": ["full_shard", "auto_wrap"], "fsdp_config": {"fsdp_offload_params": True}}, "fsdp"),
    "glm45/glm4.5-lora-fsdp2.yaml": ({"optimizer": "adamw_torch_4bit"}, "optimizer"),
    "tiny-llama/pretrain.yml": (
        {"pretraining_dataset": [{"path": "allenai/c4", "name": "en", "type": "pretrain"}], "datasets": None},
        "pretraining_dataset",
    ),
    "two kinds of data": ({"pretraining_dataset": "a/b"}, "datasets"),
    "an adapter that is none here": ({"adapter": "ia3"}, "adapter"),
    "qlora without 4 bits": ({**QLORA, "load_in_4bit": False}, "adapter"),
    "no targets": ({**LORA, "lora_target_linear": None, "lora_target_modules": None}, "lora_target_modules"),
    "whole modules beside adapters": ({**LORA, "lora_modules_to_save": ["embed_tokens"]}, "lora_modules_to_save"),
    "a schedule of its own": ({"lr_scheduler": "rex"}, "lr_scheduler"),
    "a count of held-out samples": ({"val_set_size": 200}, "val_set_size"),
    "columns of other names": ({"datasets": [{"path": "a/b", "type": "alpaca", "field_instruction": "q"}]}, "datasets"),
    "a type of its own": ({"datasets": [{"path": "a/b", "type": "oasst"}]}, "datasets"),
    "grouped by length": ({"group_by_length": True}, "group_by_length"),
    "a plugin that changes the loss": ({"plugins": ["axolotl.integrations.kd.KDPlugin"]}, "plugins"),
    "grpo": ({"rl": "grpo"}, "rl"),
    "a name that nobody knows": ({"lerning_rate": 1}, "lerning_rate"),
    "a set that is no table": ({"datasets": [*ALPACA, "c/d"]}, "datasets"),
    "columns of its own in a comparison": ({"rl": "dpo", "datasets": [{"path": "a/b", "type": {"field_prompt": "q"}}]}, "datasets"),
    "speakers of other names": ({"datasets": [{"path": "a/b", "type": "chat_template", "roles": {"user": ["x"]}}]}, "datasets"),
    "columns of messages of other names": (
        {"datasets": [{"path": "a/b", "type": "chat_template", "message_property_mappings": {"role": "speaker"}}]},
        "datasets",
    ),
    "4 and 8 bits": ({**QLORA, "load_in_8bit": True}, "load_in_8bit"),
    "two dtypes": ({"bf16": True, "fp16": True}, "bf16"),
    "special tokens that are none": ({"special_tokens": 5}, "special_tokens"),
    "sets one after the other": ({"shuffle_merged_datasets": False}, "shuffle_merged_datasets"),
}


def keys_of(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {**SHARED, **changes}


@pytest.mark.parametrize("source", MET)
def test_a_file_gives_the_keys_that_mean_the_same(source: str) -> None:
    changes, keys = MET[source]
    draft = AXOLOTL.translate(keys_of(changes))
    assert draft.refused == []
    assert {key: draft.values.get(key) for key in keys} == dict(keys)
    assert set(keys_of(changes)) == set(draft.outcomes)
    assert set(draft.values) <= set(known_keys())


@pytest.mark.parametrize("source", ["llama-3/lora-1b.yml", "llama-3/qlora-1b-kto.yaml", "llama-2/fft_optimized.yml", "gemma2/reward-model.yaml"])
def test_the_keys_compose_a_run(source: str) -> None:
    draft = AXOLOTL.translate(keys_of(MET[source][0]))
    run = described(compose([f"{key}={in_grammar(value, key)}" for key, value in draft.values.items()]))
    assert {key: run[key] for key in MET[source][1] if key in run}.items() <= MET[source][1].items()


@pytest.mark.parametrize("source", REFUSING)
def test_what_cannot_mean_the_same_is_refused_by_name(source: str) -> None:
    changes, name = REFUSING[source]
    draft = AXOLOTL.translate(keys_of(changes))
    assert [refused for refused, _ in draft.refused] == [name]
    assert set(keys_of(changes)) == set(draft.outcomes)


@pytest.mark.parametrize(("ranks", "samples"), [(1, 1000), (4, 1001)])
def test_batch_steps_and_warmup_are_those_of_the_file(ranks: int, samples: int) -> None:
    """By hand, code-llama/7b/qlora.yml without packing: 2 x 4 x ranks samples a step, and a tenth of the steps of 4 epochs, rounded up."""
    values = AXOLOTL.translate(keys_of(MET["code-llama/7b/qlora.yml"][0])).values
    batch = values["training.micro_batch"] * values["training.accumulation"] * ranks
    assert batch == 8 * ranks
    steps = ceil(samples / batch) * values["training.epochs"]
    assert steps == {1: 500, 4: 128}[ranks]
    run = compose([f"{key}={in_grammar(value, key)}" for key, value in values.items()])
    assert warmup_steps(run.optim, steps) == {1: 50, 4: 13}[ranks]


def test_a_file_is_known_by_the_name_of_its_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert is_axolotl(SHARED)
    assert not is_axolotl({"model_name_or_path": "a/b"})
    theirs, ours = tmp_path / "theirs.yml", tmp_path / "ours.yaml"
    theirs.write_text(yaml.safe_dump(keys_of(MET["llama-3/lora-1b.yml"][0])))
    assert main(["import", str(theirs), "--save", str(ours)]) == 0
    assert "Translated from axolotl" in ours.read_text()
    said = capsys.readouterr().err
    assert "learning_rate" in said
    assert "Not stated, and so the default of axolotl: " in said


def test_what_only_changes_speed_or_output_is_without_effect_and_says_why() -> None:
    draft = AXOLOTL.translate(keys_of(MET["llama-2/fft_optimized.yml"][0]))
    idle = {name: outcome.said for name, outcome in draft.outcomes.items() if outcome.kind == WITHOUT_EFFECT}
    assert "training.attention" in idle["flash_attention"]
    assert "bos_token" in idle["special_tokens"]
    assert "checkpoint.interval" in idle["saves_per_epoch"]
