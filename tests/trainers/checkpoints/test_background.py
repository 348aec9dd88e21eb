"""A checkpoint that is written while training goes on holds what was there when it was made; a failure of its writing is not lost."""

import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from trainers.checkpoints.background import Background
from trainers.checkpoints.host_memory import PIECE, HostMemory


@pytest.fixture
def model() -> LlamaForCausalLM:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}
    return LlamaForCausalLM(LlamaConfig(**sizes))


def stepped(model: LlamaForCausalLM) -> torch.optim.Optimizer:
    """The optimizer after a step, so that it holds states."""
    optimizer = torch.optim.AdamW(model.parameters())
    model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    optimizer.step()
    return optimizer


def test_what_is_written_is_what_was_there(model: LlamaForCausalLM, tmp_path: Path) -> None:
    background, optimizer = Background(pinned=False), stepped(model)
    for step in (1, 2):  # the second checkpoint lies in the memory of the first
        folder, may_write = tmp_path / f"step-{step}", threading.Event()
        background.thread.submit(may_write.wait)
        with background.taking():
            model.save_pretrained(folder)
            torch.save(optimizer.state_dict(), folder / "optimizer.pt")
            torch.save({"small": step}, folder / "scheduler.pt")
        background.commit(lambda folder=folder: (folder / "committed").touch())  # type: ignore[misc]
        assert torch.load(folder / "scheduler.pt")["small"] == step
        assert not (folder / "model.safetensors").exists()
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        moments = [state["exp_avg"].clone() for state in optimizer.state_dict()["state"].values()]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
                optimizer.state[parameter]["exp_avg"].zero_()
        may_write.set()
        background.wait()
        assert (folder / "committed").exists()
        written = load_file(folder / "model.safetensors")
        assert all(torch.equal(value, weights[name]) for name, value in written.items())
        states = torch.load(folder / "optimizer.pt")["state"].values()
        assert all(torch.equal(state["exp_avg"], moment) for state, moment in zip(states, moments, strict=True))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_()
                optimizer.state[parameter]["exp_avg"].normal_()
    background.close()


def test_files_are_those_of_a_save_that_is_waited_for(model: LlamaForCausalLM, tmp_path: Path) -> None:
    background, optimizer = Background(pinned=False), stepped(model)

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        torch.save(optimizer.state_dict(), folder / "optimizer.pt")

    save(tmp_path / "waited")
    with background.taking():
        save(tmp_path / "behind")
    background.commit(lambda: None)
    background.close()
    for name in ("model.safetensors", "optimizer.pt", "config.json"):
        assert (tmp_path / "behind" / name).read_bytes() == (tmp_path / "waited" / name).read_bytes()


def test_a_failure_is_raised_once_and_leaves_the_libraries_as_they_were(model: LlamaForCausalLM, tmp_path: Path) -> None:
    background, before = Background(pinned=False), torch.save
    with background.taking():
        model.save_pretrained(tmp_path)
    assert torch.save is before

    def fail() -> None:
        raise OSError(28, "No space left on device")

    background.commit(fail)
    with pytest.raises(OSError, match="No space left"):
        background.wait()
    background.check()
    background.close()


def test_a_save_that_fails_leaves_the_libraries_as_they_were() -> None:
    background, before = Background(pinned=False), torch.save
    with pytest.raises(ValueError, match="of the trainer"), background.taking():
        raise ValueError("of the trainer")
    assert torch.save is before
    background.close()


def test_copies_may_cross_pieces_of_the_memory() -> None:
    memory = HostMemory(PIECE + 2**12, pinned=False)
    memory.begin()
    first = memory.copied(torch.zeros(PIECE // 4 - 20))
    across = memory.copied(torch.arange(512.0))
    memory.finish()
    assert across.untyped_storage().nbytes() == 2048
    assert torch.equal(across, torch.arange(512.0))
    assert not first.any()
