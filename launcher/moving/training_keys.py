"""The arguments of LLaMA-Factory as the keys of a run: optimizer, schedule, batch, precision, checkpoints, evaluation, sharding, tracking."""

from collections.abc import Mapping
from typing import Any

from conf.llamafactory import LIGER
from conf.metrics import HIGHER_IS_BETTER
from conf.optimizers import OPTIMIZERS
from conf.schedules import MIN_SHARE, SCHEDULES
from conf.trackers import TRACKERS
from launcher.moving.draft import OFF, Draft
from launcher.moving.sharding_keys import sharding

EVAL_STRATEGY = ("eval_strategy", "evaluation_strategy")  # the newer name and the older one
THEIR_TRACKERS = {"comet_ml": "comet"}


def training(draft: Draft) -> None:
    optimizer(draft)
    schedule(draft)
    batch(draft)
    precision(draft)
    kernels(draft)
    checkpoints(draft)
    evaluation(draft)
    sharding(draft)
    tracking(draft)


def optimizer(draft: Draft) -> None:
    own = [name for name in ("use_galore", "use_apollo", "use_badam", "use_muon", "use_adam_mini") if draft.switch(name)]
    if len(own) > 1:
        draft.refuse(own[1], f"a run has one optimizer, and {own[0]} is on too")
    elif own:
        {"use_galore": galore, "use_apollo": apollo, "use_badam": badam, "use_muon": muon, "use_adam_mini": adam_mini}[own[0]](draft)
    else:
        by_name(draft)
    for name in ("use_galore", "use_apollo", "use_badam", "use_muon", "use_adam_mini"):
        draft.idle(name, "off, as here")
    draft.numbers_to(learning_rate="optim.lr", weight_decay="optim.weight_decay", max_grad_norm="optim.max_grad_norm")
    draft.numbers_to(adam_beta1="optim.beta1", adam_beta2="optim.beta2", adam_epsilon="optim.eps")


def by_name(draft: Draft) -> None:
    name = str(draft.value("optim"))
    ours = next((ours for ours, row in OPTIMIZERS.items() if row.transformers == name), name if name in OPTIMIZERS else None)
    if ours is None:
        known = sorted(row.transformers for row in OPTIMIZERS.values() if row.transformers)
        draft.refuse("optim", f"{name} is not an optimizer here. Use one of: {', '.join(known)}")
    else:
        draft.put("optim", "optim", ours)


def refuse_other(draft: Draft, **wanted: Any) -> None:
    """Arguments that have one possible value here."""
    for name, value in wanted.items():
        if name not in draft.outcomes and draft.value(name) not in (value, None, False) and draft.texts(name) != [value]:
            draft.refuse(name, f"{draft.value(name)} is not possible, only {value}" if value else "it is not possible here")
        draft.same(name, "as here")


def galore(draft: Draft) -> None:
    in_8_bits = draft.value("optim") == "adamw_8bit"
    draft.put("use_galore", "optim", "galore_8bit" if in_8_bits else "galore")
    draft.same("optim", "optim: galore" + ("_8bit" if in_8_bits else ""))
    draft.numbers_to(galore_rank="optim.rank", galore_update_interval="optim.update_interval", galore_scale="optim.scale")
    if set(draft.texts("galore_target")) == {"mlp", "self_attn"}:
        draft.same("galore_target", "all matrices of the layers, as here")
    refuse_other(draft, galore_target="all", galore_proj_type="std", galore_layerwise=None)


def apollo(draft: Draft) -> None:
    draft.put("use_apollo", "optim", "apollo")
    draft.same("optim", "optim: apollo")
    draft.numbers_to(apollo_rank="optim.rank", apollo_update_interval="optim.update_interval", apollo_scale="optim.scale")
    draft.put("apollo_scale_type", "optim.scale_by", draft.value("apollo_scale_type"))
    refuse_other(draft, apollo_target="all", apollo_proj="random", apollo_proj_type="std", apollo_layerwise=None, apollo_scale_front=None)


def badam(draft: Draft) -> None:
    draft.put("use_badam", "optim", "badam")
    draft.same("optim", "optim: badam")
    draft.put("badam_switch_mode", "optim.order", draft.value("badam_switch_mode"))
    if draft.value("badam_switch_mode") not in ("ascending", "descending", "random"):
        draft.refuse("badam_switch_mode", "one block alone is regime=freeze. Use ascending, descending or random")
    draft.number_to("badam_switch_interval", "optim.switch_interval")
    if (draft.number("badam_switch_interval") or 0) < 1:
        draft.refuse("badam_switch_interval", "one block alone is regime=freeze. Use 1 or more")
    refuse_other(draft, badam_mode="layer", badam_start_block=None)
    for name in ("badam_verbose", "badam_update_ratio", "badam_mask_mode"):
        draft.idle(name, "it is not one of badam_mode: layer, or changes only what is printed")


