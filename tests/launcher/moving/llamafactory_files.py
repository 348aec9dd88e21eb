"""The arguments of example files of LLaMA-Factory, and what they mean, worked out by hand from its documentation.

Each file is called by its path under examples/ of hiyouga/LLaMA-Factory and the commit that it was read at; some are of forks that share its
history. `output_dir` and the paths of models on one's own disk are shortened, and what only names how something is shown is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

# What most of its example files share. In changes of it, ... leaves an argument out.
SHARED: dict[str, Any] = {
    **{"model_name_or_path": "meta-llama/Meta-Llama-3-8B-Instruct", "trust_remote_code": True, "stage": "sft", "do_train": True},
    **{"finetuning_type": "lora", "lora_target": "all", "dataset": "identity,alpaca_en_demo", "template": "llama3", "cutoff_len": 2048},
    **{"max_samples": 1000, "overwrite_cache": True, "preprocessing_num_workers": 16, "output_dir": "saves/run", "logging_steps": 10},
    **{"save_steps": 500, "plot_loss": True, "overwrite_output_dir": True, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
    **{"learning_rate": 1.0e-4, "num_train_epochs": 3.0, "lr_scheduler_type": "cosine", "warmup_ratio": 0.1, "bf16": True},
    "ddp_timeout": 180000000,
}
HELD_OUT = {"val_size": 0.1, "per_device_eval_batch_size": 1, "eval_strategy": "steps", "eval_steps": 500}
OLD = {"eval_strategy": ..., "evaluation_strategy": "steps"}
SINGLE = {"trust_remote_code": ..., "lora_target": "q_proj,v_proj", "cutoff_len": 1024, "bf16": ..., "fp16": True, "ddp_timeout": ..., **HELD_OUT}
NEWER = {
    "lora_rank": 8,
    "overwrite_cache": ...,
    "dataloader_num_workers": 4,
    "save_only_model": False,
    "report_to": "none",
    "resume_from_checkpoint": None,
}
QWEN3 = {**NEWER, "model_name_or_path": "Qwen/Qwen3-4B-Instruct-2507", "template": "qwen3_nothink"}
ZERO3 = {"deepspeed": "examples/deepspeed/ds_z3_config.json", "gradient_accumulation_steps": 2}
DPO = {"stage": "dpo", "pref_beta": 0.1, "pref_loss": "sigmoid", "dataset": "dpo_en_demo", "learning_rate": 5.0e-6}
KTO = {"stage": "kto", "pref_beta": 0.1, "dataset": "kto_en_demo", "learning_rate": 5.0e-6}
PPO = {"stage": "ppo", "reward_model": "saves/reward", "learning_rate": 1.0e-5, "max_new_tokens": 512, "top_k": 0, "top_p": 0.9}
PRETRAIN = {"stage": "pt", "dataset": "c4_demo", "template": ...}
REWARD = {"stage": "rm", "dataset": "dpo_en_demo"}
FULL = {"finetuning_type": "full", "lora_target": ..., "learning_rate": 1.0e-5}
QWEN2 = {**FULL, "model_name_or_path": "Qwen/Qwen2-1.5B-Instruct", "template": "qwen", "dataloader_num_workers": 4, "save_only_model": False}
SWEEP = {
    **{**ZERO3, "model_name_or_path": "Qwen/Qwen3-8B", "attn": "fa2", "enable_liger_kernel": True, "torch_compile": False},
    **{"finetuning_type": "full", "lora_target": ..., "include_mfu": True, "dataset": "traces", "template": "qwen", "mask_history": True},
    **{"cutoff_len": 32768, "max_samples": None, "preprocessing_num_workers": 8, "dataloader_num_workers": 8, "logging_steps": 5, "save_steps": 100},
    **{"save_only_model": True, "report_to": "wandb", "learning_rate": 2.0e-6, "warmup_ratio": 0.05, "weight_decay": 0.01, "max_grad_norm": 1.0e-4},
    **{"pure_bf16": False, "gradient_checkpointing": True, "push_to_hub": False},
}
LOADING = {"dataloader_num_workers": 2, "dataloader_prefetch_factor": 1, "dataloader_persistent_workers": False, "dataloader_pin_memory": False}
FSDP = {**SWEEP, **LOADING, "deepspeed": ..., "push_to_hub": ..., "save_only_model": False, "save_steps": 50, "learning_rate": 2.0e-5}
RAY = {
    **{**NEWER, "dataset_dir": "REMOTE:llamafactory/demo_data", "ray_run_name": "sft", "ray_storage_path": "./saves", "ray_num_workers": 4},
    **{"placement_strategy": "PACK", "resources_per_worker": {"GPU": 1}},
}


@dataclass(frozen=True)
class Steps:
    """By hand, of 1,000 samples on 2 ranks: a batch is 2 x per_device_train_batch_size x gradient_accumulation_steps, an epoch ends with a batch
    that need not be full, val_size is held out before, and the warmup is rounded up."""

    batch: int
    steps: int
    warmup: int
    peak: float


@dataclass(frozen=True)
class Meant:
    """`steps`: None where rows are packed, whose number depends on the data, and for ppo, which learns each batch several times."""

    changes: Mapping[str, Any]
    keys: Mapping[str, Any]
    steps: Steps | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        return arguments(self.changes)


def arguments(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**SHARED, **changes}.items() if not isinstance(value, EllipsisType)}


LORA = {"regime": "lora", "regime.rank": 8, "regime.alpha": 16, "regime.dropout": 0.0, "regime.targets": ["all-linear"], "optim.scheduler": "cosine"}
TWO = {**LORA, "regime.targets": ["q_proj", "v_proj"], "data.cutoff": 1024, "training.precision": "fp16_amp", "data.validation_share": 0.1}
TWO |= {"evaluation.interval": 500, "evaluation.micro_batch": 1, "data.template": "llama3"}
SWEPT = {
    **{
        "model": "qwen3_8b_instruct",
        "regime": "full",
        "sharding": "zero3",
        "data.template": "qwen",
        "data.train_history": False,
        "data.cutoff": 32768,
    },
    **{"optim.max_grad_norm": 1e-4, "optim.weight_decay": 0.01, "tracking": "wandb", "training.precision": "bf16_amp", "data.max_samples": None},
}
PPO_KEYS = {
    **{"stage": "ppo", "stage.reward_model": "saves/reward", "stage.response_length": 512, "stage.epochs": 4, "stage.mini_batches": 1},
    **{"stage.temperature": 0.95, "optim.lr": 1e-5, "training.micro_batch": 1, "training.accumulation": 8},
}
EIGHT, HELD = Steps(16, 189, 19, 1e-4), Steps(16, 171, 18, 1e-4)  # ceil(1000 / 16) = 63 a epoch, ceil(18.9); ceil(900 / 16) = 57, ceil(17.1)
DPO_KEYS = {"stage": "dpo", "stage.loss": "sigmoid", "stage.beta": 0.1, "stage.sft_weight": 0.0, "data.sets": ["dpo_en_demo"]}
TWO_STEPS = Steps(4, 750, 75, 1e-4)  # 250 an epoch
SWEPT_STEPS = Steps(4, 750, 38, 2e-6)  # ceil(37.5)

FILES: dict[str, Meant] = {
    "lora_single_gpu/llama3_lora_sft.yaml@00b3fb4": Meant(SINGLE, {**TWO, "stage": "sft"}, HELD),
    "lora_single_gpu/llama3_lora_dpo.yaml@1ef3963": Meant({**SINGLE, **OLD, **DPO}, {**TWO, **DPO_KEYS}, Steps(16, 171, 18, 5e-6)),
    "lora_single_gpu/llama3_lora_orpo.yaml@e4972c8": Meant(
        {**SINGLE, **OLD, "stage": "orpo", "dataset": "orca_rlhf", "learning_rate": 0.00001, "warmup_ratio": ..., "warmup_steps": 0.1},
        {**TWO, "stage": "orpo", "stage.beta": 0.1, "optim.warmup": 0.1},
        Steps(16, 171, 18, 1e-5),
    ),
    "lora_single_gpu/llama3_lora_ppo.yaml@1c1bfe4": Meant(
        {**SINGLE, **PPO, "lora_target": "all", **dict.fromkeys(HELD_OUT, ...)}, {**LORA, **PPO_KEYS, "training.precision": "fp16_amp"}
    ),
    "lora_single_gpu/llama3_lora_pretrain.yaml@00b3fb4": Meant(
        {**SINGLE, **PRETRAIN}, {**TWO, "stage": "pt", "data.packing": True, "data.template": None, "optim.lr": 1e-4}
    ),
    "lora_single_gpu/llama3_lora_reward.yaml@0b67161": Meant(
        {**SINGLE, **REWARD, "learning_rate": 1.0e-5}, {**TWO, "stage": "rm"}, Steps(16, 171, 18, 1e-5)
    ),
    "lora_single_gpu/llama3_preprocess.yaml@5c9da79": Meant(
        {
            **dict.fromkeys(
                [
                    *("logging_steps", "save_steps", "plot_loss", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate"),
                    *("num_train_epochs", "lr_scheduler_type", "warmup_ratio", "bf16", "ddp_timeout", "trust_remote_code"),
                ],
                ...,
            ),
            **{"lora_target": "q_proj,v_proj", "cutoff_len": 1024, "val_size": 0.1, "tokenized_path": "saves/dataset"},
        },
        {"optim.scheduler": "linear", "optim.warmup": 0, "evaluation.interval": 0, "data.validation_share": 0.1, "training.micro_batch": 8},
        Steps(16, 171, 0, 5e-5),
    ),
    "train_lora/llama3_lora_sft.yaml@13d252f": Meant({"lora_rank": 8}, {**LORA, "data.template": "llama3", "data.cutoff": 2048}, EIGHT),
    "train_lora/llama3_lora_dpo.yaml@01fa59b": Meant({**DPO, "lora_rank": 8}, {**LORA, **DPO_KEYS}, Steps(16, 189, 19, 5e-6)),
    "train_lora/llama3_lora_kto.yaml@1ca6b15": Meant(
        {**KTO, **HELD_OUT, "trust_remote_code": ...},
        {**LORA, "stage": "kto", "stage.beta": 0.1, "stage.desirable_weight": 1, "stage.undesirable_weight": 1},
        Steps(16, 171, 18, 5e-6),
    ),
    "train_lora/llama3_lora_ppo.yaml@1ca6b15": Meant({**PPO, "trust_remote_code": ...}, {**LORA, **PPO_KEYS, "training.precision": "bf16_amp"}),
    "train_lora/llama3_lora_pretrain.yaml@13d252f": Meant({**PRETRAIN, "lora_rank": 8}, {**LORA, "stage": "pt", "data.packing": True}),
    "train_lora/llama3_lora_reward.yaml@01fa59b": Meant({**REWARD, "lora_rank": 8}, {**LORA, "stage": "rm"}, EIGHT),
    "train_lora/llama3_lora_sft_ds0.yaml@0926d81": Meant(
        {
            **{**SINGLE, "lora_target": "all", "ddp_timeout": 180000000, "gradient_accumulation_steps": 2},
            "deepspeed": "examples/deepspeed/ds_z0_config.json",
        },
        {**TWO, "regime.targets": ["all-linear"], "sharding": "ddp"},
        Steps(4, 675, 68, 1e-4),
    ),
    "train_lora/llama3_lora_sft_ds3.yaml@13e6173": Meant({**ZERO3, **HELD_OUT}, {**LORA, "sharding": "zero3"}, Steps(4, 675, 68, 1e-4)),
    "train_lora/llama3_lora_compext.yaml@a1215bd": Meant(
        {
            **{**HELD_OUT, "model_name_or_path": "meta-llama/Llama-3.1-8B-Instruct", "template": "llama3-company-extract"},
            **{"dataset": "company_extract", "per_device_train_batch_size": 16, "gradient_accumulation_steps": 32},
        },
        {**LORA, "model": "llama3.1_8b_instruct", "data.template": None, "training.micro_batch": 16, "training.accumulation": 32},
        Steps(1024, 3, 1, 1e-4),
    ),
    "train_lora/llama4_lora_sft_ds3.yaml@a0a70f3": Meant(
        {
            **{**NEWER, **ZERO3, "overwrite_cache": True, "model_name_or_path": "meta-llama/Llama-4-Scout-17B-16E-Instruct"},
            **{"dataset": "mllm_demo,identity,alpaca_en_demo", "template": "llama4"},
        },
        {**LORA, "sharding": "zero3", "data.sets": ["mllm_demo", "identity", "alpaca_en_demo"], "training.dataloader_workers": 4},
        TWO_STEPS,
    ),
    "train_lora/mistral3_lora_sft.yaml@1a527c0": Meant(
        {**NEWER, "overwrite_cache": True, "model_name_or_path": "/models/Ministral-3-3B-Instruct-2512", "template": "mistral"},
        {**LORA, "model": "local", "model.path": "/models/Ministral-3-3B-Instruct-2512", "data.template": "mistral"},
        EIGHT,
    ),
    "train_lora/qwen2.5_lora_sft.yaml@1a527c0": Meant(
        {**NEWER, "overwrite_cache": True, "model_name_or_path": "/models/Qwen2.5-3B-Instruct", "template": "qwen"},
        {**LORA, "model": "local", "data.template": "qwen"},
        EIGHT,
    ),
    "train_lora/qwen3_lora_dpo.yaml@dc85995": Meant({**QWEN3, **DPO}, {**LORA, **DPO_KEYS, "model": "qwen3_4b_instruct"}, Steps(16, 189, 19, 5e-6)),
    "train_lora/qwen3_lora_kto.yaml@dc85995": Meant(
        {**QWEN3, **KTO, "save_only_model": ..., "resume_from_checkpoint": ...},
        {**LORA, "stage": "kto", "data.sets": ["kto_en_demo"], "data.template": None},
        Steps(16, 189, 19, 5e-6),
    ),
    "train_lora/qwen3_lora_pretrain.yaml@dc85995": Meant({**QWEN3, **PRETRAIN}, {**LORA, "stage": "pt", "data.packing": True, "data.cutoff": 2048}),
    "train_lora/qwen3_lora_reward.yaml@dc85995": Meant({**QWEN3, **REWARD}, {**LORA, "stage": "rm", "data.sets": ["dpo_en_demo"]}, EIGHT),
    "train_lora/qwen3_lora_sft.yaml@77e7f47": Meant({**QWEN3, "dataset": "identity"}, {**LORA, "data.sets": ["identity"]}, EIGHT),
    "train_lora/qwen3_lora_sft_ds3.yaml@95ac3f2": Meant({**QWEN3, **ZERO3}, {**LORA, "sharding": "zero3", "training.accumulation": 2}, TWO_STEPS),
    "train_lora/qwen3_preprocess.yaml@dc85995": Meant(
        {
            **{"model_name_or_path": "Qwen/Qwen3-4B-Instruct-2507", "template": "qwen3_nothink", "lora_rank": 8, "tokenized_path": "saves/dataset"},
            **dict.fromkeys(
                [
                    *("logging_steps", "save_steps", "plot_loss", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate"),
                    *("num_train_epochs", "lr_scheduler_type", "warmup_ratio", "bf16", "ddp_timeout", "overwrite_cache"),
                ],
                ...,
            ),
        },
        {"regime.rank": 8, "optim.scheduler": "linear", "training.micro_batch": 8, "training.accumulation": 1, "training.epochs": 3},
        Steps(16, 189, 0, 5e-5),
    ),
    "train_lora/nanbeige42_base_lora_pretrain.yaml@a9ece42": Meant(
        {**NEWER, **PRETRAIN, "model_name_or_path": "Nanbeige/Nanbeige4.2-3B-Base", "use_fast_tokenizer": False},
        {**LORA, "stage": "pt", "model": "local", "model.path": "Nanbeige/Nanbeige4.2-3B-Base"},
    ),
    "train_lora/deepseekv3_lora_sft_ds3.yaml@be21531": Meant(
        {
            **{**ZERO3, "deepspeed": "examples/deepspeed/ds_z3_offload_config.json", "model_name_or_path": "opensourcerelease/DeepSeek-V3-bf16"},
            **{"template": "deepseek3", "lora_rank": 8},
        },
        {**LORA, "sharding": "zero3_offload", "data.template": None, "model.path": "opensourcerelease/DeepSeek-V3-bf16"},
        TWO_STEPS,
    ),
    "train_lora/gpt_lora_sft.yaml@387454e": Meant(
        {**NEWER, "overwrite_cache": True, "model_name_or_path": "openai/gpt-oss-20b", "template": "gpt"}, {**LORA, "data.template": None}, EIGHT
    ),
    "train_lora/qwen3.5_lora_roleplay.yaml@1067991": Meant(
        {
            **{**HELD_OUT, "eval_steps": 100, "save_steps": 100, "lora_rank": 16, "lora_alpha": 32, "lora_dropout": 0.1, "learning_rate": 2.0e-4},
            **{"model_name_or_path": "Qwen/Qwen3.5-4B-Instruct", "template": "qwen3_5", "per_device_train_batch_size": 2, "trust_remote_code": ...},
        },
        {**LORA, "regime.rank": 16, "regime.alpha": 32, "regime.dropout": 0.1, "evaluation.interval": 100, "checkpoint.interval": 100},
        Steps(32, 87, 9, 2e-4),
    ),
    "train_full/llama3_full_sft.yaml@03da9a7": Meant({**FULL, **ZERO3}, {"regime": "full", "sharding": "zero3"}, Steps(4, 750, 75, 1e-5)),
    "train_full/qwen3_full_sft_fsdp2.yaml@064f012": Meant(
        {**FSDP, "torch_compile_backend": "inductor", "max_grad_norm": 1.0e-3},
        {**SWEPT, "sharding": None, "optim.max_grad_norm": 1e-3, "checkpoint.interval": 50},
        Steps(4, 750, 38, 2e-5),
    ),
    "train_full/qwen2_5_full_sft_fsdp.yaml@502e7aa": Meant(
        {
            **{**FSDP, "model_name_or_path": "Qwen/Qwen2.5-7B-Instruct", "rope_scaling": "linear", "torch_compile": ..., "include_mfu": ...},
            **{"num_train_epochs": 5.0, "weight_decay": 0.03, "max_grad_norm": 1.0e-3, "pure_bf16": True, "preprocessing_num_workers": 16},
        },
        {"regime": "full", "model.rope_scaling": "linear", "training.precision": "bf16", "training.epochs": 5, "optim.weight_decay": 0.03},
        Steps(4, 1250, 63, 2e-5),
    ),
    "train_full/hparam_sweep/qwen3_full_sft_e1_adamw_torch_betas095.yaml@5851f9f": Meant(
        {**SWEEP, "dataloader_num_workers": 4, "optim": "adamw_torch", "adam_beta1": 0.9, "adam_beta2": 0.95, "adam_epsilon": 1.0e-8},
        {**SWEPT, "optim": "adamw_foreach", "optim.beta1": 0.9, "optim.beta2": 0.95, "optim.eps": 1e-8},
        SWEPT_STEPS,
    ),
    "train_full/hparam_sweep/qwen3_full_sft_e2_adamw_bnb_8bit.yaml@5851f9f": Meant(
        {**SWEEP, "dataloader_num_workers": 4, "optim": "adamw_bnb_8bit", "adam_beta1": 0.9, "adam_beta2": 0.98, "adam_epsilon": 1.0e-8},
        {**SWEPT, "optim": "adamw_8bit", "optim.beta2": 0.98},
        SWEPT_STEPS,
    ),
    "train_full/hparam_sweep/qwen3_full_sft_e4_dataloader16.yaml@5851f9f": Meant(
        {**SWEEP, "preprocessing_num_workers": 16, "dataloader_num_workers": 16}, {**SWEPT, "training.dataloader_workers": 16}, SWEPT_STEPS
    ),
    "train_full/hparam_sweep/qwen3_full_sft_e6_grad_ckpt_off.yaml@5851f9f": Meant({**SWEEP, "gradient_checkpointing": False}, SWEPT, SWEPT_STEPS),
    "train_full/hparam_sweep/qwen3_full_sft_e9_max_grad_norm_5e-5.yaml@5851f9f": Meant(
        {**SWEEP, "max_grad_norm": 5.0e-5}, {**SWEPT, "optim.max_grad_norm": 5e-5}, SWEPT_STEPS
    ),
    "train_full/hparam_sweep/qwen3_full_sft_sched_constant_warmup.yaml@5851f9f": Meant(
        {**SWEEP, "lr_scheduler_type": "constant_with_warmup"}, {**SWEPT, "optim.scheduler": "constant_with_warmup"}, SWEPT_STEPS
    ),
    "train_full/hparam_sweep/qwen3_full_sft_opt_adafactor.yaml@733c738": Meant(
        {**SWEEP, "lr_scheduler_type": "linear", "weight_decay": 0.0, "optim": "adafactor"},
        {**SWEPT, "optim": "adafactor", "optim.scheduler": "linear", "optim.weight_decay": 0.0},
        SWEPT_STEPS,
    ),
    "train_full/hparam_sweep/qwen3_full_sft_opt_badam_layer.yaml@5851f9f": Meant(
        {
            **{**SWEEP, "use_badam": True, "badam_mode": "layer", "badam_switch_mode": "ascending", "badam_switch_interval": 50},
            **{"badam_update_ratio": 0.05, "badam_mask_mode": "adjacent", "badam_verbose": 0},
        },
        {**SWEPT, "optim": "badam", "optim.order": "ascending", "optim.switch_interval": 50},
        SWEPT_STEPS,
    ),
    "train_full/hparam_sweep/qwen3_full_sft_opt_muon.yaml@5851f9f": Meant({**SWEEP, "use_muon": True}, {**SWEPT, "optim": "muon"}, SWEPT_STEPS),
    "train_qlora/llama3.2_lora_sft.yaml@ad1c106": Meant(
        {**HELD_OUT, "model_name_or_path": "meta-llama/Llama-3.2-1B-Instruct", "cutoff_len": 1024, "trust_remote_code": ...},
        {**LORA, "model": "llama3.2_1b_instruct", "data.cutoff": 1024},
        HELD,
    ),
    "train_qlora/llama3_lora_sft_otfq.yaml@24073f5": Meant(
        {**HELD_OUT, "quantization_bit": 4, "quantization_method": "bitsandbytes", "trust_remote_code": ...},
        {**LORA, "regime": "qlora", "regime.bits": 4, "regime.double_quant": True},
        HELD,
    ),
    "train_qlora/llama3_lora_sft_bnb_npu.yaml@512ac7f": Meant(
        {**NEWER, "overwrite_cache": True, "quantization_bit": 4, "quantization_method": "bnb", "double_quantization": False},
        {**LORA, "regime": "qlora", "regime.bits": 4, "regime.double_quant": False},
        EIGHT,
    ),
    "train_qlora/nanbeige42_lora_sft_otfq.yaml@2ac4cca": Meant(
        {
            **{**NEWER, "model_name_or_path": "Nanbeige/Nanbeige4.2-3B", "use_fast_tokenizer": False, "upcast_layernorm": True},
            **{"quantization_bit": 4, "quantization_method": "bnb", "template": "nanbeige_nothink"},
        },
        {**LORA, "regime": "qlora", "regime.bits": 4, "data.template": None},
        EIGHT,
    ),
    "extras/loraplus/llama3_lora_sft.yaml@1ca6b15": Meant(
        {**HELD_OUT, "loraplus_lr_ratio": 16.0, "trust_remote_code": ...}, {**LORA, "regime.lora_plus_ratio": 16}, HELD
    ),
    "extras/pissa/llama3_lora_sft.yaml@1765d0e": Meant(
        {**NEWER, "overwrite_cache": True, "pissa_init": True, "pissa_iter": 16, "pissa_convert": True},
        {**LORA, "regime.init": "pissa_niter_16"},
        EIGHT,
    ),
    "extras/fsdp_qlora/llama3_lora_sft.yaml@00b3fb4": Meant(
        {**SINGLE, "ddp_timeout": 180000000, "quantization_bit": 4}, {**TWO, "regime": "qlora", "regime.bits": 4}, HELD
    ),
    "extras/badam/llama3_full_sft.yaml@48f0819": Meant(
        {
            **{**FULL, **HELD_OUT, "use_badam": True, "badam_mode": "layer", "badam_switch_mode": "ascending", "badam_switch_interval": 50},
            **{"badam_verbose": 2, "cutoff_len": 1024, "bf16": ..., "ddp_timeout": ..., "trust_remote_code": ...},
        },
        {"regime": "full", "optim": "badam", "optim.order": "ascending", "optim.switch_interval": 50, "training.precision": "bf16_amp"},
        Steps(16, 171, 18, 1e-5),
    ),
    "extras/muon/qwen2_full_sft.yaml@1765d0e": Meant(
        {**QWEN2, "use_muon": True, "report_to": "none"}, {"regime": "full", "optim": "muon", "data.template": "qwen"}, Steps(16, 189, 19, 1e-5)
    ),
}

# The arguments that are refused.
REFUSED_FILES: dict[str, tuple[Mapping[str, Any], list[str]]] = {
    "lora_single_gpu/llama3_lora_kto.yaml@13d7b48": (
        {
            **{**SINGLE, **OLD, "stage": "kto", "kto_ftx": 0.1, "dataset": "kto_en_demo", "learning_rate": 0.000005},
            **{"warmup_ratio": ..., "warmup_steps": 0.1},
        },
        ["kto_ftx"],
    ),
    "train_lora/llama3_lora_sft_ray.yaml@40fecac": (
        RAY,
        ["dataset_dir", "placement_strategy", "ray_num_workers", "ray_run_name", "ray_storage_path", "resources_per_worker"],
    ),
    "train_full/llama3_full_ppo.yaml@88d901c": (
        {**FULL, **PPO, "lora_rank": 8, "lora_target": "all", "reward_model": "package.wrapper.Model", "reward_model_type": "env"},
        ["reward_model_type"],
    ),
    "train_full/hparam_sweep/qwen3_full_sft_opt_adamw_hf.yaml@5851f9f": ({**SWEEP, "optim": "adamw_hf"}, ["optim"]),
    "extras/galore/llama3_full_sft.yaml@3075df1": (
        {
            **{**FULL, **HELD_OUT, **OLD, "use_galore": True, "galore_layerwise": True, "galore_target": "mlp,self_attn", "galore_rank": 128},
            **{"galore_scale": 2.0, "gradient_accumulation_steps": 1, "warmup_ratio": ..., "warmup_steps": 0.1, "bf16": ..., "pure_bf16": True},
        },
        ["galore_layerwise"],
    ),
    "extras/apollo/llama3_full_sft.yaml@33d420b": (
        {
            **{**FULL, **HELD_OUT, "use_apollo": True, "apollo_layerwise": True, "apollo_target": "all", "apollo_rank": 128, "apollo_scale": 32.0},
            **{"apollo_scale_type": "channel", "gradient_accumulation_steps": 1, "bf16": ..., "pure_bf16": True},
        },
        ["apollo_layerwise"],
    ),
    "extras/llama_pro/llama3_freeze_sft.yaml@0926d81": (
        {
            **{**SINGLE, "lora_target": ..., "finetuning_type": "freeze", "freeze_trainable_layers": 8, "freeze_trainable_modules": "all"},
            **{"use_llama_pro": True, "model_name_or_path": "models/llama3-8b-instruct-pro"},
        },
        ["use_llama_pro"],
    ),
    "extras/mod/llama3_full_sft.yaml@01fa59b": (
        {**FULL, "mixture_of_depths": "convert", "optim": "paged_adamw_8bit", "bf16": ..., "pure_bf16": True},
        ["mixture_of_depths"],
    ),
    "extras/adam_mini/qwen2_full_sft.yaml@1773be0": ({**QWEN2, **HELD_OUT, "use_adam_mini": True}, ["use_adam_mini"]),
    "extras/dft/qwen2_full_sft.yaml@a1eceaa": ({**QWEN2, "use_dft_loss": True, "report_to": "none"}, ["use_dft_loss"]),
    "extras/oft/llama3_oft_sft.yaml@20a01d5": (
        {**NEWER, "lora_rank": ..., "lora_target": ..., "finetuning_type": "oft", "oft_block_size": 32, "oft_target": "all"},
        ["finetuning_type"],
    ),
    "extras/mfu/qwen2_full_sft_mfu.yaml@c5c9c3a": (
        {**QWEN2, "include_mfu": True, "mfu_profile_every": 50, "mfu_warmup_steps": 5},
        ["mfu_profile_every", "mfu_warmup_steps"],
    ),
}
