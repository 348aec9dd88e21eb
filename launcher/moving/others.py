"""The arguments of LLaMA-Factory that give no key: without effect here, or refused where they would change what is learned."""

import difflib
from collections.abc import Mapping

from conf.llamafactory import NAMES, NEEDLESS, row_of_needless
from launcher.moving.draft import OFF, SECRET, Draft

OWN_WAY = "regimen has its own way, which changes neither the samples nor the loss"
MEDIA = "it is one of images, videos and sounds, and only texts are trained on"
UNUSED = "it belongs to a choice that this file does not make"
OF_TRACKERS = "trackio reads TRACKIO_SPACE_ID from the environment"
OF_SWANLAB = "use_swanlab is off"

IDLE: Mapping[str, tuple[str, ...]] = {
    OWN_WAY: (
        *("use_fast_tokenizer", "low_cpu_mem_usage", "use_reentrant_gc", "use_unsloth", "use_unsloth_gc", "use_v1_kernels", "offload_folder"),
        *("preprocessing_batch_size", "cache_dir", "gradient_checkpointing", "gradient_checkpointing_kwargs", "torch_compile", "attn"),
        *("torch_compile_backend", "torch_compile_mode"),
        *("dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_prefetch_factor", "eval_accumulation_steps", "tf32"),
        *("save_only_model", "save_safetensors", "save_on_each_node", "load_best_model_at_end", "remove_unused_columns", "label_names"),
        *("include_num_input_tokens_seen", "include_effective_tokens_per_second", "include_mfu", "logging_first_step", "logging_dir", "log_level"),
        *("logging_strategy", "logging_nan_inf_filter", "disable_tqdm", "print_param_status", "skip_memory_metrics", "ddp_backend"),
        *("ddp_bucket_cap_mb", "ddp_broadcast_buffers", "average_tokens_across_devices", "bf16_full_eval", "fp16_full_eval", "use_cpu"),
        *("local_rank", "data_seed", "fsdp_config", "deepspeed", "fsdp", "prediction_loss_only", "eval_on_start"),
        *("ignore_pad_token_for_loss", "upcast_layernorm", "upcast_lmhead_output", "use_cache", "use_kv_cache", "half_precision_backend"),
        *("eval_delay", "restore_callback_states_from_checkpoint", "ignore_data_skip", "past_index", "auto_find_batch_size", "use_liger_kernel"),
    ),
    "answers are written by `regimen predict RUN` after training, which has options of its own": (
        *("do_sample", "top_p", "top_k", "num_beams", "eval_num_beams", "max_length", "max_new_tokens", "temperature", "repetition_penalty"),
        *("length_penalty", "skip_special_tokens", "default_system", "generation_max_length", "generation_num_beams", "infer_backend"),
        *("infer_dtype", "vllm_maxlen", "vllm_gpu_util", "vllm_enforce_eager", "vllm_max_lora_rank", "sglang_maxlen"),
    ),
    "`regimen export RUN` writes and uploads a model after training": (
        *("export_device", "export_quantization_dataset", "export_quantization_nsamples", "export_quantization_maxlen", "export_legacy_format"),
        *("export_hub_model_id", "push_to_hub", "hub_model_id", "hub_strategy", "hub_private_repo"),
    ),
    MEDIA: (
        *("media_dir", "image_max_pixels", "image_min_pixels", "image_do_pan_and_scan", "crop_to_patches", "video_max_pixels", "video_min_pixels"),
        *("video_fps", "video_maxlen", "use_audio_in_video", "audio_sampling_rate", "freeze_vision_tower", "freeze_multi_modal_projector"),
        *("freeze_language_model", "image_resolution", "video_resolution"),
    ),
    UNUSED: (
        *("galore_target", "galore_rank", "galore_update_interval", "galore_scale", "galore_proj_type", "galore_layerwise"),
        *("apollo_target", "apollo_rank", "apollo_update_interval", "apollo_scale", "apollo_proj", "apollo_proj_type", "apollo_layerwise"),
        *("apollo_scale_type", "apollo_scale_front", "badam_mode", "badam_start_block", "badam_switch_mode", "badam_switch_interval"),
        *("badam_update_ratio", "badam_mask_mode", "badam_verbose", "pref_loss", "pref_beta", "pref_ftx", "dpo_label_smoothing", "simpo_gamma"),
        *("kto_chosen_weight", "kto_rejected_weight", "ppo_epochs", "ppo_buffer_size", "ppo_whiten_rewards", "ppo_target", "ppo_score_norm"),
        *("reward_model", "reward_model_type", "reward_model_adapters", "reward_model_quantization_bit", "ref_model", "ref_model_adapters"),
        *("ref_model_quantization_bit", "freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules", "lora_rank", "lora_alpha"),
        *("lora_dropout", "lora_target", "use_rslora", "use_dora", "pissa_init", "pissa_iter", "pissa_convert", "loraplus_lr_ratio"),
        *("loraplus_lr_embedding", "use_llama_pro", "buffer_size", "interleave_probs", "quantization_bit", "quantization_method"),
        *("quantization_type", "double_quantization", "additional_target", "create_new_adapter", "adapter_name_or_path", "lr_scheduler_kwargs"),
        *("oft_rank", "oft_block_size", "oft_target", "module_dropout", "quantization_device_map", "fp8_backend", "adapter_folder"),
        *("fp8_enable_fsdp_float8_all_gather", "greater_is_better", "metric_for_best_model", "early_stopping_steps", "init_special_tokens"),
    ),
    "the chat template decides, and answers are learned as they stand": ("enable_thinking", "preserve_thinking"),
    SECRET: ("hf_hub_token", "ms_hub_token", "om_hub_token", "hub_token", "swanlab_api_key", "swanlab_lark_secret", "swanlab_lark_webhook_url"),
    OF_TRACKERS: ("trackio_space_id",),
    OF_SWANLAB: ("use_swanlab", "swanlab_project", "swanlab_workspace", "swanlab_run_name", "swanlab_mode", "swanlab_logdir"),
}

