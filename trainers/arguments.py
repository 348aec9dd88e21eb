"""A run as keyword arguments of transformers.TrainingArguments, sharding included: the one place where it is applied."""

from typing import Any

import torch
from peft import PeftModel
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import PreTrainedModel, Trainer, TrainingArguments

from conf.buckets import LAYERS_AHEAD, zero_bucket
from conf.exchanges import reshards, whole_layers
from conf.metrics import HIGHER_IS_BETTER
from conf.optimizers import optimizer_row
from conf.run_dir import RunDir
from conf.schedules import MIN_SHARE
from conf.schema import Ddp, Fsdp, Run, Zero

REPLACED = "adamw_torch"  # given to a Trainer until trainers/optimizers/build.py gives it the optimizer of the run
STAGING = ".making"  # checkpoints are written here and renamed when they are whole


def training_arguments(run: Run, run_dir: RunDir, has_evaluation: bool) -> dict[str, Any]:
    """Keyword arguments common to every TrainingArguments."""
    return {
        **batch_arguments(run),
        **optimizer_arguments(run),
        **precision_arguments(run),
        **interval_arguments(run, run_dir, has_evaluation),
        **sharding_arguments(run),
        "seed": run.training.seed,
        "data_seed": run.training.seed,
        "use_cpu": run.node.gpus == 0,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "accelerator_config": {"dispatch_batches": False},  # of a stream each rank reads its own share; rank 0 could not cut padded batches of others
        "prediction_loss_only": True,  # no logits are kept over an evaluation
        "report_to": [],  # trainers/callbacks/integrations.py does
        "run_name": run_dir.path.parent.name + "/" + run_dir.path.name,
        "neftune_noise_alpha": run.training.neftune_alpha,
        **loss_arguments(run),
    }


def batch_arguments(run: Run) -> dict[str, Any]:
    training = run.training
    return {
        "per_device_train_batch_size": training.micro_batch,
        "per_device_eval_batch_size": run.evaluation.micro_batch,
        "gradient_accumulation_steps": training.accumulation,
        "num_train_epochs": training.epochs,
        "max_steps": training.max_steps or -1,
        "dataloader_num_workers": training.dataloader_workers,
        "dataloader_pin_memory": bool(run.node.gpus),
        "gradient_checkpointing": bool(training.gradient_checkpointing),  # of a number, trainers/regimes/layers.py says which layers
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if training.gradient_checkpointing else None,
    }


def optimizer_arguments(run: Run) -> dict[str, Any]:
    optim = run.optim
    return {
        "optim": name_in_transformers(run),
        "learning_rate": optim.lr,
        "weight_decay": optim.weight_decay,
        "adam_beta1": optim.beta1,
        "adam_beta2": optim.beta2,
        "adam_epsilon": optim.eps,
        "max_grad_norm": optim.max_grad_norm,
        "lr_scheduler_type": optim.scheduler,
        "lr_scheduler_kwargs": {"min_lr_rate": MIN_SHARE} if optim.scheduler == "cosine_with_min_lr" else None,
        "warmup_steps": optim.warmup,
    }


def name_in_transformers(run: Run) -> str:
    row = optimizer_row(run.optim.name)
    if row.transformers is None:
        return REPLACED
    return row.transformers if run.node.gpus or row.on_cpu is None else row.on_cpu


def precision_arguments(run: Run) -> dict[str, Any]:
    """Autocast flags. Pure bf16 needs none: the weights are loaded in bf16."""
    precision = run.training.precision
    # under DeepSpeed these flags choose its engine, and pure bf16 is an engine of bf16 with bf16 masters
    engine_bf16 = precision == "bf16" and isinstance(run.sharding, Zero)
    return {"bf16": precision == "bf16_amp" or engine_bf16, "fp16": precision == "fp16_amp", "tf32": None}


def interval_arguments(run: Run, run_dir: RunDir, has_evaluation: bool) -> dict[str, Any]:
    evaluating = has_evaluation and run.evaluation.interval > 0
    return {
        "output_dir": str(run_dir.checkpoints / STAGING),
        "logging_steps": run.training.log_interval,
        "logging_nan_inf_filter": False,  # a NaN must be visible in the log, not averaged away
        "save_strategy": "steps" if run.checkpoint.interval else "no",
        "save_steps": run.checkpoint.interval or 1,
        "eval_strategy": "steps" if evaluating else "no",
        "eval_steps": run.evaluation.interval or None,
        "load_best_model_at_end": run.evaluation.best_at_end,
        "metric_for_best_model": run.evaluation.metric if run.evaluation.best_at_end else None,
        "greater_is_better": HIGHER_IS_BETTER[run.evaluation.metric] if run.evaluation.best_at_end else None,
    }


def loss_arguments(run: Run) -> dict[str, Any]:
    if run.training.loss != "fused" or run.training.kernels == "fused":  # the second has a fused loss of its own
        return {}
    # of liger's kernels only the loss: the others change the rounding of every layer
    others = ("cross_entropy", "rope", "rms_norm", "layer_norm", "swiglu", "geglu", "relu_squared")
    return {"use_liger_kernel": True, "liger_kernel_config": {"fused_linear_cross_entropy": True, **dict.fromkeys(others, False)}}


