"""Training files of LLaMA-Factory mean the same here: batch, schedule, template, cutoff, data, adapter, worked out by hand from its documentation.

These cases are from the help of its arguments; those of its example files are in llamafactory_files.py.
"""

import math
from collections.abc import Mapping
from typing import Any

import pytest

from conf.llamafactory import NAMES
from conf.schedules import warmup_steps
from launcher.composition.compose import compose
from launcher.composition.described import described, in_grammar
from launcher.composition.names import known_keys
from launcher.moving.draft import REFUSED
from launcher.moving.translate import LLAMA_FACTORY
from tests.launcher.moving.llamafactory_files import LORA, SHARED, SWEEP, arguments

# The arguments that differ from those that most example files share, and keys that they have to give.
MET: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
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
    "qlora of 4 bits": (
        {"quantization_bit": 4, "quantization_method": "bnb", "lora_rank": 8},
        {**LORA, "regime": "qlora", "regime.bits": 4, "regime.double_quant": True},
    ),
    "qlora of 8 bits": ({"quantization_bit": 8}, {"regime": "qlora", "regime.bits": 8}),
    "qlora of 2 bits": ({"quantization_bit": 2, "quantization_method": "hqq"}, {"regime": "qlora", "regime.bits": 2}),
    "pissa without rounds": ({"pissa_init": True, "pissa_iter": -1}, {"regime.init": "pissa"}),
    "rslora and dora": ({"use_rslora": True, "use_dora": True}, {"regime.rslora": True, "regime.dora": True}),
    "galore": (
        {
            **{"finetuning_type": "full", "lora_target": None, "use_galore": True, "galore_target": "mlp,self_attn", "galore_rank": 128},
            **{"galore_scale": 2.0, "gradient_accumulation_steps": 1, "warmup_ratio": None, "warmup_steps": 0.1, "bf16": None, "pure_bf16": True},
        },
        {
            **{"optim": "galore", "optim.rank": 128, "optim.scale": 2, "optim.update_interval": 200, "optim.warmup": 0.1},
            **{"training.precision": "bf16", "training.accumulation": 1, "regime": "full"},
        },
    ),
    "apollo": (
        {"finetuning_type": "full", "use_apollo": True, "apollo_target": "all", "apollo_rank": 128, "apollo_scale": 32.0},
        {"optim": "apollo", "optim.rank": 128, "optim.scale": 32, "optim.scale_by": "channel"},
    ),
    "paged states of 8 bits": ({**SWEEP, "optim": "paged_adamw_8bit"}, {"optim": "paged_adamw_8bit"}),
    "another warmup": ({**SWEEP, "warmup_ratio": 0.1}, {"optim.warmup": 0.1}),
    "linear": ({**SWEEP, "lr_scheduler_type": "linear"}, {"optim.scheduler": "linear"}),
    "fsdp of gradients and states alone": (
        {"finetuning_type": "full", "fsdp": "shard_grad_op auto_wrap"},
        {"sharding": "fsdp2", "sharding.reshard_after_forward": False},
    ),
    "a name of the run": (
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
    "the older name of eval_strategy": (
        {"val_size": 0.1, "eval_strategy": None, "evaluation_strategy": "steps", "eval_steps": 50},
        {"evaluation.interval": 50},
    ),
    "no evaluation, by the older name": ({"val_size": 0.1, "eval_strategy": None, "evaluation_strategy": "no"}, {"evaluation.interval": 0}),
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
    "Adam-mini": ({"use_adam_mini": True, "finetuning_type": "full"}, "use_adam_mini"),
    "tokens with a description": ({"new_special_tokens_config": "tokens.yaml"}, "new_special_tokens_config"),
    "smoothed labels": ({**SWEEP, "label_smoothing_factor": 0.05}, "label_smoothing_factor"),
    "grouped by length": ({**SWEEP, "group_by_length": True}, "group_by_length"),
    "fp8": ({"fp8": True}, "fp8"),
    "bits that nobody makes": ({"quantization_bit": 3, "quantization_method": "hqq"}, "quantization_bit"),
    "4 bits by hqq": ({"quantization_bit": 4, "quantization_method": "hqq"}, "quantization_bit"),
    "fp4": ({"quantization_bit": 4, "quantization_type": "fp4"}, "quantization_type"),
    "a count of held-out samples": ({"val_size": 100}, "val_size"),
    "evaluation by epochs": ({"val_size": 0.1, "eval_strategy": "epoch"}, "eval_strategy"),
    "evaluation by epochs, by its older name": ({"val_size": 0.1, "eval_strategy": None, "evaluation_strategy": "epoch"}, "evaluation_strategy"),
    "two strategies": ({"val_size": 0.1, "eval_strategy": "steps", "eval_steps": 5, "evaluation_strategy": "epoch"}, "evaluation_strategy"),
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


@pytest.mark.parametrize("source", MET)
def test_a_file_gives_the_keys_that_mean_the_same(source: str) -> None:
    changes, keys = MET[source]
    draft = LLAMA_FACTORY.translate(arguments(changes))
    assert draft.refused == []
    assert {key: draft.values.get(key) for key in keys} == dict(keys)
    assert set(arguments(changes)) <= set(draft.outcomes)
    assert set(draft.values) <= set(known_keys())


@pytest.mark.parametrize("source", [*MET][::4])
def test_the_keys_compose_a_run(source: str) -> None:
    draft = LLAMA_FACTORY.translate(arguments(MET[source][0]))
    run = described(compose([f"{key}={in_grammar(value, key)}" for key, value in draft.values.items()]))
    assert {key: run[key] for key in MET[source][1] if key in run}.items() <= MET[source][1].items()


@pytest.mark.parametrize("source", REFUSING)
def test_what_cannot_mean_the_same_is_refused_by_name(source: str) -> None:
    changes, name = REFUSING[source]
    draft = LLAMA_FACTORY.translate(arguments(changes))
    assert [refused for refused, _ in draft.refused] == [name]
    assert set(arguments(changes)) <= set(draft.outcomes)


@pytest.mark.parametrize(("ranks", "samples"), [(1, 1000), (4, 1000), (8, 91)])
def test_steps_and_warmup_are_those_of_the_file(ranks: int, samples: int) -> None:
    """By hand: batch 1 x 8 x ranks; ceil(samples / batch) steps an epoch; warmup ceil(0.1 x steps), as transformers rounds it."""
    draft = LLAMA_FACTORY.translate(arguments({}))
    run = compose([f"{key}={in_grammar(value, key)}" for key, value in draft.values.items()])
    batch = int(run.training.micro_batch or 0) * int(run.training.accumulation or 0) * ranks
    assert batch == 8 * ranks
    steps = 3 * math.ceil(samples / batch)
    assert warmup_steps(run.optim, steps) == math.ceil(0.1 * steps)


def test_an_argument_stated_as_off_is_no_refusal() -> None:
    off = {"use_dft_loss": False, "shift_attn": False, "label_smoothing_factor": 0.0, "use_adam_mini": False, "push_to_hub": False, "fp8": False}
    draft = LLAMA_FACTORY.translate(arguments(off))
    assert draft.refused == []
    assert {draft.outcomes[name].kind for name in off} == {"without effect"}


def test_every_refusal_says_what_to_do_or_why() -> None:
    for changes, name in REFUSING.values():
        outcome = LLAMA_FACTORY.translate(arguments(changes)).outcomes[name]
        assert outcome.kind == REFUSED
        assert len(outcome.said.split()) > 4, name


def test_what_the_page_says_of_liger_is_what_an_import_says() -> None:
    said = LLAMA_FACTORY.translate(arguments({"enable_liger_kernel": True})).outcomes["enable_liger_kernel"]
    row = next(row for row in NAMES if row.theirs == "enable_liger_kernel")
    assert said.kind == "without effect"
    assert said.said.partition(":")[0] in row.values
    assert "not needed" in row.values
