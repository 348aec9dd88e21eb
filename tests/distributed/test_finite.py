"""A run that diverges on two ranks: under every sharding all ranks end at the same step with the same cause, and nothing poisoned is committed."""

from pathlib import Path
from types import ModuleType
from typing import Any

import command_line as line
import pytest
from cells import TINY

from conf import journal
from conf.committed import committed
from conf.exit_codes import NOT_A_NUMBER
from conf.records import read_lines

pytestmark = pytest.mark.distributed

DIVERGING = ("optim.lr=1e30", "checkpoint.interval=1", "training.log_interval=3", "evaluation.at_start=false", "evaluation.at_end=false")


def left_by(cells: ModuleType, shardings: tuple[str, ...], root: Path) -> list[Any]:
    return list(cells.run_cells([cells.Cell("full_fp32", sharding, further=DIVERGING) for sharding in shardings], root, "torchrun").values())


def assert_nothing_poisoned(left: Any) -> None:
    assert [entry["code"] for entry in left.exits] == [NOT_A_NUMBER, NOT_A_NUMBER]
    first, second = (entry["message"] for entry in left.exits)
    assert first == second
    assert "so nothing is saved from this step. " in first
    assert committed(left.folder) == []
    assert not left.folder.model.exists()
    assert [left.folder.rows_file(rank).read_text().count("\n") for rank in (0, 1)] == [1, 1]


def test_no_rank_commits_what_is_no_number(cells: ModuleType, tmp_path: Path) -> None:
    """One pair of ranks for all: DDP first, since accelerate never leaves DeepSpeed again."""
    for left in left_by(cells, ("ddp", "zero2", "zero3"), tmp_path):
        assert_nothing_poisoned(left)


@pytest.mark.long
def test_no_rank_commits_what_is_no_number_of_split_weights(cells: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "SCRIPT", Path(__file__).with_name("run_fsdp_cells.py"))
    for left in left_by(cells, ("fsdp2",), tmp_path):
        assert_nothing_poisoned(left)


# The fifth step of each start whose first rank finds a mark has no loss there; every such start takes one mark away.
NO_LOSS = """
import os, sys
if sys.orig_argv[-3:-1] == ["-m", "trainers"] and os.environ.get("RANK") == "0":
    import pathlib
    import transformers
    marks, step = sorted(pathlib.Path({marks!r}).iterdir()), transformers.Trainer.training_step
    if marks:
        marks[0].unlink()
        def broken(self, *positional, **named):
            loss = step(self, *positional, **named)
            return loss * float("nan") if self.state.global_step == 4 else loss
        transformers.Trainer.training_step = broken
"""
BACK = (
    *("model=demo", "data=demo", "regime=lora", "node=cpu", "cluster.ranks_per_node=1", *TINY, "data.max_samples=64", "data.validation_share=0"),
    *("optim.scheduler=constant", "optim.warmup=0", "optim.lr=0.004", "training.max_steps=6", "checkpoint.interval=2", "training.on_nan=rollback"),
)


def go_back(folder: Path, times: int, *further: str) -> line.Ended:
    (folder / "site").mkdir()
    (folder / "marks").mkdir()
    for number in range(times):
        (folder / "marks" / str(number)).touch()
    (folder / "site" / "sitecustomize.py").write_text(NO_LOSS.format(marks=str(folder / "marks")))
    path = f"{folder / 'site'}:{Path(__file__).resolve().parents[2]}"
    return line.call((*line.MODULE, "train", *BACK, *further), folder, PYTHONPATH=path)


@pytest.mark.parametrize("sharding", ["ddp", *(pytest.param(name, marks=pytest.mark.long) for name in ("zero2", "zero3"))])
def test_a_run_goes_back_and_on_with_half_the_rate(sharding: str, tmp_path: Path) -> None:
    ended = go_back(tmp_path, 2, *(() if sharding == "ddp" else (f"sharding={sharding}", "cluster.ranks_per_node=2")))
    assert ended.code == 0, ended.text
    assert ended.out.count("Starting again from the newest checkpoint (training.on_nan=rollback: with half the learning rate).") == 2
    run_dir = line.the_run(tmp_path / "outputs")
    entries = read_lines(run_dir.progress, lambda entry: "loss" in entry).entries
    assert [(entry["step"], entry["lr"]) for entry in entries if entry["loss"] == entry["loss"]] == [
        *((step, 0.004) for step in (1, 2, 3, 4)),
        *((step, 0.001) for step in (5, 6)),
    ]
    assert [event["exit_code"] for event in journal.events(run_dir) if event["event"] == "failure"] == [NOT_A_NUMBER, NOT_A_NUMBER]


@pytest.mark.long
def test_a_run_that_stays_without_a_loss_ends_after_three_times(tmp_path: Path) -> None:
    ended = go_back(tmp_path, 4)
    assert ended.code == NOT_A_NUMBER
    assert "The run went back 3 times without a new checkpoint" in ended.text
    assert [path.name for path in committed(line.the_run(tmp_path / "outputs"))] == ["step-4", "step-2"]
