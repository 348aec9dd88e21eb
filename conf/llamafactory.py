"""LLaMA-Factory's names and the keys that mean the same here, one row a name.

docs/guides/llamafactory.md and the last column of docs/reference/keys.md are made from this table (docs/make_keys.py), and the message
about a key that is one of these names is too (launcher/composition/spelling.py).
"""

from dataclasses import dataclass

SAME = "same"
LIGER = "on GPUs the loss and the kernels are chosen by what fits and is fastest"


@dataclass(frozen=True)
class Name:
    theirs: str
    ours: str  # a key; without a dot, a group of choices
    values: str  # how they translate; what begins with `same` keeps them


NAMES: tuple[Name, ...] = (
    Name("stage", "stage", "same names; `pref_loss: orpo` and `simpo` are stages of their own here"),
    Name(
        "pref_loss",
        "stage.loss",
        "with `stage=dpo`: `sigmoid`, `hinge` and `ipo` keep their names; TRL no longer has `kto_pair`; for `orpo` and `simpo` see `stage`",
    ),
    Name("pref_beta", "stage.beta", "same, in `dpo`, `kto`, `orpo` and `simpo`"),
    Name("pref_ftx", "stage.sft_weight", "same, with `stage=dpo`; `simpo` has it too"),
    Name("dpo_label_smoothing", "stage.label_smoothing", "same, with `stage=dpo`"),
    Name("simpo_gamma", "stage.margin", "same, with `stage=simpo`"),
    Name("kto_chosen_weight", "stage.desirable_weight", "same, with `stage=kto`"),
    Name("kto_rejected_weight", "stage.undesirable_weight", "same, with `stage=kto`"),
    Name(
        "reward_model",
        "stage.reward_model",
        "the folder of a run of `stage=rm`, or of any sequence classifier; adapters are merged, so `reward_model_type` is not needed",
    ),
    Name("ppo_epochs", "stage.epochs", "same"),
    Name("ppo_buffer_size", "stage.mini_batches", "the size of a rollout, in optimizer steps"),
    Name("ppo_whiten_rewards", "stage.whiten_rewards", "same"),
    Name("max_new_tokens", "stage.response_length", "for the answers of `ppo` and `grpo`"),
    Name("model_name_or_path", "model.path", "with `model=local`; a preset (`model=qwen2.5_0.5b`) sets it"),
    Name("model_revision", "model.revision", "same"),
    Name("add_tokens", "model.added_tokens", "a list; with an adapter, the rows of these tokens are trained too, and start at the mean"),
    Name("resize_vocab", "model.vocab_multiple", "added tokens always get rows; 64 pads to a multiple of 64, as LLaMA-Factory does"),
    Name("rope_scaling", "model.rope_scaling", "`linear`, `dynamic`, `yarn`"),
    Name("dataset", "data.sets", "a list; `mix:a,b` in one string is `[a,b]`"),
    Name("dataset_dir", "data.folder", "same; the registry's file name is `data.registry`"),
    Name("template", "data.template", "null: the tokenizer's own"),
    Name("cutoff_len", "data.cutoff", "tokens"),
    Name("max_samples", "data.max_samples", "per set"),
    Name("val_size", "data.validation_share", "only a share below 1"),
    Name("packing", "data.packing", "attention does not cross samples, as with `neat_packing`"),
    Name("mask_history", "data.train_history", "the opposite: `mask_history: true` is `data.train_history=false`"),
    Name("train_on_prompt", "data.mask_prompt", "the opposite: `train_on_prompt: true` is `data.mask_prompt=false`"),
    Name("eval_dataset", "data.evaluation_sets", "a list"),
    Name("mix_strategy", "data.mixing", "`concat` is `concatenate`; `interleave_under` and `interleave_over` keep their names"),
    Name("interleave_probs", "data.probabilities", "a list of numbers; without it the sets take turns"),
    Name("streaming", "data.streaming", "same; needs `training.max_steps`"),
    Name("buffer_size", "data.buffer", "same"),
    Name("tokenized_path", "data.cache", "used only if data, tokenizer, template and settings are the same as when it was made"),
    Name("split_special_tokens", "data.control_tokens", "`true` is `data.control_tokens=text`, for the texts of the data alone"),
    Name("preprocessing_num_workers", "data.workers", "null: every core"),
    Name("finetuning_type", "regime", "`full`, `freeze`, `lora`; `lora` with `quantization_bit` is `regime=qlora`"),
    Name("quantization_bit", "regime.bits", "8, 4 or 2, with `regime=qlora`"),
    Name("double_quantization", "regime.double_quant", "same"),
    Name("lora_rank", "regime.rank", "same"),
    Name("lora_alpha", "regime.alpha", "same"),
    Name("lora_dropout", "regime.dropout", "same"),
    Name("lora_target", "regime.targets", "a list; `all` is `[all-linear]`"),
    Name("use_rslora", "regime.rslora", "same"),
    Name("use_dora", "regime.dora", "same"),
    Name(
        "pissa_init",
        "regime.init",
        "`true` is `regime.init=pissa_niter_16`; the saved adapter always fits the original base, as with `pissa_convert: true`",
    ),
    Name("pissa_iter", "regime.init", "`pissa_niter_N`; -1 is `pissa`"),
    Name("loraplus_lr_ratio", "regime.lora_plus_ratio", "same"),
    Name(
        "adapter_name_or_path",
        "regime.adapter",
        "one folder, of an adapter or of the run that trained it; that adapter is trained further, as with `create_new_adapter: false`",
    ),
    Name(
        "use_llama_pro",
        "regime.new_blocks",
        "regimen inserts the blocks itself; with `freeze_trainable_layers: n` use `regime.new_blocks=n regime.layers=0`",
    ),
    Name("freeze_trainable_layers", "regime.layers", "same sign: n > 0 the last, n < 0 the first"),
    Name("freeze_trainable_modules", "regime.layers", "only `all`: whole layers learn"),
    Name("freeze_extra_modules", "regime.modules", "a list"),
    Name(
        "optim",
        "optim",
        "a choice: `adamw_torch_fused` is `adamw` (fused on a GPU) and `adamw_torch` is `adamw_foreach`; `adamw_8bit`, `paged_adamw_8bit`, "
        "`lion_8bit`, `paged_lion_8bit`, `adafactor` and `sgd` keep their names; `paged_adamw_32bit` is `paged_adamw`, `lion_32bit` is `lion`",
    ),
    Name("learning_rate", "optim.lr", "same"),
    Name("weight_decay", "optim.weight_decay", "same"),
    Name("adam_beta1", "optim.beta1", "same"),
    Name("adam_beta2", "optim.beta2", "same"),
    Name("adam_epsilon", "optim.eps", "same"),
    Name("max_grad_norm", "optim.max_grad_norm", "same"),
    Name("lr_scheduler_type", "optim.scheduler", "same names"),
    Name("warmup_ratio", "optim.warmup", "below 1: a share of all steps"),
    Name("warmup_steps", "optim.warmup", "from 1 on: steps"),
    Name("num_train_epochs", "training.epochs", "same"),
    Name("max_steps", "training.max_steps", "null instead of -1"),
    Name("per_device_train_batch_size", "training.micro_batch", "samples per rank"),
    Name("gradient_accumulation_steps", "training.accumulation", "null: chosen from `training.effective_batch`"),
    Name("fp16", "training.precision", "`fp16: true` is `training.precision=fp16_amp`"),
    Name("bf16", "training.precision", "`bf16: true` is `training.precision=bf16_amp`"),
    Name("pure_bf16", "training.precision", "`pure_bf16: true` is `training.precision=bf16`"),
    Name("disable_gradient_checkpointing", "training.gradient_checkpointing", "the opposite"),
    Name("flash_attn", "training.attention", "`auto` is `null`; `sdpa` is `sdpa`; `disabled` is `eager`; `fa2` on packed rows is `varlen`"),
    Name(
        "enable_liger_kernel",
        "training.loss",
        f"not needed: {LIGER}. `fused` is liger's loss; `chunked` avoids the logits without it, also on a CPU",
    ),
    Name("use_muon", "optim", "`true` is `optim=muon` (torch's own); `weight_decay` and the momentum are `optim.weight_decay` and `optim.beta1`"),
    Name(
        "use_galore",
        "optim",
        "`true` is `optim=galore` (with `optim: adamw_8bit`, `galore_8bit`), for all matrices of the layers, like `galore_target: all` and "
        "`galore_proj_type: std`",
    ),
    Name("galore_rank", "optim.rank", "same"),
    Name("galore_update_interval", "optim.update_interval", "same"),
    Name("galore_scale", "optim.scale", "same"),
    Name("use_apollo", "optim", "`true` is `optim=apollo`, with `apollo_proj: random`"),
    Name("apollo_rank", "optim.rank", "same"),
    Name("apollo_update_interval", "optim.update_interval", "same"),
    Name("apollo_scale", "optim.scale", "same"),
    Name("apollo_scale_type", "optim.scale_by", "same names"),
    Name("use_badam", "optim", "`true` is `optim=badam`, layer by layer like `badam_mode: layer`; a resume is exact"),
    Name("badam_switch_interval", "optim.switch_interval", "same"),
    Name("badam_switch_mode", "optim.order", "`ascending`, `descending`, `random`; `fixed` is `regime=freeze`"),
    Name("full_determinism", "training.deterministic", "same"),
    Name("neftune_noise_alpha", "training.neftune_alpha", "same"),
    Name("logging_steps", "training.log_interval", "same"),
    Name("dataloader_num_workers", "training.dataloader_workers", "same"),
    Name("seed", "training.seed", "same"),
    Name("save_steps", "checkpoint.interval", "same"),
    Name("save_total_limit", "checkpoint.keep", "same, at least 1"),
    Name("resume_from_checkpoint", "checkpoint.resume", "`newest` or `step-N`, with `regimen train resume=FOLDER`"),
    Name("eval_steps", "evaluation.interval", "same"),
    Name("per_device_eval_batch_size", "evaluation.micro_batch", "same"),
    Name("load_best_model_at_end", "evaluation.best_at_end", "by `evaluation.metric`"),
    Name("metric_for_best_model", "evaluation.metric", "`eval_loss`, `eval_reward_accuracy`, ...; the name decides whether higher is better"),
    Name("early_stopping_steps", "evaluation.patience", "evaluations without a better `evaluation.metric`"),
    Name("deepspeed", "sharding", "a choice instead of a JSON file: `zero1`, `zero2`, `zero3`, `zero2_offload`, `zero3_offload`"),
    Name("fsdp", "sharding", "`sharding=fsdp2`"),
    Name(
        "report_to", "tracking", "a choice: `none`, `tensorboard`, `wandb`, `mlflow`, `swanlab`, `trackio`, `comet`; further ones in `tracking.also`"
    ),
    Name("output_dir", "output", "the folder that holds all runs: each run gets its own folder, and none is overwritten"),
)


