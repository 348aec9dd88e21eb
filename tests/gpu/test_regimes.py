"""Every regime on a GPU: where the weights lie, and that a short training lowers the loss."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from launcher.composition.compose import compose
from trainers.regimes import prepare_model, with_adapter

SAMPLES = [{"input_ids": row, "labels": row} for row in torch.arange(8, 136).reshape(8, 16)]
REGIMES = {
    "full": ["regime=full"],
    "freeze": ["regime=freeze", "regime.layers=1"],
    "lora": ["regime=lora"],
    "dora": ["regime=lora", "regime.dora=true"],
    "8 bits": ["regime=qlora", "regime.bits=8"],
    "4 bits": ["regime=qlora", "regime.bits=4"],
    "2 bits": ["regime=qlora", "regime.bits=2"],
}


@pytest.mark.gpu(1)
@pytest.mark.parametrize("checkpointing", [True, False], ids=["recomputed", "kept"])
@pytest.mark.parametrize("precision", ["bf16_amp", "fp16_amp", "bf16", "fp32"])
@pytest.mark.parametrize("regime", REGIMES)
def test_every_regime_trains_on_a_gpu(regime: str, precision: str, checkpointing: bool, tmp_path: Path) -> None:
    run = compose(["model=demo", "data=demo", *REGIMES[regime], f"training.precision={precision}"])
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "steps"),
        bf16=precision == "bf16_amp",
        fp16=precision == "fp16_amp",
        max_steps=20,
        per_device_train_batch_size=8,
        learning_rate=0.005,
        gradient_checkpointing=checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    arguments._n_gpu = 1  # a rank sees several GPUs and uses one; without a launcher the Trainer would take all of them
    prepared = prepare_model(run, AutoModelForCausalLM, tmp_path / "base")
    if regime in ("8 bits", "4 bits", "2 bits"):  # the Trainer moves no quantised weights
        assert {parameter.device.type for parameter in prepared.model.parameters()} == {"cuda"}
    trainer = Trainer(model=with_adapter(prepared, run), args=arguments, train_dataset=SAMPLES)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert {parameter.device.type for parameter in trainer.model.parameters()} == {"cuda"}
    assert losses[-1] < losses[0] - 0.2