def sharding_arguments(run: Run) -> dict[str, Any]:
    sharding = run.sharding
    if isinstance(sharding, Zero):
        return {"deepspeed": deepspeed_config(run, sharding)}
    if isinstance(sharding, Fsdp):
        return {"fsdp": True, "fsdp_config": fsdp_config(sharding, run)}
    assert isinstance(sharding, Ddp)
    return {"ddp_bucket_cap_mb": sharding.bucket_mb, "ddp_find_unused_parameters": False}


def deepspeed_config(run: Run, zero: Zero) -> dict[str, Any]:
    """DeepSpeed's JSON. Batch sizes and clipping are `auto`: TrainingArguments is their one home."""
    optimization: dict[str, Any] = {"stage": zero.stage, "overlap_comm": bool(run.node.gpus), "contiguous_gradients": True}
    if zero.stage < 3:
        # A bucket is reduced where it lies. With true DeepSpeed 0.19.8 reduces a copy of it, as many bytes, and copies each rank's part back.
        optimization["reduce_scatter"] = False
    if zero.stage == 3:
        optimization |= {
            "reduce_bucket_size": "auto",
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
        }
    if zero.offload_optimizer:
        optimization["offload_optimizer"] = {"device": "cpu", "pin_memory": bool(run.node.gpus)}
    if zero.offload_params:
        optimization["offload_param"] = {"device": "cpu", "pin_memory": bool(run.node.gpus)}
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
        "gradient_clipping": "auto",
        "zero_optimization": optimization,
        "zero_allow_untested_optimizer": True,
        "timers": {"throughput": {"enabled": False}},  # it waits for the GPU twice a step
        **engine_precision(run.training.precision),
    }


def engine_precision(precision: str) -> dict[str, Any]:
    """DeepSpeed's number formats; pure bf16 gets its masters in trainers/optimizers/build.py."""
    if precision == "fp16_amp":
        return {"fp16": {"enabled": True}}
    if precision in ("bf16_amp", "bf16"):
        return {"bf16": {"enabled": True, "check_grad_overflow": False}}  # a bad step would be left out without a word: trainers/callbacks/finite.py
    return {"bf16": {"enabled": False}, "fp16": {"enabled": False}}


def fsdp_config(sharding: Fsdp, run: Run) -> dict[str, Any]:
    return {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "reshard_after_forward": reshards(sharding),
        "state_dict_type": "FULL_STATE_DICT",
        "cpu_ram_efficient_loading": False,
    }


def choose_buckets(trainer: Trainer, run: Run) -> None:
    """What depends on the number of gradients that are reduced, which the model says, and what TrainingArguments has no name for."""
    handler, plugin = trainer.accelerator.ddp_handler, trainer.accelerator.state.deepspeed_plugin
    if isinstance(run.sharding, Zero) and run.sharding.stage < 3:
        plugin.deepspeed_config["zero_optimization"]["reduce_bucket_size"] = zero_bucket(elements(trainer.model, learned=True))
    elif whole_layers(run):
        plugin.deepspeed_config["zero_optimization"] |= layer_exchanges(trainer.model)
    elif isinstance(run.sharding, Ddp) and handler is not None:
        handler.gradient_as_bucket_view = True  # no second copy of the gradients, and none of their sums back


def layer_exchanges(model: PreTrainedModel | PeftModel) -> dict[str, Any]:
    """Keys of DeepSpeed by which a layer is one `leaf`: its weights are gathered together, and its gradients are one bucket."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    layers = [module for module in model.modules() if type(module).__name__ in (base._no_split_modules or ())]
    largest, learned = (max((elements(layer, learned) for layer in layers), default=0) for learned in (False, True))
    return {
        "leaf_module": {"classes": sorted({type(layer).__name__ for layer in layers})},
        "stage3_prefetch_bucket_size": LAYERS_AHEAD * largest,
        "reduce_bucket_size": max(1, learned),
    }


def elements(module: torch.nn.Module, learned: bool) -> int:
    """Of its weights, or of those that learn: whole ones, also where this rank holds a share (`ds_numel`)."""
    weights = (weight for weight in module.parameters() if weight.requires_grad or not learned)
    return sum(getattr(weight, "ds_numel", weight.numel()) for weight in weights)


def keep_output_dtype(arguments: TrainingArguments, run: Run) -> None:
    """Under autocast, accelerate would make FSDP2 round all outputs of a model to 16 bits: the loss, and the logits that TRL needs in fp32."""
    dtypes = {"bf16_amp": torch.bfloat16, "fp16_amp": torch.float16}
    if isinstance(run.sharding, Fsdp) and run.training.precision in dtypes:
        dtype = dtypes[run.training.precision]
        arguments.fsdp_plugin_args["mixed_precision_policy"] = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=dtype)