# What would be learned differently. Stated as off, each is without effect.
REFUSED: Mapping[str, str] = {
    "additional_target": "modules beside the adapters cannot learn in whole",
    "add_special_tokens": "tokens are added as plain ones: use add_tokens",
    "new_special_tokens_config": "new tokens start at the mean of the others: use add_tokens",
    "compute_accuracy": "the accuracy of tokens is not measured. Leave it out",
    "disable_shuffling": "samples are always shuffled, by training.seed",
    "eval_on_each_dataset": "the sets are evaluated together. Leave it out",
    "freeze_original_embeddings": "the rows of added tokens learn with the others, or alone under an adapter",
    "fp8": "only the products of frozen matrices under adapters can be made in fp8: training.fp8=true. Leave it out",
    "group_by_length": "samples are drawn at random. Without padding (training.kernels) their lengths cost nothing",
    "label_smoothing_factor": "the next-token loss has no smoothing",
    "ld_alpha": "LD-DPO is not a loss of stage=dpo",
    "mixture_of_depths": "mixture of depths is not supported",
    "moe_aux_loss_coef": "the router's loss has the weight that the model's configuration gives it",
    "pref_bco_weight": "BCO is not a loss of stage=dpo",
    "shift_attn": "shifted attention is not supported",
    "tool_format": "tools are written by the chat template",
    "use_dft_loss": "the DFT loss is not supported",
    "use_mca": "Megatron is not supported",
    "ray_run_name": "Ray is not supported. Use cluster=slurm, or torchrun on each node",
    "use_ray": "Ray is not supported. Use cluster=slurm, or torchrun on each node",
}


def settle_others(draft: Draft) -> None:
    """Every argument that has no outcome yet gets one."""
    reasons = {name: why for why, names in IDLE.items() for name in names}
    for name, value in draft.given.items():
        if name in draft.outcomes:
            continue
        needless = row_of_needless(name)
        if name in REFUSED and (value.lower() if isinstance(value, str) else value) not in (*OFF, 0):
            draft.refuse(name, REFUSED[name])
        elif name in REFUSED:
            draft.idle(name, "off, as here")
        elif name in reasons:
            draft.idle(name, reasons[name])
        elif needless is not None:
            draft.idle(name, needless.why)
        elif value is None:
            draft.idle(name, "null: the default")
        else:
            draft.refuse(name, f"it is not an argument that is known here{nearest(name)}")


def nearest(name: str) -> str:
    known = [*(row.theirs for row in NAMES), *(theirs for row in NEEDLESS for theirs in row.theirs), *REFUSED]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    return f". Did you mean {near[0]}?" if near else ". Leave it out if it only changes speed or output"