@dataclass(frozen=True)
class Needless:
    """Names that need no key here."""

    theirs: tuple[str, ...]
    why: str


NEEDLESS: tuple[Needless, ...] = (
    Needless(("plot_loss",), "the loss is always drawn, into `plots/loss.png` of the run folder"),
    Needless(
        ("do_train", "overwrite_output_dir", "overwrite_cache"),
        "the verb says what to do (`regimen train`), and every run has a new folder",
    ),
    Needless(
        ("do_eval", "eval_strategy"), "a run with `data.validation_share` or `data.evaluation_sets` is evaluated, as `evaluation.interval` says"
    ),
    Needless(("do_predict", "predict_with_generate"), "`regimen predict RUN` answers the held-out samples after training"),
    Needless(("save_strategy",), "`checkpoint.interval` says when checkpoints are saved"),
    Needless(("export_dir", "export_size", "export_quantization_bit"), "`regimen export RUN` writes a model after training"),
    Needless(("ddp_timeout", "ddp_find_unused_parameters"), "the sharding sets them"),
    Needless(("trust_remote_code",), "code from a model's repository is never run; architectures of transformers are supported"),
)


def row_of_name(theirs: str) -> Name | None:
    return next((row for row in NAMES if row.theirs == theirs), None)


def row_of_needless(theirs: str) -> Needless | None:
    return next((row for row in NEEDLESS if theirs in row.theirs), None)