def muon(draft: Draft) -> None:
    draft.put("use_muon", "optim", "muon")
    draft.same("optim", "optim: muon")


def adam_mini(draft: Draft) -> None:
    draft.refuse("use_adam_mini", "Adam-mini is not an optimizer here. adamw_8bit and badam need less memory too")


def schedule(draft: Draft) -> None:
    name, settings = draft.value("lr_scheduler_type"), draft.value("lr_scheduler_kwargs")
    if name not in SCHEDULES:
        draft.refuse("lr_scheduler_type", f"{name} is not a schedule here. Use one of: {', '.join(SCHEDULES)}")
    else:
        draft.put("lr_scheduler_type", "optim.scheduler", name)
    as_here = name == "cosine_with_min_lr" and isinstance(settings, Mapping) and dict(settings) == {"min_lr_rate": MIN_SHARE}
    if settings not in OFF and not as_here:
        draft.refuse("lr_scheduler_kwargs", "schedules have no settings here. cosine_with_min_lr ends at a tenth of the peak (min_lr_rate: 0.1)")
    draft.same("lr_scheduler_kwargs", f"optim.scheduler: {name}")
    steps, share = draft.number("warmup_steps") or 0, draft.share("warmup_ratio") or 0
    if name == "constant":
        for each in ("warmup_steps", "warmup_ratio"):
            draft.idle(each, "lr_scheduler_type: constant has no warmup")
    elif steps:  # from 1 on a number of steps, below a share, there as here; it wins over the ratio
        draft.put("warmup_steps", "optim.warmup", steps)
        draft.idle("warmup_ratio", "warmup_steps decides")
    else:
        draft.put("warmup_ratio", "optim.warmup", share)
        draft.idle("warmup_steps", "0: warmup_ratio decides")
    draft.number_to("num_train_epochs", "training.epochs")
    if (draft.number("max_steps") or -1) > 0:
        draft.number_to("max_steps", "training.max_steps")
    else:
        draft.idle("max_steps", "num_train_epochs decides")


def batch(draft: Draft) -> None:
    draft.number_to("per_device_train_batch_size", "training.micro_batch")
    draft.number_to("gradient_accumulation_steps", "training.accumulation")
    if draft.value("neftune_noise_alpha") is not None:
        draft.number_to("neftune_noise_alpha", "training.neftune_alpha")
    draft.number_to("seed", "training.seed")
    draft.switch_to("full_determinism", "training.deterministic")
    if draft.stated("logging_steps"):
        draft.number_to("logging_steps", "training.log_interval")
    if draft.value("dataloader_num_workers"):
        draft.number_to("dataloader_num_workers", "training.dataloader_workers")
    else:
        draft.idle("dataloader_num_workers", "0, as here")


def precision(draft: Draft) -> None:
    stated = [name for name in ("pure_bf16", "bf16", "fp16") if draft.switch(name)]
    if "bf16" in stated and "fp16" in stated:
        draft.refuse("fp16", "bf16 is on too. Choose one")
    ours = {"pure_bf16": "bf16", "bf16": "bf16_amp", "fp16": "fp16_amp"}
    if stated:
        draft.put(stated[0], "training.precision", ours[stated[0]])
        draft.same("bf16", f"training.precision: {ours[stated[0]]}")
    else:
        draft.assume("training.precision", "bf16_amp", "the file states no precision, and the model's own is used there")
    for name in ours:
        draft.idle(name, "off, as here")


def kernels(draft: Draft) -> None:
    if "disable_gradient_checkpointing" in draft.given:
        draft.put("disable_gradient_checkpointing", "training.gradient_checkpointing", not draft.switch("disable_gradient_checkpointing"))
    name = str(draft.value("flash_attn"))
    if name in ("sdpa", "disabled"):
        draft.put("flash_attn", "training.attention", "eager" if name == "disabled" else "sdpa")
    else:
        draft.idle("flash_attn", "the fastest form that works is chosen: training.attention")
    draft.idle("enable_liger_kernel", f"{LIGER}: training.loss, training.kernels")


def checkpoints(draft: Draft) -> None:
    strategy, interval = str(draft.value("save_strategy")), draft.number("save_steps")
    if strategy == "no":
        draft.put("save_strategy", "checkpoint.interval", 0)
        draft.idle("save_steps", "save_strategy: no")
    elif strategy == "epoch":
        draft.refuse("save_strategy", "checkpoints are saved by steps. Write save_strategy: steps and save_steps: N")
        draft.idle("save_steps", "save_strategy is refused")
    elif interval is not None and 0 < interval < 1:
        draft.refuse("save_steps", "a share of the run is not possible. Give a number of steps")
    else:
        draft.number_to("save_steps", "checkpoint.interval")
        draft.same("save_strategy", "checkpoint.interval")
    if draft.value("save_total_limit") is not None:
        draft.number_to("save_total_limit", "checkpoint.keep")
    if draft.on("resume_from_checkpoint"):
        draft.refuse("resume_from_checkpoint", "a checkpoint of another program cannot be gone on with. Its adapter can: adapter_name_or_path")
    draft.idle("resume_from_checkpoint", "off, as here")


