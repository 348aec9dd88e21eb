"""The keyword arguments of every sharding and precision; TrainingArguments itself is built where no engine is needed."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from conf.run_dir import RunDir
from conf.schema import Run
from launcher.composition.compose import choices
from tests.described import described
from trainers.arguments import keep_output_dtype, training_arguments

RUN_DIR = RunDir(Path("/runs/demo/1"))
PRECISIONS = ["bf16_amp", "fp16_amp", "bf16", "fp32"]
ZERO = {"zero1": 1, "zero2": 2, "zero3": 3, "zero2_offload": 2, "zero3_offload": 3}
BF16 = {"bf16": {"enabled": True, "check_grad_overflow": False}}  # the engine would leave a bad step out without a word


@cache
def composed(*overrides: str) -> Run:
    return described("model=demo", "data=demo", *overrides)


def keywords(*overrides: str, evaluation: bool = False, node: str = "cpu") -> dict[str, Any]:
    return training_arguments(composed(f"node={node}", *overrides), RUN_DIR, evaluation)


def zero_section(sharding: str, node: str = "cpu") -> dict[str, Any]:
    section = keywords(f"sharding={sharding}", node=node)["deepspeed"]["zero_optimization"]
    assert isinstance(section, dict)
    return section


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("sharding", ["ddp", "fsdp2", *ZERO])
def test_each_sharding_sets_its_own_engine_and_no_other(sharding: str, precision: str) -> None:
    found = keywords(f"sharding={sharding}", f"training.precision={precision}")
    assert ("deepspeed" in found) == (sharding in ZERO)
    assert ("fsdp" in found) == ("fsdp_config" in found) == (sharding == "fsdp2")
    assert ("ddp_bucket_cap_mb" in found) == (sharding == "ddp")
    assert set(found) <= set(TrainingArguments.__dataclass_fields__)


def test_every_built_in_sharding_is_covered_here() -> None:
    assert set(choices("sharding")) == {"ddp", "fsdp2", *ZERO}


@pytest.mark.parametrize("sharding", ["ddp", "fsdp2"])
@pytest.mark.parametrize(
    ("precision", "bf16", "fp16"), [("bf16_amp", True, False), ("fp16_amp", False, True), ("bf16", False, False), ("fp32", False, False)]
)
def test_autocast_is_for_trained_weights_in_fp32(sharding: str, precision: str, bf16: bool, fp16: bool) -> None:
    found = keywords(f"sharding={sharding}", f"training.precision={precision}")
    assert (found["bf16"], found["fp16"]) == (bf16, fp16)


@pytest.mark.parametrize("sharding", ZERO)
@pytest.mark.parametrize(
    ("precision", "flags", "engine"),
    [
        ("bf16_amp", (True, False), BF16),
        ("fp16_amp", (False, True), {"fp16": {"enabled": True}}),
        ("bf16", (True, False), BF16),  # with bf16 masters: tests/distributed/test_sharding.py
        ("fp32", (False, False), {"bf16": {"enabled": False}, "fp16": {"enabled": False}}),
    ],
)
def test_under_zero_the_flags_and_the_engine_agree(sharding: str, precision: str, flags: tuple[bool, bool], engine: dict[str, Any]) -> None:
    found = keywords(f"sharding={sharding}", f"training.precision={precision}")
    assert (found["bf16"], found["fp16"]) == flags
    assert {key: value for key, value in found["deepspeed"].items() if key in ("bf16", "fp16")} == engine


@pytest.mark.parametrize(("sharding", "stage"), ZERO.items())
def test_the_zero_stage_is_the_choices(sharding: str, stage: int) -> None:
    section = zero_section(sharding)
    assert section["stage"] == stage
    assert "stage3_gather_16bit_weights_on_model_save" not in section  # trainers/checkpoints/streamed.py gathers them one by one


@pytest.mark.parametrize(("node", "pinned"), [("cpu", False), ("h100_80", True)])
def test_offloading_pins_host_memory_only_beside_a_gpu(node: str, pinned: bool) -> None:
    to_host = {"device": "cpu", "pin_memory": pinned}
    both, one, none = (zero_section(sharding, node) for sharding in ("zero3_offload", "zero2_offload", "zero3"))
    assert (both["offload_optimizer"], both["offload_param"]) == (to_host, to_host)
    assert (one["offload_optimizer"], one.get("offload_param")) == (to_host, None)
    assert not [key for key in none if key.startswith("offload")]


@pytest.mark.parametrize("key", ["train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size", "gradient_clipping"])
def test_deepspeed_takes_batch_and_clipping_from_the_arguments(key: str) -> None:
    assert keywords("sharding=zero2")["deepspeed"][key] == "auto"


def test_fsdp_is_the_second_version_and_saves_whole_weights() -> None:
    found = keywords("sharding=fsdp2", "sharding.reshard_after_forward=false")
    config = found["fsdp_config"]
    assert found["fsdp"] is True
    assert (config["version"], config["reshard_after_forward"], config["state_dict_type"]) == (2, False, "FULL_STATE_DICT")


@pytest.mark.parametrize(("precision", "computed"), [("bf16_amp", torch.bfloat16), ("fp16_amp", torch.float16), ("bf16", None), ("fp32", None)])
def test_fsdp_computes_in_16_bits_under_autocast_and_answers_in_the_dtype_of_the_model(precision: str, computed: torch.dtype | None) -> None:
    run = composed("sharding=fsdp2", f"training.precision={precision}")
    arguments = TrainingArguments(**{**training_arguments(run, RUN_DIR, False), "bf16": False, "fp16": False, "use_cpu": True})
    keep_output_dtype(arguments, run)
    policy = arguments.fsdp_plugin_args.get("mixed_precision_policy")
    assert (policy.param_dtype, policy.reduce_dtype, policy.output_dtype) == (computed, computed, None) if computed else policy is None


@pytest.mark.parametrize(
    ("optim", "cpu", "gpu"),
    [
        ("adamw", "adamw_torch", "adamw_torch_fused"),
        ("adamw_8bit", "adamw_bnb_8bit", "adamw_bnb_8bit"),
        ("paged_adamw_8bit", "paged_adamw_8bit", "paged_adamw_8bit"),
        ("adafactor", "adafactor", "adafactor"),
        ("sgd", "sgd", "sgd"),
        ("adamw_foreach", "adamw_torch", "adamw_torch"),
        ("paged_adamw", "paged_adamw_32bit", "paged_adamw_32bit"),
        ("lion", "lion_32bit", "lion_32bit"),
        ("lion_8bit", "lion_8bit", "lion_8bit"),
        ("paged_lion_8bit", "paged_lion_8bit", "paged_lion_8bit"),
    ],
)
def test_optimizers_go_by_transformers_names(optim: str, cpu: str, gpu: str) -> None:
    assert keywords(f"optim={optim}")["optim"] == cpu
    assert keywords(f"optim={optim}", node="h100_80")["optim"] == gpu


def test_batches_are_those_of_the_settled_run() -> None:
    found = keywords("training.micro_batch=4", "training.effective_batch=24", "evaluation.micro_batch=3")
    assert (found["per_device_train_batch_size"], found["gradient_accumulation_steps"], found["per_device_eval_batch_size"]) == (
        4,
        3,
        3,
    )  # 24 / (4 x 2 ranks)


def test_steps_win_over_epochs() -> None:
    assert (keywords("training.max_steps=7")["max_steps"], keywords()["max_steps"]) == (7, -1)


@pytest.mark.parametrize(("interval", "has_data", "strategy"), [(5, True, "steps"), (0, True, "no"), (5, False, "no")])
def test_evaluations_need_an_interval_and_data(interval: int, has_data: bool, strategy: str) -> None:
    assert keywords(f"evaluation.interval={interval}", evaluation=has_data)["eval_strategy"] == strategy


@pytest.mark.parametrize(("interval", "strategy"), [(5, "steps"), (0, "no")])
def test_checkpoints_are_written_aside_at_their_interval(interval: int, strategy: str) -> None:
    found = keywords(f"checkpoint.interval={interval}")
    assert found["save_strategy"] == strategy
    assert found["output_dir"] == "/runs/demo/1/checkpoints/.making"


def test_the_best_checkpoint_is_the_one_of_the_lowest_evaluation_loss() -> None:
    found = keywords("evaluation.best_at_end=true", "evaluation.interval=5", "checkpoint.interval=5", evaluation=True)
    assert (found["load_best_model_at_end"], found["metric_for_best_model"], found["greater_is_better"]) == (True, "eval_loss", False)


def test_a_fused_loss_fuses_the_loss_alone() -> None:
    assert "use_liger_kernel" not in keywords()
    found = keywords("training.loss=fused", node="h100_80")
    assert [kernel for kernel, used in found["liger_kernel_config"].items() if used] == ["fused_linear_cross_entropy"]
    assert found["liger_kernel_config"]["geglu"] is False  # what it does not name, liger switches on: gemma's MLP was replaced


def test_the_seed_is_also_that_of_the_data() -> None:
    found = keywords("training.seed=7")
    assert (found["seed"], found["data_seed"]) == (7, 7)


@pytest.mark.parametrize("tracking", ["none", "tensorboard", "wandb"])
def test_the_trainer_itself_reports_to_nobody(tracking: str) -> None:
    assert keywords(f"tracking={tracking}")["report_to"] == []


def test_transformers_takes_the_arguments_of_a_plain_run_as_they_are(tmp_path: Path) -> None:
    run = composed("node=cpu", "training.precision=fp32", "optim.warmup=0.1", "training.max_steps=50", "evaluation.interval=5")
    keyword = training_arguments(replace(run, name="a"), RunDir(tmp_path), True)
    arguments = TrainingArguments(**keyword)
    assert arguments.get_warmup_steps(50) == 5
    assert (arguments.device.type, arguments.seed, arguments.logging_nan_inf_filter) == ("cpu", 42, False)
    assert arguments.accelerator_config.use_seedable_sampler
