"""A disk that is full: said with need and have before a save, recorded where the run ended, and nothing committed is lost."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import save_file
from transformers import TrainerControl, TrainerState, TrainingArguments

from conf import journal
from conf.committed import committed, faults
from conf.exit_codes import DISK
from conf.reserve import EXIT_BYTES, RUN_BYTES, despite_full_disk, reserve
from conf.run_dir import RunDir, save_run
from conf.words import size_in_words
from launcher.launch.outcome import outcome_of
from tests.described import described
from trainers.__main__ import write_exit
from trainers.checkpoints.room import free, refuse_full_disk
from trainers.ranks.causes import NoRoom, cause_of
from trainers.ranks.place import Place

MIB = 2**20
SIZE = 8 * MIB
TINY = (
    *("model=demo", "data=demo", "data.max_samples=64", "node=cpu", "cluster.ranks_per_node=1", "training.precision=fp32", "regime=full"),
    *("training.micro_batch=4", "training.max_steps=4", "evaluation.interval=0", "checkpoint.interval=1", "optim.warmup=0"),
    *("model.architecture.hidden_size=64", "model.architecture.intermediate_size=128"),
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[RunDir]:
    """A run folder on a file system of its own, of SIZE bytes."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    run_dir = RunDir(place / "run")
    run_dir.checkpoints.mkdir(parents=True)
    yield run_dir
    subprocess.run(("umount", "-l", str(place)), check=True)


def fill(run_dir: RunDir, leave: int = 0) -> Path:
    """As another process would, beside the run folder."""
    filler = run_dir.path.parent / "of-others"
    with filler.open("wb", buffering=0) as file, suppress(OSError):  # a page of the file system's own may be the last one
        while free(run_dir) > leave:
            file.write(bytes(min(65536, free(run_dir) - leave)))
    return filler


def test_need_and_have_are_said(disk: RunDir) -> None:
    refuse_full_disk(disk, MIB, "a checkpoint")
    with pytest.raises(NoRoom, match=r"is full: a checkpoint needs 10\.22 MiB, and [78]\.\d\d MiB is free\. Free [23]\.") as told:
        refuse_full_disk(disk, 10 * MIB, "a checkpoint")
    assert cause_of(told.value) == (DISK, str(told.value))


def test_own_leftovers_make_room_first(disk: RunDir) -> None:
    (disk.checkpoints / ".making" / "checkpoint-3").mkdir(parents=True)
    (disk.checkpoints / ".making" / "checkpoint-3" / "optimizer.pt").write_bytes(bytes(6 * MIB))
    refuse_full_disk(disk, 5 * MIB, "a checkpoint")
    assert not (disk.checkpoints / ".making").exists()


def test_how_a_rank_ended_is_recorded_on_a_full_disk(disk: RunDir) -> None:
    disk.exits.mkdir()
    reserve(disk.exit_reserve(1), EXIT_BYTES)
    fill(disk)
    with pytest.raises(OSError, match="No space left"):
        (disk.path / "more").write_bytes(b"more")
    write_exit(disk, Place(1, 1, 2), DISK, 'The disk is full: "模型". ' * 200)
    assert json.loads(disk.exit_file(1).read_text())["message"].startswith('The disk is full: "模型". ')
    assert outcome_of(disk, 1).exit_code == DISK
    assert [path.name for path in disk.exits.iterdir()] == ["rank-1.json"]


def test_the_end_is_journalled_on_a_full_disk(disk: RunDir) -> None:
    reserve(disk.reserve, RUN_BYTES)
    fill(disk)
    despite_full_disk(disk, lambda: journal.record(disk, journal.Ended(DISK, "The disk is full.")))
    assert [event["message"] for event in journal.events(disk)] == ["The disk is full."]


def test_ranks_that_left_no_word_on_a_full_disk_are_not_blamed_on_memory(disk: RunDir) -> None:
    fill(disk)
    outcome = outcome_of(disk, 1)
    assert outcome.exit_code == DISK
    assert f"the disk of {disk.path} is full: {size_in_words(free(disk))} is free." in outcome.message


def test_what_libraries_make_of_a_full_disk_is_known(disk: RunDir) -> None:
    fill(disk, leave=65536)
    tensors = {"weight": torch.ones(MIB)}
    for write in (lambda: save_file(tensors, disk.path / "model.safetensors"), lambda: torch.save(tensors, disk.path / "optimizer.pt")):
        with pytest.raises(Exception) as met:  # noqa: PT011 - each library has an error of its own
            write()
        assert cause_of(met.value)[0] == DISK, repr(met.value)
        for path in disk.path.glob("*.*"):
            path.unlink()


def test_a_run_ends_with_need_and_have_and_goes_on_when_there_is_room(disk: RunDir, tmp_path: Path) -> None:
    whole = RunDir(tmp_path / "whole")
    whole.path.mkdir()
    assert trained(whole)[0] == 0
    code, message = trained(disk, fill_at=2)
    assert code == DISK
    assert "is full: a checkpoint needs" in message
    assert [path.name for path in committed(disk)] == ["step-2", "step-1"]
    assert [faults(path) for path in committed(disk)] == [[], []]
    (disk.path.parent / "of-others").unlink()
    assert trained(disk)[0] == 0
    assert (disk.model / "model.safetensors").read_bytes() == (whole.model / "model.safetensors").read_bytes()


def trained(run_dir: RunDir, fill_at: int | None = None) -> tuple[int, str]:
    """In this process; after the commit of step `fill_at` others fill the disk."""
    from trainers.callbacks.committing import Committing
    from trainers.run import train

    committing = Committing.on_save

    def commit_and_fill(self: Committing, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: object) -> None:
        committing(self, args, state, control, **named)
        if state.global_step == fill_at:
            fill(run_dir, leave=RUN_BYTES)

    run = described(*TINY)
    save_run(run, run_dir)
    AcceleratorState._reset_state()
    GradientState._reset_state()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Committing, "on_save", commit_and_fill)
        try:
            return train(run, run_dir, Place(0, 0, 1))
        except Exception as error:  # noqa: BLE001 - as trainers/__main__.py
            return cause_of(error)