def evaluation(draft: Draft) -> None:
    """Without held-out data there is none; with it, eval_strategy says when."""
    sets, share = draft.texts("eval_dataset"), draft.number("val_size") or 0
    named = next((name for name in EVAL_STRATEGY if draft.stated(name)), EVAL_STRATEGY[0])
    strategy = str(draft.value(named) or "no").lower()
    strategy = "no" if strategy == "false" else strategy
    if share >= 1:
        draft.refuse("val_size", f"{share} samples: only a share below 1 can be held out, such as val_size: 0.1")
    elif share:
        draft.put("val_size", "data.validation_share", share)
    if sets:
        draft.put("eval_dataset", "data.evaluation_sets", sets)
    if not sets and not share:
        for name in ("val_size", *EVAL_STRATEGY, "eval_steps", "per_device_eval_batch_size", "load_best_model_at_end"):
            draft.idle(name, "no data is held out")
        return
    draft.number_to("per_device_eval_batch_size", "evaluation.micro_batch")
    if draft.value("evaluation_strategy") not in (None, draft.value(named)):
        draft.refuse("evaluation_strategy", "eval_strategy, its newer name, is stated too. Leave one of them out")
    if strategy == "epoch":
        draft.refuse(named, f"evaluations are made by steps. Write {named}: steps and eval_steps: N")
    elif strategy == "no":
        draft.assume("evaluation.interval", 0, f"{named} is no")
        for name in EVAL_STRATEGY:
            draft.same(name, "evaluation.interval: 0")
        draft.idle("eval_steps", f"{named} is no")
    else:
        draft.number_to("eval_steps" if draft.stated("eval_steps") else "logging_steps", "evaluation.interval")
        for name in EVAL_STRATEGY:
            draft.same(name, "evaluation.interval")
    draft.switch_to("load_best_model_at_end", "evaluation.best_at_end")
    if draft.stated("metric_for_best_model"):
        metric = draft.text("metric_for_best_model") or ""
        draft.put("metric_for_best_model", "evaluation.metric", metric if metric.startswith("eval_") else f"eval_{metric}")
    higher = HIGHER_IS_BETTER.get(str(draft.values.get("evaluation.metric", "eval_loss")))
    if draft.stated("greater_is_better") and higher is not None and draft.switch("greater_is_better") != higher:
        draft.refuse("greater_is_better", f"of this metric the {'higher' if higher else 'lower'} value is the better one here")
    draft.same("greater_is_better", "evaluation.metric: its name decides")
    if draft.value("early_stopping_steps") is not None:
        draft.number_to("early_stopping_steps", "evaluation.patience")


def tracking(draft: Draft) -> None:
    swanlab(draft)
    said = [name.lower() for name in draft.texts("report_to") if name.lower() not in ("none", "null")]
    named = list(dict.fromkeys([*(THEIR_TRACKERS.get(name, name) for name in said), *(["swanlab"] if draft.switch("use_swanlab") else [])]))
    if unknown := [name for name in named if name not in TRACKERS]:
        draft.refuse("report_to", f"{', '.join(unknown)} is not possible. Use one or several of: {', '.join(TRACKERS)}")
    elif named:
        by = "report_to" if said else "use_swanlab"
        draft.put(by, "tracking", named[0])
        if named[1:]:
            draft.put(by, "tracking.also", named[1:])
            draft.same("use_swanlab", "tracking.also: [swanlab]")
    draft.same("report_to", "tracking: none")
    if draft.on("run_name"):
        draft.text_to("run_name", "name")
    if draft.on("output_dir"):
        draft.text_to("output_dir", "output", "each run gets a folder of its own there")


def swanlab(draft: Draft) -> None:
    if not draft.switch("use_swanlab"):
        return
    draft.text_to("swanlab_project", "tracking.project")
    if draft.on("swanlab_workspace"):
        draft.text_to("swanlab_workspace", "tracking.entity")
    draft.idle("swanlab_run_name", "it is named as the run folder")
    draft.idle("swanlab_logdir", "the run folder holds it")
    if draft.value("swanlab_mode") in (None, "cloud"):
        draft.idle("swanlab_mode", "cloud, as here")
    else:
        draft.refuse("swanlab_mode", "it is stated in the environment: set SWANLAB_MODE=local for the run, and leave it out here")
