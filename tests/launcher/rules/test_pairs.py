import json
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.cli import main
from launcher.rules.pairs import RULES, incompatibilities
from tests.described import described

GPU = ("node=h100_80", "node.gpus=2")
CPU = ("node=cpu", "node.host_memory=8000000000")
FP8 = "training.fp8=true"
ADAPTED = "regime.targets=[all-linear,experts]"
VARLEN = ("data.packing=true", "training.attention=varlen")
FORBIDDEN = {
    "background-split": (*GPU, "checkpoint.background=true", "sharding=zero2"),
    "skip-zero": (*GPU, "training.on_nan=skip", "sharding=zero2"),
    "skip-scaler": (*GPU, "training.on_nan=skip", "sharding=ddp", "training.precision=fp16_amp"),
    "split-bound": (*GPU, "training.on_oom=split", "stage=kto", "training.micro_batch=4"),
    "split-streaming": (*GPU, "training.on_oom=split", "data.streaming=true", "training.max_steps=9"),
    "int8-fsdp2": (*GPU, "regime=qlora", "regime.bits=8", "sharding=fsdp2"),
    "int8-latent": (*GPU, "regime=qlora", "regime.bits=8", "model.architecture.model_type=deepseek_v3"),
    "hqq-fsdp2": (*GPU, "regime=qlora", "regime.bits=2", "sharding=fsdp2"),
    "hqq-zero3": (*GPU, "regime=qlora", "regime.bits=2", "sharding=zero3"),
    "bitsandbytes-fsdp2": (*GPU, "regime=full", "sharding=fsdp2", "optim=lion"),
    "adafactor-fsdp2": (*GPU, "regime=full", "sharding=fsdp2", "optim=adafactor"),
    "muon-split": (*GPU, "regime=full", "sharding=zero1", "optim=muon"),
    "recomputation-family": (
        *GPU,
        "model.architecture.model_type=gpt_neox_japanese",
        "training.attention=eager",
        "training.gradient_checkpointing=true",
    ),
    "layers-fsdp2": (*GPU, "training.gradient_checkpointing=2", "sharding=fsdp2"),
    "layers-badam": (*GPU, "training.gradient_checkpointing=2", "regime=full", "optim=badam", "cluster.ranks_per_node=1"),
    "layers-new-blocks": (*GPU, "training.gradient_checkpointing=1", "regime=freeze", "regime.new_blocks=1", "regime.layers=0"),
    "low-rank-split": (*GPU, "regime=full", "sharding=zero2", "optim=galore"),
    "low-rank-adapter": (*GPU, "regime=lora", "optim=apollo"),
    "galore-8bit-cpu": (*CPU, "regime=full", "optim=galore_8bit"),
    "pissa-quantised": (*GPU, "regime=qlora", "regime.init=pissa"),
    "dequantised-int8": (*GPU, "regime=qlora", "regime.bits=8", "regime.dequantised=true"),
    "dequantised-split": (*GPU, "regime=qlora", "regime.dequantised=true", "sharding=zero3"),
    "pissa-split": (*GPU, "regime=lora", "regime.init=pissa_niter_16", "sharding=zero3"),
    "pissa-reference": (*GPU, "regime=lora", "regime.init=pissa", "stage=dpo"),
    "pissa-continued": (*GPU, "regime=lora", "regime.init=pissa", "regime.adapter=a"),
    "adapter-reference": (*GPU, "regime=lora", "regime.adapter=a", "stage=dpo"),
    "experts-split": ("model=mixtral_8x7b", *GPU, "regime=qlora", "sharding=zero3"),
    "adapted-experts-plain": (*GPU, "regime=lora", ADAPTED),
    "adapted-experts-dropout": (*GPU, "regime=qlora", ADAPTED, "regime.dropout=0.1"),
    "adapted-experts-dora": (*GPU, "regime=qlora", ADAPTED, "regime.dora=true"),
    "adapted-experts-rank": (*GPU, "regime=qlora", ADAPTED, "regime.rank=4"),
    "adapted-experts-kernels": (*GPU, "regime=qlora", ADAPTED, "training.kernels=fused"),
    "adapted-experts-varlen": (*GPU, "regime=qlora", ADAPTED, *VARLEN),
    "adapted-experts-layers": (*GPU, "regime=qlora", ADAPTED, "training.gradient_checkpointing=2"),
    "new-blocks-split": (*GPU, "regime=freeze", "regime.new_blocks=1", "regime.layers=0", "sharding=zero3"),
    "new-blocks-layers": (*GPU, "regime=freeze", "regime.new_blocks=1", "regime.layers=1"),
    "tokens-frozen": (*GPU, "regime=freeze", 'model.added_tokens=["<a>"]'),
    "tokens-badam": (*GPU, "regime=full", "optim=badam", "cluster.ranks_per_node=1", 'model.added_tokens=["<a>"]'),
    "rows-split": (*GPU, "regime=full", "model.vocab_multiple=64", "sharding=zero3"),
    "badam-head": (*GPU, "regime=full", "optim=badam", "cluster.ranks_per_node=1", "stage=rm"),
    "badam-regime": (*GPU, "regime=freeze", "optim=badam", "cluster.ranks_per_node=1"),
    "badam-ranks": (*GPU, "regime=full", "optim=badam"),
    "bf16-offload": (*GPU, "regime=full", "training.precision=bf16", "sharding=zero2_offload"),
    "offload-optimizer": (*GPU, "regime=lora", "sharding=zero3_offload", "optim=adafactor"),
    "fused-loss-cpu": (*CPU, "training.loss=fused"),
    "fused-loss-family": (*GPU, "training.loss=fused", "model.architecture.model_type=gpt_neox"),
    "kernels-stage": (*GPU, "training.kernels=fused", "stage=ppo"),
    "kernels-padded": (*GPU, "training.kernels=fused", "training.attention=sdpa", "stage=rm"),
    "kernels-split": (*GPU, "training.kernels=fused", "sharding=zero3"),
    "fp8-kernels": (*GPU, "training.fp8=true", "training.kernels=plain"),
    "fp8-split": (*GPU, FP8, "regime=lora", "sharding=zero3"),
    "fp8-regime": (*GPU, FP8, "regime=full"),
    "fp8-quantised": (*GPU, FP8, "regime=qlora"),
    "fp8-dora": (*GPU, FP8, "regime=lora", "regime.dora=true"),
    "fp8-stage": (*GPU, FP8, "stage=rm"),
    "fp8-precision": (*GPU, FP8, "training.precision=fp16_amp"),
    "fp8-family": (*GPU, FP8, "model.architecture.model_type=gpt_neox"),
    "fp8-old-gpu": ("node=a100_80", "node.gpus=2", FP8),
    "kernels-loss": (*GPU, "training.kernels=fused", "training.loss=fused", "model.architecture.model_type=mixtral"),
    "chunked-fsdp2": (*GPU, "training.loss=chunked", "sharding=fsdp2"),
    "chunked-loss-head": (*CPU, "training.loss=chunked", "training.attention=eager", "model.architecture.model_type=gemma2"),
    "sdpa-gemma2": (*GPU, "model.architecture.model_type=gemma2", "training.attention=sdpa"),
    "sdpa-family": (*GPU, "model.architecture.model_type=gpt_oss", "training.attention=sdpa"),
    "varlen-softcap": (*GPU, *VARLEN, "model.architecture.model_type=gemma2"),
    "varlen-unpacked": (*GPU, "training.attention=varlen"),
    "varlen-fp32": (*GPU, *VARLEN, "training.precision=fp32"),
    "varlen-old-gpu": ("node=v100_32", "node.gpus=2", *VARLEN, "training.precision=fp16_amp"),
    "varlen-dropout": (*GPU, *VARLEN, "model.architecture.model_type=gpt2"),
    "varlen-family": (*GPU, *VARLEN, "model.architecture.model_type=olmo2"),
    "fsdp2-cpu": (*CPU, "sharding=fsdp2"),
    "freeze-nothing": (*GPU, "regime=freeze", "regime.layers=0"),
    "packing-stage": (*GPU, "stage=dpo", "data.packing=true"),
    "loss-stage": (*GPU, "stage=simpo", "training.loss=chunked"),
    "neftune-stage": (*GPU, "stage=orpo", "training.neftune_alpha=5"),
    "dropout-stage": (*GPU, "stage=rm", "regime=lora", "regime.dropout=0.1"),
    "unmasked-stage": (*GPU, "stage=dpo", "data.mask_prompt=false"),
    "streaming-stage": (*GPU, "stage=dpo", "data.streaming=true", "training.max_steps=10"),
    "generate-rm": (*GPU, "stage=rm", "evaluation.generate=Hello"),
    "dropout-ppo": (*GPU, "stage=ppo", "regime=lora", "regime.dropout=0.1"),
    "muon-head": (*GPU, "stage=rm", "regime=full", "optim=muon", "sharding=ddp"),
    "kto-alone": (*GPU, "stage=kto", "training.micro_batch=1", "evaluation.micro_batch=2"),
    "smoothing-loss": (*GPU, "stage=dpo", "stage.loss=ipo", "stage.label_smoothing=0.1"),
}


