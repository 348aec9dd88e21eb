"""The keys of a training file of axolotl as the keys of a run: optimizer, schedule, batch, precision, checkpoints, evaluation, sharding, trackers."""

import difflib
from collections.abc import Mapping
from typing import Any

from conf.optimizers import OPTIMIZERS
from conf.schedules import MIN_SHARE, SCHEDULES
from launcher.moving.draft import OFF, SECRET, Draft
from launcher.moving.sharding_keys import deepspeed, fsdp_words

OPTIMIZERS_THERE = {"adamw_bnb_8bit": "adamw_8bit", "paged_adamw_32bit": "paged_adamw", "adamw_hf": "adamw"}
PROJECTS = {"wandb": "wandb_project", "mlflow": "mlflow_experiment_name", "comet": "comet_project_name"}  # by tracker, which it switches on there
WARMUP = 0.03  # of the steps, where a file states none; there at most 100 steps

OWN_WAY = "regimen has its own way, which changes neither the samples nor the loss"
FASTER = "what is fastest and fits is chosen: training.attention, training.kernels, training.loss"
STEPS = "checkpoints and evaluations are made by steps: set checkpoint.interval and evaluation.interval in the new file"
AFTER = "`regimen export RUN --push` uploads a model after training"

IDLE: Mapping[str, tuple[str, ...]] = {
    OWN_WAY: (
        *("model_type", "tokenizer_type", "is_llama_derived_model", "is_mistral_derived_model", "is_falcon_derived_model", "trust_remote_code"),
        *("strict", "debug", "local_rank", "dataset_prepared_path", "dataset_processes", "dataset_keep_in_memory", "dataloader_num_workers"),
        *("pad_to_sequence_len", "eval_sample_packing", "sample_packing_group_size", "sample_packing_bin_size", "remove_unused_columns"),
        *(
            "gradient_checkpointing_kwargs",
            "fsdp_config",
            "fsdp_version",
            "ddp_timeout",
            "ddp_bucket_cap_mb",
            "ddp_broadcast_buffers",
            "torchdistx_path",
        ),
        *(
            "lora_fan_in_fan_out",
            "save_safetensors",
            "save_only_model",
            "tf32",
            "experimental_skip_move_to_device",
            "num_labels",
            "auto_find_batch_size",
        ),
        *(
            "eval_table_size",
            "eval_max_new_tokens",
            "eval_causal_lm_metrics",
            "gptq_groupsize",
            "gptq_model_v1",
            "use_tensorboard",
            "low_cpu_mem_usage",
        ),
        *("include_tokens_per_second", "dataloader_pin_memory", "dataloader_prefetch_factor", "ddp", "world_size", "device_map", "max_memory"),
    ),
    FASTER: (
        *("flash_attention", "sdp_attention", "xformers_attention", "attn_implementation", "flash_attn_cross_entropy", "flash_attn_rms_norm"),
        *("flash_attn_fuse_qkv", "flash_attn_fuse_mlp", "lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "torch_compile", "cut_cross_entropy"),
        *("liger_rope", "liger_rms_norm", "liger_glu_activation", "liger_layer_norm", "liger_fused_linear_cross_entropy", "chunked_cross_entropy"),
    ),
    STEPS: ("saves_per_epoch", "evals_per_epoch", "save_strategy", "eval_strategy", "evaluation_strategy"),
    "training.on_nan says what happens at a loss that is none": ("loss_watchdog_threshold", "loss_watchdog_patience"),
    AFTER: ("hub_model_id", "hub_strategy", "push_dataset_to_hub", "wandb_log_model"),
    "gradients and weights are not sent": ("wandb_watch",),
    "it is stated in the environment: WANDB_MODE, WANDB_RUN_ID": ("wandb_mode", "wandb_run_id"),
    SECRET: ("hf_use_auth_token", "comet_api_key"),
    "it belongs to a choice that this file does not make": (
        *("rl_beta", "dpo_beta", "orpo_alpha", "simpo_gamma", "cpo_alpha", "kto_desirable_weight", "kto_undesirable_weight", "dpo_label_smoothing"),
        *("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_linear", "lora_model_dir", "peft_use_dora", "peft_use_rslora"),
        "loraplus_lr_ratio",
    ),
}

# Of the plugins, those that only make a step faster.
FAST_PLUGINS = ("LigerPlugin", "CutCrossEntropyPlugin")

REFUSED: Mapping[str, str] = {
    "auto_resume_from_checkpoints": "a checkpoint of another program cannot be gone on with",
    "batch_size": "state micro_batch_size and gradient_accumulation_steps",
    "cosine_constant_lr_ratio": "the cosine schedule has no constant end",
    "eval_dataset": "name the set in data.evaluation_sets of the new file",
    "group_by_length": "samples are drawn at random. Without padding (training.kernels) their lengths cost nothing",
    "label_smoothing_factor": "the next-token loss has no smoothing",
    "lora_modules_to_save": "modules beside the adapters cannot learn in whole. Leave it out, or train every weight",
    "process_reward_model": "rewards of steps are not a stage here",
    "resume_from_checkpoint": "a checkpoint of another program cannot be gone on with. Its adapter can: lora_model_dir",
    "rpo_alpha": "its loss is averaged in another way: write stage.sft_weight yourself",
    "test_datasets": "name the sets in data.evaluation_sets of the new file",
    "unfrozen_parameters": "parameters are not chosen by patterns. Use regime=freeze with regime.layers or regime.modules",
}


def training(draft: Draft) -> None:
    optimizer(draft)
    schedule(draft)
    draft.numbers_to(micro_batch_size="training.micro_batch", gradient_accumulation_steps="training.accumulation", num_epochs="training.epochs")
    for name, key in {
        "max_steps": "training.max_steps",
        "logging_steps": "training.log_interval",
        "neftune_noise_alpha": "training.neftune_alpha",
    }.items():
        if draft.stated(name):
            draft.number_to(name, key)
    draft.number_to("seed", "training.seed")
    precision(draft)
    checkpoints(draft)
    sharding(draft)
    trackers(draft)
    if draft.on("output_dir"):
        draft.text_to("output_dir", "output", "each run gets a folder of its own there")


def optimizer(draft: Draft) -> None:
    name = str(draft.value("optimizer"))
    ours = OPTIMIZERS_THERE.get(name) or next(
        (ours for ours, row in OPTIMIZERS.items() if row.transformers == name), name if name in OPTIMIZERS else None
    )
    if ours is None:
        draft.refuse("optimizer", f"{name} is not an optimizer here. Use one of: {', '.join(OPTIMIZERS)}")
    else:
        draft.put("optimizer", "optim", ours)
    if draft.value("learning_rate") is None:
        draft.refuse("learning_rate", "it is not stated, and has no default there")
    draft.numbers_to(learning_rate="optim.lr", weight_decay="optim.weight_decay", max_grad_norm="optim.max_grad_norm")
    for name, key in {"adam_beta1": "optim.beta1", "adam_beta2": "optim.beta2", "adam_epsilon": "optim.eps"}.items():
        if draft.stated(name):
            draft.number_to(name, key)


def schedule(draft: Draft) -> None:
    name, least = str(draft.value("lr_scheduler")), draft.number("cosine_min_lr_ratio")
    if name not in SCHEDULES:
        draft.refuse("lr_scheduler", f"{name} is not a schedule here. Use one of: {', '.join(SCHEDULES)}")
    elif least and (name, least) != ("cosine", MIN_SHARE):
        draft.refuse("cosine_min_lr_ratio", f"only {MIN_SHARE} is possible, with lr_scheduler: cosine")
    else:
        draft.put("lr_scheduler", "optim.scheduler", "cosine_with_min_lr" if least else name)
        draft.same("cosine_min_lr_ratio", "optim.scheduler: cosine_with_min_lr")
    if name == "constant":
        for warmup in ("warmup_steps", "warmup_ratio"):
            draft.idle(warmup, "lr_scheduler: constant has none")
    elif draft.number("warmup_steps"):
        draft.number_to("warmup_steps", "optim.warmup")
        draft.idle("warmup_ratio", "warmup_steps is stated")
    elif draft.stated("warmup_ratio"):
        draft.put("warmup_ratio", "optim.warmup", draft.share("warmup_ratio") or 0)
    elif draft.stated("warmup_steps"):
        draft.number_to("warmup_steps", "optim.warmup")
    else:
        draft.assume("optim.warmup", WARMUP, "there at most 100 steps")


def precision(draft: Draft) -> None:
    """There bf16 is the dtype of the weights too, and adapters learn in fp32."""
    learned = draft.values.get("regime") == "full"
    in_bf16 = str(draft.value("bf16")).lower() in ("auto", "full") or draft.switch("bf16")
    if draft.switch("float32"):
        draft.put("float32", "training.precision", "fp32")
        for name in (name for name in ("bf16", "fp16") if draft.stated(name) and draft.on(name) and draft.value(name) != "auto"):
            draft.refuse(name, "float32 is on too. Leave one of them out")
    elif in_bf16 and not draft.on("fp16"):
        note = "weights are bf16 there too" if learned else "auto is bf16 on every GPU since Ampere" if draft.value("bf16") == "auto" else ""
        draft.put("bf16", "training.precision", "bf16" if learned else "bf16_amp", note)
    elif draft.on("fp16"):
        draft.put("fp16", "training.precision", "fp16_amp")
        if draft.stated("bf16") and str(draft.value("bf16")).lower() in ("true", "full"):
            draft.refuse("bf16", "fp16 is on too. Leave one of them out")
    else:
        draft.put("bf16", "training.precision", "fp32")
    for name in ("bf16", "fp16", "float32"):
        draft.idle(name, "off, as here")
    draft.put("gradient_checkpointing", "training.gradient_checkpointing", checkpointing(draft))
    if draft.switch("eager_attention"):
        draft.put("eager_attention", "training.attention", "eager")
    draft.idle("eager_attention", "off, as here")


def checkpointing(draft: Draft) -> bool:
    """Beside true and false it knows two ways of keeping what is not computed again somewhere else."""
    return draft.value("gradient_checkpointing") in ("offload", "offload_disk", "unsloth") or draft.switch("gradient_checkpointing")


def checkpoints(draft: Draft) -> None:
    names = {"save_steps": "checkpoint.interval", "save_total_limit": "checkpoint.keep"}
    if draft.values.get("data.validation_share"):
        draft.number_to("eval_batch_size" if draft.stated("eval_batch_size") else "micro_batch_size", "evaluation.micro_batch")
        names |= {"eval_steps": "evaluation.interval", "early_stopping_patience": "evaluation.patience"}
    for name, key in names.items():
        number = draft.number(name)
        if number is not None and 0 < number < 1:
            draft.refuse(name, "a share of the run is not possible. Give a number of steps")
        elif number is not None:
            draft.number_to(name, key)
    if draft.stated("early_stopping_patience") and not draft.stated("eval_steps"):
        draft.refuse("early_stopping_patience", "it counts evaluations, which are made by steps: state eval_steps")
    for name in ("eval_batch_size", "eval_steps", "early_stopping_patience"):
        draft.idle(name, "no data is held out")


def sharding(draft: Draft) -> None:
    settings = draft.value("fsdp_config") if isinstance(draft.value("fsdp_config"), Mapping) else {}
    if draft.on("deepspeed"):
        deepspeed(draft)
    elif draft.on("fsdp") or settings:
        by = "fsdp" if draft.on("fsdp") else "fsdp_config"
        words = fsdp_words(draft)
        if "offload" in words or settings.get("fsdp_offload_params") or settings.get("offload_params"):
            draft.refuse(by, "offload is not possible with FSDP here. Use sharding=zero3_offload")
        else:
            draft.put(by, "sharding", "fsdp2")
            if "shard_grad_op" in words:
                draft.put(by, "sharding.reshard_after_forward", False)
    for name in ("deepspeed", "fsdp"):
        draft.idle(name, "off, as here")


def trackers(draft: Draft) -> None:
    named = [tracker for tracker, project in PROJECTS.items() if draft.switch(f"use_{tracker}") or draft.text(project)]
    for tracker in named:
        by = f"use_{tracker}" if draft.switch(f"use_{tracker}") else PROJECTS[tracker]
        draft.put(by, "tracking" if tracker == named[0] else "tracking.also", tracker if tracker == named[0] else named[1:])
        draft.idle(f"use_{tracker}", f"{PROJECTS[tracker]} is stated, and switches it on there")
    for tracker in PROJECTS:
        draft.idle(f"use_{tracker}", "off, as here")
    stated = [PROJECTS[tracker] for tracker in named if draft.text(PROJECTS[tracker])]
    for name in stated:
        if draft.text(name) == draft.text(stated[0]):
            draft.text_to(name, "tracking.project")
        else:
            draft.refuse(name, f"a run has one name of a project for all of its trackers, and {stated[0]} names another. Leave one of them out")
    if "wandb" in named and draft.on("wandb_entity"):
        draft.text_to("wandb_entity", "tracking.entity")
    draft.idle("wandb_entity", "there is no run at wandb")
    if draft.on("mlflow_tracking_uri"):
        draft.refuse("mlflow_tracking_uri", "it is stated in the environment: set MLFLOW_TRACKING_URI for the run, and leave it out here")
    for name in ("wandb_name", "wandb_run_name", "mlflow_run_name"):
        draft.idle(name, "a run there is named as the run folder: set name in the new file")


def settle_others(draft: Draft) -> None:
    """Every key that has no outcome yet gets one."""
    plugins = [name for name in draft.texts("plugins") if not name.endswith(FAST_PLUGINS)]
    if plugins:
        draft.refuse("plugins", f"{', '.join(plugins)} may change what is learned. Leave it out")
    draft.idle("plugins", FASTER)
    reasons = {name: why for why, names in IDLE.items() for name in names}
    for name, value in draft.given.items():
        if name in draft.outcomes:
            continue
        off: Any = value.lower() if isinstance(value, str) else value
        if name in reasons:
            draft.idle(name, reasons[name])
        elif name == "shuffle_merged_datasets" and off is False:
            draft.refuse(name, "samples are drawn in an order of their own here. Leave it out")
        elif off in OFF:
            draft.idle(name, "off, as here" if name in REFUSED or name in draft.defaults else "off; the key is not known here")
        elif name in REFUSED:
            draft.refuse(name, REFUSED[name])
        else:
            near = difflib.get_close_matches(name, [*reasons, *REFUSED, *draft.defaults], n=1, cutoff=0.8)
            draft.refuse(
                name,
                f"it is not a key that is known here. {f'Did you mean {near[0]}?' if near else 'Leave it out if it only changes speed or output'}",
            )
