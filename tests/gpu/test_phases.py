"""Phases measured on a real GPU."""

import gc
from pathlib import Path

import pytest

pytestmark = pytest.mark.gpu(1)


def test_the_phases_of_a_step_hold_what_must_be_alive_in_them(tmp_path: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

    from trainers.measures.phases import Peaks, Phases, cuda_meter

    shape = {"num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 4096}
    gc.collect()  # what other tests left goes now, not in the middle of a phase
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    model = LlamaForCausalLM(LlamaConfig(hidden_size=1024, intermediate_size=2048, **shape))
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    peaks = Peaks(cuda_meter)
    row = {"input_ids": torch.arange(16), "labels": torch.arange(16)}
    arguments = TrainingArguments(output_dir=str(tmp_path), max_steps=3, report_to=[], disable_tqdm=True, save_strategy="no", bf16=False)
    assert arguments.n_gpu  # sets the device up
    arguments._n_gpu = 1  # on a machine with several, the Trainer would make replicas in threads
    Trainer(model=model, args=arguments, train_dataset=[row] * 24, callbacks=[Phases(peaks)]).train()
    found = {phase: size - before for phase, size in peaks.by_phase.items()}
    assert set(found) == {"load", "warm-up", "elsewhere", "forward", "backward", "optimizer step"}
    assert weights <= found["load"] < 1.05 * weights
    assert 3 * weights <= found["forward"] < 4 * weights  # weights and AdamW's two states; no gradients yet
    assert 4 * weights <= found["backward"]
    assert 4 * weights <= found["optimizer step"]
    assert peaks.highest.allocated == max(peaks.by_phase.values())
    assert peaks.highest.reserved >= peaks.highest.allocated
