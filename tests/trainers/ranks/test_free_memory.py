"""UUIDs in CUDA_VISIBLE_DEVICES, which DeepSpeed itself reads as numbers. tests/gpu/test_uuids.py trains under one."""

import pytest
import torch
from deepspeed.accelerator.cuda_accelerator import CUDA_Accelerator

from trainers.ranks.free_memory import ask_torch, holds_names

UUID = "GPU-b4072719-ce64-5a65-cc32-3d58dee2ddee"


@pytest.mark.parametrize(
    ("visible", "named"),
    [
        (None, False),
        ("", False),
        ("0", False),
        ("1, 0", False),
        (UUID, True),
        (f"0,{UUID}", True),
        ("MIG-b4072719-ce64-5a65-cc32-3d58dee2ddee", True),
    ],
)
def test_names_are_told_from_numbers(visible: str | None, named: bool):
    assert holds_names(visible or "") == named


def test_deepspeed_asks_cuda_where_there_are_names(monkeypatch: pytest.MonkeyPatch):
    """The first half is why this is needed: it fails once DeepSpeed can read names, and then the module can go."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", UUID)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (7, 9))
    accelerator = CUDA_Accelerator()
    with pytest.raises(ValueError, match=r"invalid literal for int"):
        accelerator._get_nvml_gpu_id(0)
    ask_torch(accelerator, UUID)
    assert accelerator.available_memory() == accelerator.available_memory(0) == 7


def test_numbers_are_left_to_deepspeed():
    accelerator = CUDA_Accelerator()
    ask_torch(accelerator, "0,1")
    assert "available_memory" not in vars(accelerator)
