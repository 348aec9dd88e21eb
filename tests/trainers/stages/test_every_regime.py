"""Every stage that learns from given answers, under every regime: trains, saves, and is loaded back by plain transformers and PEFT."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BitsAndBytesConfig, PreTrainedModel, Trainer

from conf.run_dir import RunDir
from conf.schema import Qlora, Run
from trainers.callbacks.committing import Committing
from trainers.callbacks.frozen_inputs import FrozenInputs
from trainers.regimes.hqq import quantise_2bit
from trainers.regimes.qlora import without_cpu_packing

STAGES = ("pt", "rm", "dpo", "kto", "orpo", "simpo")
REGIMES = {
    "full": ("regime=full",),
    "freeze": ("regime=freeze", "regime.layers=1"),
    "lora": ("regime=lora", "regime.rank=4"),
    "qlora8": ("regime=qlora", "regime.bits=8", "regime.rank=4"),
    "qlora4": ("regime=qlora", "regime.bits=4", "regime.rank=4"),
    "qlora2": ("regime=qlora", "regime.bits=2", "regime.rank=4"),
}
TOKENS = torch.arange(97, 113)[None]
CHANGED = 1e-3


def answers(model: torch.nn.Module) -> torch.Tensor:
    """Logits, or the one score of a reward model."""
    model.eval()
    with torch.no_grad():
        output: torch.Tensor = model(input_ids=TOKENS).logits.float()
    return output


def loaded_base(run: Run, folder: Path) -> PreTrainedModel:
    auto, keywords = (AutoModelForSequenceClassification, {"num_labels": 1}) if run.stage.name == "rm" else (AutoModelForCausalLM, {})
    bits = run.regime.bits if isinstance(run.regime, Qlora) else None
    quantization = {
        8: BitsAndBytesConfig(load_in_8bit=True),
        4: BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32, bnb_4bit_use_double_quant=True),
    }
    base = auto.from_pretrained(folder, dtype=torch.float32, quantization_config=quantization.get(bits), **keywords)
    # a plainly loaded base would repack its 4 bits on CPUs with AVX512-BF16, and round its scales
    return quantise_2bit(base, torch.float32, "cpu") if bits == 2 else without_cpu_packing(base)


def loaded_back(run: Run, folder: Path) -> torch.nn.Module:
    if not isinstance(run.regime, Qlora) and run.regime.name != "lora":
        return loaded_base(run, folder / "model")
    return PeftModel.from_pretrained(loaded_base(run, folder / "base"), folder / "model")


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("stage", STAGES)
def test_a_cell_trains_and_is_loaded_back(
    stage: str,
    regime: str,
    tmp_path: Path,
    run_of: Callable[..., Run],
    rows_of: Callable[..., Any],
    trainer_of: Callable[..., Trainer],
    logged: Callable[[Trainer, str], list[float]],
) -> None:
    run = run_of(stage, *REGIMES[regime])
    trainer = trainer_of(run, tmp_path, rows_of(stage))
    before = answers(trainer.model)
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    after = answers(trainer.model)
    assert len(logged(trainer, "loss")) == 2
    assert (after - before).abs().max() > CHANGED
    assert {parameter.dtype for parameter in trainer.model.parameters() if parameter.requires_grad} == {torch.float32}
    assert (answers(loaded_back(run, tmp_path)) - after).abs().max() <= 1e-5


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_goes_on_from_a_checkpoint_with_the_same_losses(
    stage: str,
    tmp_path: Path,
    run_of: Callable[..., Run],
    rows_of: Callable[..., Any],
    trainer_of: Callable[..., Trainer],
    logged: Callable[[Trainer, str], list[float]],
) -> None:
    run = run_of(stage, *REGIMES["lora"], "training.max_steps=4", "checkpoint.interval=2")
    run_dir = RunDir(tmp_path)
    run_dir.checkpoints.mkdir()
    whole = trainer_of(run, tmp_path, rows_of(stage), callbacks=(Committing(run_dir, keep=3, world=1),))
    whole.train()
    resumed = trainer_of(run, tmp_path, rows_of(stage), callbacks=(Committing(run_dir, keep=3, world=1),))
    resumed.train(resume_from_checkpoint=str(run_dir.checkpoint(2)))
    assert logged(resumed, "loss") == logged(whole, "loss")
    assert logged(resumed, "grad_norm") == logged(whole, "grad_norm")


@pytest.mark.parametrize("stage", STAGES)
def test_the_backward_pass_stays_out_of_frozen_layers(
    stage: str, tmp_path: Path, run_of: Callable[..., Run], rows_of: Callable[..., Any], trainer_of: Callable[..., Trainer]
) -> None:
    """transformers and TRL both hang hooks on the embeddings where activations are checkpointed."""
    run = run_of(stage, *REGIMES["freeze"], "training.gradient_checkpointing=true")
    trainer = trainer_of(run, tmp_path, rows_of(stage), callbacks=(FrozenInputs(),))
    trainer.train()
    assert not trainer.model.get_input_embeddings()._forward_hooks
