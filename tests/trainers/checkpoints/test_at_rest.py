"""An adapter of FSDP2 is saved right after an evaluation, which leaves weights gathered."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import LlamaConfig, LlamaForCausalLM

from trainers.checkpoints.streamed import save_streamed

SHAPE: dict[str, Any] = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
ROWS = torch.arange(8)[None]


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
def test_an_adapter_with_a_whole_module_is_saved_after_an_evaluation(tmp_path: Path) -> None:
    """PEFT asks that module for its state, and torch then frees what was gathered: it must not be what is written."""
    torch.manual_seed(0)
    model = get_peft_model(LlamaForCausalLM(LlamaConfig(**SHAPE)), LoraConfig(target_modules=["q_proj"], r=2, modules_to_save=["lm_head"]))
    before = {name.replace(".default", "").replace(".modules_to_save", ""): weight.detach().clone() for name, weight in learned(model)}
    mesh = init_device_mesh("cpu", (1,))
    for layer in (*model.base_model.model.model.layers, model):
        fully_shard(layer, mesh=mesh, reshard_after_forward=False)
    with torch.no_grad():
        model(ROWS)
    assert not any(isinstance(weight, DTensor) for _, weight in learned(model))

    save_streamed(saving(model), tmp_path / "saved")
    assert all(isinstance(weight, DTensor) for _, weight in learned(model))
    saved = load_file(tmp_path / "saved/adapter_model.safetensors")
    assert saved.keys() == before.keys()
    assert all(torch.equal(saved[name], weight) for name, weight in before.items())
    model(ROWS)  # and what was parted is gathered again


def learned(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def saving(model: Any) -> Any:
    """What save_streamed asks of a Trainer."""
    return SimpleNamespace(
        model=model,
        model_wrapped=model,
        accelerator=SimpleNamespace(unwrap_model=lambda given: given),
        args=SimpleNamespace(should_save=True),
        is_deepspeed_enabled=False,
        _save=lambda folder, state_dict: model.save_pretrained(folder, state_dict=state_dict),
    )
