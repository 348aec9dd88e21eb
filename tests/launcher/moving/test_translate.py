"""Training files of LLaMA-Factory mean the same here: batch, schedule, template, cutoff, data, adapter, worked out by hand from its documentation.

A case is called by the file of its repository (examples/, main branch and forks of it) whose arguments it has, in short. About half of those files
were read; the others have the arguments of a sibling and what their name says. The cases without a file are from the help of its arguments.
"""

import math
from collections.abc import Mapping
from typing import Any

import pytest

from conf.schedules import warmup_steps
from launcher.composition.compose import compose
from launcher.composition.described import described, in_grammar
from launcher.composition.names import known_keys
from launcher.moving.draft import REFUSED
from launcher.moving.translate import translate

# What most of its example files share, with the meaning of each.
SHARED: dict[str, Any] = {
    **{"model_name_or_path": "meta-llama/Llama-3.1-8B-Instruct", "trust_remote_code": True, "stage": "sft", "do_train": True},
    **{"finetuning_type": "lora", "lora_target": "all", "dataset": "identity,alpaca_en_demo", "template": "llama3", "cutoff_len": 2048},
    **{"max_samples": 1000, "overwrite_cache": True, "preprocessing_num_workers": 16, "output_dir": "saves/run", "logging_steps": 10},
    **{"save_steps": 500, "plot_loss": True, "overwrite_output_dir": True, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
    **{"learning_rate": 1.0e-4, "num_train_epochs": 3.0, "lr_scheduler_type": "cosine", "warmup_ratio": 0.1, "bf16": True},
    "ddp_timeout": 180000000,
}
HELD_OUT = {"val_size": 0.1, "per_device_eval_batch_size": 1, "eval_strategy": "steps", "eval_steps": 500}
LORA = {"regime": "lora", "regime.rank": 8, "regime.alpha": 16, "regime.dropout": 0.0, "regime.targets": ["all-linear"]}
BATCH = {"training.micro_batch": 1, "training.accumulation": 8, "training.epochs": 3, "optim.scheduler": "cosine", "optim.warmup": 0.1}
SWEEP = {
    **{"model_name_or_path": "Qwen/Qwen3-8B", "attn": "fa2", "enable_liger_kernel": True, "torch_compile": False, "finetuning_type": "full"},
    **{"deepspeed": "examples/deepspeed/ds_z3_config.json", "include_mfu": True, "dataset": "traces", "template": "qwen", "mask_history": True},
    **{"cutoff_len": 32768, "max_samples": None, "save_steps": 100, "save_only_model": True, "report_to": "wandb", "warmup_ratio": 0.05},
    **{"gradient_accumulation_steps": 2, "learning_rate": 2.0e-6, "weight_decay": 0.01, "max_grad_norm": 1.0e-4, "pure_bf16": False},
    **{"gradient_checkpointing": True, "push_to_hub": False, "lora_target": None},
}
FULL = {"regime": "full", "sharding": "zero3", "data.train_history": False, "data.cutoff": 32768, "optim.max_grad_norm": 1e-4, "tracking": "wandb"}

# Source: the arguments that differ from SHARED, and keys that they have to give.
MET: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "train_lora/llama3_lora_sft.yaml": ({"lora_rank": 8}, {**LORA, **BATCH, "optim.lr": 1e-4, "data.template": "llama3", "data.cutoff": 2048}),
    "train_lora/qwen3_lora_sft.yaml": (
        {"model_name_or_path": "Qwen/Qwen3-4B-Instruct-2507", "template": "qwen3_nothink", "dataloader_num_workers": 4, "report_to": "none"},
        {**LORA, **BATCH, "model": "qwen3_4b_instruct", "data.template": None, "training.dataloader_workers": 4},
    ),
    "train_lora/llama3_lora_sft_ds3.yaml": (
        {"deepspeed": "examples/deepspeed/ds_z3_config.json", "gradient_accumulation_steps": 2},
        {**LORA, "sharding": "zero3", "training.accumulation": 2},
    ),
    "train_lora/llama3_lora_sft_ds0.yaml": ({"deepspeed": "examples/deepspeed/ds_z0_config.json"}, {"sharding": "ddp"}),
    "train_lora/deepseekv3_lora_sft_ds3.yaml": (
        {"model_name_or_path": "x/DeepSeek-V3-bf16", "deepspeed": "examples/deepspeed/ds_z3_offload_config.json", "template": "deepseek3"},
        {"model": "local", "model.path": "x/DeepSeek-V3-bf16", "sharding": "zero3_offload", "data.template": None},
    ),
    "train_lora/llama3_lora_dpo.yaml": (
        {"stage": "dpo", "pref_beta": 0.1, "pref_loss": "sigmoid", "dataset": "dpo_en_demo", "learning_rate": 5.0e-6},
        {**LORA, **BATCH, "stage": "dpo", "stage.loss": "sigmoid", "stage.beta": 0.1, "data.sets": ["dpo_en_demo"], "optim.lr": 5e-6},
    ),
    "two trackers": (
        {"report_to": ["wandb", "comet_ml"], "use_swanlab": True, "swanlab_project": "mine", "swanlab_mode": "cloud"},
        {"tracking": "wandb", "tracking.also": ["comet", "swanlab"], "tracking.project": "mine"},
    ),
    "dpo with orpo": ({"stage": "dpo", "pref_beta": 0.1, "pref_loss": "orpo"}, {"stage": "orpo", "stage.beta": 0.1}),
    "dpo with simpo": (
        {"stage": "dpo", "pref_beta": 2.0, "pref_loss": "simpo", "simpo_gamma": 1.0},
        {"stage": "simpo", "stage.beta": 2, "stage.margin": 1},
    ),
    "dpo with simpo and its defaults": (
        {"stage": "dpo", "pref_loss": "simpo"},
        {"stage": "simpo", "stage.beta": 0.1, "stage.margin": 0.5, "stage.sft_weight": 0.0},
    ),
    "dpo with hinge and ftx": (
        {"stage": "dpo", "pref_loss": "hinge", "pref_ftx": 0.5},
        {"stage": "dpo", "stage.loss": "hinge", "stage.sft_weight": 0.5},
    ),
    "train_lora/qwen3_lora_kto.yaml": (
        {"stage": "kto", "pref_beta": 0.1, "dataset": "kto_en_demo", "learning_rate": 5.0e-6, "kto_rejected_weight": 1.5},
        {**LORA, "stage": "kto", "stage.beta": 0.1, "stage.desirable_weight": 1, "stage.undesirable_weight": 1.5, "optim.lr": 5e-6},
    ),
    "train_lora/qwen3_lora_pretrain.yaml": (
        {"stage": "pt", "dataset": "c4_demo", "template": None},
        {**LORA, "stage": "pt", "data.packing": True, "data.sets": ["c4_demo"]},
    ),
    "train_lora/llama3_lora_reward.yaml": ({"stage": "rm", "dataset": "dpo_en_demo"}, {**LORA, "stage": "rm", "data.sets": ["dpo_en_demo"]}),
    "train_lora/llama3_lora_ppo.yaml": (
        {"stage": "ppo", "reward_model": "saves/reward", "learning_rate": 1.0e-5, "max_new_tokens": 512, "top_k": 0, "top_p": 0.9},
        {
            **{**LORA, "stage": "ppo", "stage.reward_model": "saves/reward", "stage.response_length": 512, "stage.epochs": 4},
            **{"stage.mini_batches": 1, "stage.temperature": 0.95, "optim.lr": 1e-5},
        },
    ),
    "train_lora/qwen3.5_lora_roleplay.yaml": (
        {"lora_rank": 16, "lora_alpha": 32, "lora_dropout": 0.1, "per_device_train_batch_size": 2, "learning_rate": 2.0e-4, **HELD_OUT},
        {
            **{"regime.rank": 16, "regime.alpha": 32, "regime.dropout": 0.1, "training.micro_batch": 2, "optim.lr": 2e-4},
            **{"data.validation_share": 0.1, "evaluation.interval": 500, "evaluation.micro_batch": 1},
        },
    ),
    "train_lora/llama3_lora_compext.yaml": (
        {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 32, **HELD_OUT},
        {"training.micro_batch": 16, "training.accumulation": 32, "regime.alpha": 16},
    ),
    "train_qlora/qwen3_lora_sft_otfq.yaml": (
        {"quantization_bit": 4, "quantization_method": "bnb", "lora_rank": 8},
        {**LORA, "regime": "qlora", "regime.bits": 4, "regime.double_quant": True},
    ),
    "qlora of 8 bits": ({"quantization_bit": 8}, {"regime": "qlora", "regime.bits": 8}),
    "qlora of 2 bits": ({"quantization_bit": 2, "quantization_method": "hqq"}, {"regime": "qlora", "regime.bits": 2}),
    "extras/fsdp_qlora/llama3_lora_sft.yaml": (
        {"quantization_bit": 4, "lora_target": "q_proj,v_proj", "cutoff_len": 1024, "bf16": None, "fp16": True},
        {"regime": "qlora", "regime.targets": ["q_proj", "v_proj"], "data.cutoff": 1024, "training.precision": "fp16_amp"},
    ),
    "train_qlora/llama3.2_lora_sft.yaml": ({"model_name_or_path": "meta-llama/Llama-3.2-1B-Instruct", **HELD_OUT}, {"model": "llama3.2_1b_instruct"}),
    "extras/loraplus/llama3_lora_sft.yaml": ({"loraplus_lr_ratio": 16.0}, {**LORA, "regime.lora_plus_ratio": 16}),
    "extras/pissa/llama3_lora_sft.yaml": (
        {"pissa_init": True, "pissa_iter": 16, "pissa_convert": True},
        {**LORA, "regime.init": "pissa_niter_16"},
    ),
    "pissa without rounds": ({"pissa_init": True, "pissa_iter": -1}, {"regime.init": "pissa"}),
    "rslora and dora": ({"use_rslora": True, "use_dora": True}, {"regime.rslora": True, "regime.dora": True}),
    "extras/galore/llama3_full_sft.yaml, without layerwise": (
        {
            **{"finetuning_type": "full", "lora_target": None, "use_galore": True, "galore_target": "mlp,self_attn", "galore_rank": 128},
            **{"galore_scale": 2.0, "gradient_accumulation_steps": 1, "warmup_ratio": None, "warmup_steps": 0.1, "bf16": None, "pure_bf16": True},
        },
        {
            **{"optim": "galore", "optim.rank": 128, "optim.scale": 2, "optim.update_interval": 200, "optim.warmup": 0.1},
            **{"training.precision": "bf16", "training.accumulation": 1, "regime": "full"},
        },
    ),
    "extras/apollo/llama3_full_sft.yaml, without layerwise": (
        {"finetuning_type": "full", "use_apollo": True, "apollo_target": "all", "apollo_rank": 128, "apollo_scale": 32.0},
        {"optim": "apollo", "optim.rank": 128, "optim.scale": 32, "optim.scale_by": "channel"},
    ),
    "extras/badam/llama3_full_sft.yaml": (
        {"finetuning_type": "full", "use_badam": True, "badam_mode": "layer", "badam_switch_interval": 50, "badam_verbose": 2, "bf16": None},
        {"optim": "badam", "optim.order": "ascending", "optim.switch_interval": 50, "training.precision": "bf16_amp"},
    ),
    "train_full/hparam_sweep/qwen3_full_sft_opt_muon.yaml": ({**SWEEP, "use_muon": True}, {**FULL, "optim": "muon", "optim.lr": 2e-6}),
    "train_full/hparam_sweep/qwen3_full_sft_opt_adafactor.yaml": ({**SWEEP, "optim": "adafactor"}, {**FULL, "optim": "adafactor"}),
    "train_full/hparam_sweep/qwen3_full_sft_e2_adamw_bnb_8bit.yaml": ({**SWEEP, "optim": "adamw_bnb_8bit"}, {**FULL, "optim": "adamw_8bit"}),
    "train_full/hparam_sweep/qwen3_full_sft_e3_paged_adamw_8bit.yaml": ({**SWEEP, "optim": "paged_adamw_8bit"}, {"optim": "paged_adamw_8bit"}),
    "train_full/hparam_sweep/qwen3_full_sft_e1_adamw_torch_betas095.yaml": (
        {**SWEEP, "optim": "adamw_torch", "adam_beta1": 0.9, "adam_beta2": 0.95, "adam_epsilon": 1.0e-8},
        {**FULL, "optim": "adamw_foreach", "optim.beta2": 0.95, "optim.weight_decay": 0.01},
    ),
    "train_full/hparam_sweep/qwen3_full_sft_e7_warmup_0p10.yaml": ({**SWEEP, "warmup_ratio": 0.1}, {"optim.warmup": 0.1}),
    "train_full/hparam_sweep/qwen3_full_sft_sched_constant_warmup.yaml": (
        {**SWEEP, "lr_scheduler_type": "constant_with_warmup"},
        {"optim.scheduler": "constant_with_warmup", "optim.warmup": 0.05},
    ),
    "train_full/hparam_sweep/qwen3_full_sft_sched_linear.yaml": ({**SWEEP, "lr_scheduler_type": "linear"}, {"optim.scheduler": "linear"}),
    "train_full/hparam_sweep/qwen3_full_sft_e6_grad_ckpt_off.yaml": (
        {**SWEEP, "disable_gradient_checkpointing": True},
        {"training.gradient_checkpointing": False},
    ),
    "train_full/qwen2_5_full_sft_fsdp.yaml": (
        {"finetuning_type": "full", "rope_scaling": "linear", "fsdp": "full_shard auto_wrap", "pure_bf16": True, "save_only_model": False},
        {"sharding": "fsdp2", "model.rope_scaling": "linear", "training.precision": "bf16"},
    ),
    "fsdp of gradients and states alone": (
        {"finetuning_type": "full", "fsdp": "shard_grad_op auto_wrap"},
        {"sharding": "fsdp2", "sharding.reshard_after_forward": False},
    ),
    "train_full/qwen3_4b_full_sft.yaml": (
        {"finetuning_type": "full", "flash_attn": "auto", "run_name": "four-b", "per_device_train_batch_size": 4, "save_steps": 5000},
        {"name": "four-b", "training.micro_batch": 4, "checkpoint.interval": 5000},
    ),
    "freeze, from the documentation": (
        {"finetuning_type": "freeze", "freeze_trainable_layers": -4, "freeze_extra_modules": "embed_tokens,norm"},
        {"regime": "freeze", "regime.layers": -4, "regime.modules": ["embed_tokens", "norm"]},
    ),
    "freeze with its defaults": ({"finetuning_type": "freeze"}, {"regime": "freeze", "regime.layers": 2}),
    "an adapter that is trained on": ({"adapter_name_or_path": "saves/first"}, {"regime.adapter": "saves/first"}),
    "packing without crossing": ({"neat_packing": True}, {"data.packing": True}),
    "mixing": (
        {"mix_strategy": "interleave_over", "interleave_probs": "0.3,0.7"},
        {"data.mixing": "interleave_over", "data.probabilities": [0.3, 0.7]},
    ),
    "streaming": (
        {"streaming": True, "max_samples": None, "max_steps": 1000, "buffer_size": 512},
        {"data.streaming": True, "data.buffer": 512, "training.max_steps": 1000},
    ),
    "prompts are learned": ({"train_on_prompt": True}, {"data.mask_prompt": False}),
    "sets of evaluation and the best model": (
        {"eval_dataset": "a,b", "eval_strategy": "steps", "eval_steps": 50, "load_best_model_at_end": True, "metric_for_best_model": "loss"},
        {"data.evaluation_sets": ["a", "b"], "evaluation.interval": 50, "evaluation.best_at_end": True, "evaluation.metric": "eval_loss"},
    ),
    "held-out data that is not evaluated": ({"val_size": 0.1}, {"evaluation.interval": 0, "data.validation_share": 0.1}),
    "everything left out": (
        dict.fromkeys(set(SHARED) - {"model_name_or_path", "dataset"}),
        {
            **{"stage": "sft", "regime": "lora", "regime.rank": 8, "regime.alpha": 16, "optim.lr": 5e-5, "optim.scheduler": "linear"},
            **{"optim.warmup": 0, "training.micro_batch": 8, "training.accumulation": 1, "training.epochs": 3, "data.cutoff": 2048},
        },
    ),
}