@pytest.fixture(autouse=True)
def an_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder `a` of regime.adapter=a."""
    folder = tmp_path / "a"
    folder.mkdir()
    lora = {"peft_type": "LORA", "r": 16, "lora_alpha": 32.0, "use_rslora": False, "use_dora": False}
    (folder / "adapter_config.json").write_text(json.dumps(lora))
    (folder / "adapter_model.safetensors").touch()
    monkeypatch.chdir(tmp_path)


def names(*overrides: str) -> list[str]:
    return [rule.name for rule in incompatibilities(described("model=demo", "data=demo", *overrides))]


@pytest.mark.parametrize("name", FORBIDDEN)
def test_each_rule_fires_alone_and_its_replacement_silences_it(name: str):
    rule = next(each for each in RULES if each.name == name)

    assert names(*FORBIDDEN[name]) == [name]
    assert names(*FORBIDDEN[name], *rule.instead.split()) == []


@pytest.mark.parametrize(
    "overrides",
    [
        (*GPU, "regime=qlora", "sharding=zero3"),
        (*GPU, "regime=qlora", "regime.bits=8", "sharding=zero3"),
        (*GPU, "regime=qlora", "regime.bits=2", "regime.dora=true"),
        (*GPU, "sharding=zero2_offload", "optim=adamw_foreach"),
        (*GPU, "sharding=zero2_offload", "optim=lion"),
        (*CPU, "training.precision=fp16_amp"),
        (*GPU, "training.loss=fused", "sharding=fsdp2"),
        (*CPU, "optim=adamw_8bit", "sharding=zero3"),
        (*CPU, "training.loss=chunked"),
        (*CPU, "stage=orpo", "training.kernels=fused", "training.loss=chunked"),
        (*CPU, "stage=pt", "training.loss=chunked", "data.packing=true", "training.neftune_alpha=5", "regime.dropout=0.1"),
        (*CPU, "stage=dpo", "stage.loss=robust", "stage.label_smoothing=0.1"),
        (*GPU, "stage=ppo", "regime=full", "sharding=zero3"),
        (*CPU, "stage=grpo", "stage.generations=2", "regime=qlora", "regime.bits=2", "regime.dropout=0.1"),
        (*CPU, "stage=kto", "training.micro_batch=2", "evaluation.micro_batch=1"),
        (*GPU, *VARLEN, "training.loss=fused", "regime=qlora", "sharding=zero3", "evaluation.generate=Hello"),
        (*CPU, *VARLEN, "training.precision=fp32"),
    ],
)
def test_pairs_that_work_are_left_alone(overrides: tuple[str, ...]):
    assert names(*overrides) == []


@pytest.mark.parametrize(
    ("overrides", "rule"),
    [(("training.loss=chunked",), "chunked-loss-head"), (("stage=dpo", "training.kernels=fused", "training.attention=varlen"), "kernels-head")],
)
def test_a_soft_cap_or_a_routers_loss_beside_the_head_refuses_what_computes_the_head_alone(overrides: tuple[str, ...], rule: str):
    run = described("model=demo", "data=demo", *overrides, *CPU)
    for key, value in {"final_logit_softcapping": 30.0, "output_router_logits": True}.items():
        altered = replace(run, model=replace(run.model, architecture={**run.model.architecture, key: value}))
        assert [rule.name for rule in incompatibilities(altered)] == [rule]


def test_names_are_unique_and_every_row_says_why():
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.why.endswith(".") and "=" in rule.instead for rule in RULES)


@pytest.mark.parametrize("model", ["demo", "mixtral_8x7b"])
def test_experts_under_lora_are_refused_by_their_rule_on_the_command_line(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", f"model={model}", "data=demo", *GPU, "regime=lora", ADAPTED]) == 2
    told = capsys.readouterr().err
    assert told.startswith("regimen: regime=lora does not work in this run. Adapters of routed experts")
    assert told.rstrip().endswith("Set regime=qlora regime.dequantised=false.")
