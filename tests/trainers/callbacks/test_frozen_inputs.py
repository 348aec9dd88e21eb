from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from launcher.composition.compose import compose
from trainers.callbacks.frozen_inputs import FrozenInputs
from trainers.regimes import prepare_model

SAMPLES = [{"input_ids": row, "labels": row} for row in torch.arange(8, 136).reshape(8, 16)]


@pytest.mark.parametrize(("callbacks", "expected"), [([FrozenInputs()], [False]), ([], [True])], ids=["with", "without"])
def test_the_backward_pass_stays_out_of_frozen_layers(callbacks: list, expected: list[bool], tmp_path: Path) -> None:
    run = compose(["model=demo", "data=demo", "regime=freeze", "regime.layers=1", "training.precision=fp32"])
    model = prepare_model(run, AutoModelForCausalLM, tmp_path).model
    seen = []
    model.model.layers[0].register_forward_hook(
        lambda module, inputs, output: seen.append((output[0] if isinstance(output, tuple) else output).requires_grad)
    )
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "steps"), max_steps=1, per_device_train_batch_size=4, use_cpu=True, save_strategy="no", report_to=[],
        gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False}, disable_tqdm=True,
    )  # fmt: skip
    Trainer(model=model, args=arguments, train_dataset=SAMPLES, callbacks=callbacks).train()

    assert seen[:1] == expected