REFUSING: dict[str, tuple[Mapping[str, Any], str]] = {
    "extras/oft/llama3_oft_sft.yaml": ({"finetuning_type": "oft"}, "finetuning_type"),
    "extras/mod/llama3_full_sft.yaml": ({"mixture_of_depths": "convert"}, "mixture_of_depths"),
    "extras/dft/qwen2_full_sft.yaml": ({"use_dft_loss": True}, "use_dft_loss"),
    "extras/adam_mini/llama3_full_sft.yaml": ({"use_adam_mini": True, "finetuning_type": "full"}, "use_adam_mini"),
    "extras/llama_pro/llama3_freeze_sft.yaml": ({"use_llama_pro": True, "finetuning_type": "freeze"}, "use_llama_pro"),
    "extras/galore/llama3_full_sft.yaml": ({"use_galore": True, "galore_layerwise": True, "finetuning_type": "full"}, "galore_layerwise"),
    "extras/add_tokens/qwen3_add_tokens_description.yaml": ({"new_special_tokens_config": "tokens.yaml"}, "new_special_tokens_config"),
    "train_full/llama3_full_ppo.yaml": ({"stage": "ppo", "reward_model": "a.b.C", "reward_model_type": "env"}, "reward_model_type"),
    "train_full/hparam_sweep/qwen3_full_sft_e8_label_smoothing_0p05.yaml": ({**SWEEP, "label_smoothing_factor": 0.05}, "label_smoothing_factor"),
    "train_full/hparam_sweep/qwen3_full_sft_e5_group_by_length.yaml": ({**SWEEP, "group_by_length": True}, "group_by_length"),
    "train_full/qwen2_5_full_sft_fp8.yaml": ({"fp8": True}, "fp8"),
    "bits that nobody makes": ({"quantization_bit": 3, "quantization_method": "hqq"}, "quantization_bit"),
    "4 bits by hqq": ({"quantization_bit": 4, "quantization_method": "hqq"}, "quantization_bit"),
    "fp4": ({"quantization_bit": 4, "quantization_type": "fp4"}, "quantization_type"),
    "a count of held-out samples": ({"val_size": 100}, "val_size"),
    "evaluation by epochs": ({"val_size": 0.1, "eval_strategy": "epoch"}, "eval_strategy"),
    "checkpoints by epochs": ({"save_strategy": "epoch"}, "save_strategy"),
    "two adapters": ({"adapter_name_or_path": "a,b"}, "adapter_name_or_path"),
    "a whole module beside adapters": ({"additional_target": "embed_tokens"}, "additional_target"),
    "settings of a schedule": ({"lr_scheduler_kwargs": {"num_cycles": 3}}, "lr_scheduler_kwargs"),
    "a tracker that is not here": ({"report_to": ["wandb", "neptune"]}, "report_to"),
    "a mode of a tracker": ({"use_swanlab": True, "swanlab_mode": "local"}, "swanlab_mode"),
    "a name that nobody knows": ({"lerning_rate": 1}, "lerning_rate"),
    "no number": ({"learning_rate": "fast"}, "learning_rate"),
    "a checkpoint of theirs": ({"resume_from_checkpoint": "saves/checkpoint-5"}, "resume_from_checkpoint"),
    "a list where one value belongs": ({"lr_scheduler_type": ["cosine"]}, "lr_scheduler_type"),
    "a table where one value belongs": ({"template": {"a": 1}}, "template"),
    "a DeepSpeed file of another form": ({"deepspeed": {"zero_optimization": "three"}}, "deepspeed"),
    "no shuffling": ({"disable_shuffling": True}, "disable_shuffling"),
}


