"""After out of memory: what the estimate says needs less, as a command that goes on where the run may go on so."""

import shlex
from pathlib import Path

import pytest

from conf.run_dir import RunDir, save_run
from launcher.composition.recorded import resumed_run, split_resume
from launcher.errors import OutOfMemory
from launcher.launch.outcome import Outcome
from launcher.verbs.train import ended
from tests.described import described

# 8 billion weights under adapters, with 8 samples of 2048 tokens at a time: activations are most of what a smaller micro-batch saves
RUN = ("model=llama3.1_8b", "data=demo", "node=h100_80", "regime=lora", "training.micro_batch=8", "training.fit=off", "data.cutoff=2048")


def printed(folder: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    save_run(described(*RUN, f"output={folder}", *overrides), RunDir(folder))
    with pytest.raises(OutOfMemory, match="Out of memory at step 3"):
        ended(RunDir(folder), Outcome(80, "Out of memory at step 3"))
    return capsys.readouterr().out


def test_what_needs_less_is_a_command_that_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(tmp_path, capsys)
    assert out.startswith("what needs less, cheapest first (at most ")
    commands = [shlex.split(line) for line in out.splitlines() if line.startswith("  regimen train resume=")]
    assert any(word.startswith("training.micro_batch=") for command in commands for word in command)
    for command in commands:
        name, overrides = split_resume(command[2:])
        assert name == str(tmp_path)
        assert resumed_run(RunDir(tmp_path), overrides).training.effective_batch == described(*RUN).training.effective_batch


def test_what_would_change_the_run_is_for_a_new_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(tmp_path, capsys, "stage=kto", "regime=full", "training.precision=bf16", "gate.mode=off")
    assert "  a new run with: " in out
    assert "training.micro_batch" not in "".join(line for line in out.splitlines() if line.startswith("  regimen train"))
