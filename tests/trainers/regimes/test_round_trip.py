"""What a short training leaves on disk is loaded back with plain transformers and plain PEFT."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel, Trainer, TrainingArguments

from conf.schema import Run
from launcher.composition.compose import compose
from trainers.regimes import prepare_model, with_adapter
from trainers.regimes.hqq import quantise_2bit

PROMPT = torch.arange(3, 35).reshape(2, 16)
SAMPLES = [{"input_ids": row, "labels": row} for row in torch.arange(8, 136).reshape(8, 16)]
CHANGED = 0.1  # logits after two steps at a learning rate of 0.01 are at least this far from those of the base
EQUAL = 0.0
ROUNDED = 2**-6  # logits near 1 that were computed in bfloat16, whose numbers are 2**-8 apart below 1, on ways that round a few times more or less
FULL_AND_FREEZE = {
    "full in bf16_amp": (["regime=full"], EQUAL),
    "full in bf16": (["regime=full", "training.precision=bf16"], EQUAL),
    "full in fp32": (["regime=full", "training.precision=fp32"], EQUAL),
    "freeze in bf16_amp": (["regime=freeze", "regime.layers=1"], ROUNDED),  # saved as bf16 and fp32, loaded back as bf16 alone
    "freeze in bf16": (["regime=freeze", "regime.layers=-1", "training.precision=bf16"], EQUAL),
    "freeze in fp32": (["regime=freeze", "regime.layers=0", "regime.modules=[lm_head]", "training.precision=fp32"], EQUAL),
}
ADAPTERS = {
    "lora": (["regime=lora"], EQUAL),
    "rslora with dora": (["regime=lora", "regime.rslora=true", "regime.dora=true", "regime.dropout=0.1"], EQUAL),
    "chosen targets": (["regime=lora", "regime.targets=[q_proj,v_proj]"], EQUAL),
    "lora in bf16": (["regime=lora", "training.precision=bf16"], ROUNDED),  # PEFT loads every adapter as fp32
    "8 bits": (["regime=qlora", "regime.bits=8"], EQUAL),
    # A plainly loaded base repacks its 4 bits on CPUs with AVX512-BF16, and rounds its scales to bf16 there.
    "4 bits": (["regime=qlora", "regime.bits=4"], ROUNDED),
    "4 bits in fp32": (["regime=qlora", "regime.bits=4", "regime.double_quant=false", "training.precision=fp32"], ROUNDED),
    "4 bits, dequantised": (["regime=qlora", "regime.bits=4", "regime.dequantised=true"], ROUNDED),
    "2 bits, dequantised": (["regime=qlora", "regime.bits=2", "regime.dequantised=true"], ROUNDED),
    "2 bits": (["regime=qlora", "regime.bits=2"], EQUAL),
}


def tiny(*overrides: str) -> Run:
    run = compose(["model=demo", "data=demo", *overrides])
    small = {"hidden_size": 64, "intermediate_size": 128, "initializer_range": 0.02}
    return replace(run, model=replace(run.model, architecture={**run.model.architecture, **small}))


def trained(run: Run, folder: Path, checkpointing: bool) -> nn.Module:
    """The model after two optimizer steps; what Trainer.save_model writes is in folder/model."""
    arguments = TrainingArguments(
        output_dir=str(folder / "steps"),
        use_cpu=True,
        bf16=run.training.precision == "bf16_amp",
        max_steps=2,
        per_device_train_batch_size=4,
        learning_rate=0.01,
        lr_scheduler_type="constant",
        gradient_checkpointing=checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=run.training.seed,
    )
    model = with_adapter(prepare_model(run, AutoModelForCausalLM, folder / "base"), run)
    trainer = Trainer(model=model, args=arguments, train_dataset=SAMPLES)
    trainer.train()
    trainer.save_model(str(folder / "model"))
    return model


def logits(model: nn.Module, run: Run) -> torch.Tensor:
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=run.training.precision == "bf16_amp"):
        return model(input_ids=PROMPT).logits.float()


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return (one - other).abs().max().item()


def loaded_base(run: Run, folder: Path) -> PreTrainedModel:
    """The base as a user loads it, quantised or not; nothing of ours but quantise_2bit."""
    dtype = torch.float32 if run.training.precision == "fp32" else torch.bfloat16
    bits = getattr(run.regime, "bits", 16)
    quantization = {
        8: BitsAndBytesConfig(load_in_8bit=True),
        4: BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_use_double_quant=getattr(run.regime, "double_quant", False),
        ),
    }
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=dtype, quantization_config=quantization.get(bits))
    return quantise_2bit(base, dtype, "cpu") if bits == 2 else base


@pytest.mark.parametrize(("overrides", "tolerance"), FULL_AND_FREEZE.values(), ids=FULL_AND_FREEZE.keys())
def test_full_and_freeze_load_back_with_plain_transformers(overrides: list[str], tolerance: float, tmp_path: Path) -> None:
    run = tiny(*overrides)
    untouched = logits(with_adapter(prepare_model(run, AutoModelForCausalLM, tmp_path / "base"), run), run)
    model = trained(run, tmp_path, checkpointing=True)
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert distance(logits(model, run), logits(back, run)) <= tolerance
    assert distance(logits(model, run), untouched) > CHANGED
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize(("overrides", "tolerance"), ADAPTERS.values(), ids=ADAPTERS.keys())
def test_adapters_load_back_with_plain_peft(overrides: list[str], tolerance: float, tmp_path: Path) -> None:
    run = tiny(*overrides)
    model = trained(run, tmp_path, checkpointing=False)
    untouched = logits(loaded_base(run, tmp_path), run)
    back = logits(PeftModel.from_pretrained(loaded_base(run, tmp_path), tmp_path / "model"), run)
    assert distance(logits(model, run), back) <= tolerance
    assert distance(logits(model, run), untouched) > CHANGED