def with_shared(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**SHARED, **changes}.items() if value is not None or name in changes}


@pytest.mark.parametrize("source", MET)
def test_a_file_gives_the_keys_that_mean_the_same(source: str) -> None:
    changes, keys = MET[source]
    draft = translate(with_shared(changes))
    assert draft.refused == []
    assert {key: draft.values.get(key) for key in keys} == dict(keys)
    assert set(with_shared(changes)) <= set(draft.outcomes)
    assert set(draft.values) <= set(known_keys())


@pytest.mark.parametrize("source", [source for source in MET if "hparam_sweep" not in source][::4])
def test_the_keys_compose_a_run(source: str) -> None:
    draft = translate(with_shared(MET[source][0]))
    run = described(compose([f"{key}={in_grammar(value, key)}" for key, value in draft.values.items()]))
    assert {key: run[key] for key in MET[source][1] if key in run}.items() <= MET[source][1].items()


@pytest.mark.parametrize("source", REFUSING)
def test_what_cannot_mean_the_same_is_refused_by_name(source: str) -> None:
    changes, name = REFUSING[source]
    draft = translate(with_shared(changes))
    assert [refused for refused, _ in draft.refused] == [name]
    assert set(with_shared(changes)) <= set(draft.outcomes)


@pytest.mark.parametrize(("ranks", "samples"), [(1, 1000), (4, 1000), (8, 91)])
def test_steps_and_warmup_are_those_of_the_file(ranks: int, samples: int) -> None:
    """By hand: batch 1 x 8 x ranks; ceil(samples / batch) steps an epoch; warmup ceil(0.1 x steps), as transformers rounds it."""
    draft = translate(with_shared({}))
    run = compose([f"{key}={in_grammar(value, key)}" for key, value in draft.values.items()])
    batch = int(run.training.micro_batch or 0) * int(run.training.accumulation or 0) * ranks
    assert batch == 8 * ranks
    steps = 3 * math.ceil(samples / batch)
    assert warmup_steps(run.optim, steps) == math.ceil(0.1 * steps)


def test_an_argument_stated_as_off_is_no_refusal() -> None:
    off = {"use_dft_loss": False, "shift_attn": False, "label_smoothing_factor": 0.0, "use_adam_mini": False, "push_to_hub": False, "fp8": False}
    draft = translate(with_shared(off))
    assert draft.refused == []
    assert {draft.outcomes[name].kind for name in off} == {"without effect"}


def test_every_refusal_says_what_to_do_or_why() -> None:
    for changes, name in REFUSING.values():
        outcome = translate(with_shared(changes)).outcomes[name]
        assert outcome.kind == REFUSED
        assert len(outcome.said.split()) > 4, name
