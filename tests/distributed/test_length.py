"""The real command line makes a finished run longer, on other ranks too: it learns what a run learns that had that length from the start."""

import json
import math
from pathlib import Path

import command_line as line
import pytest
from cells import TINY

from conf.run_dir import RunDir, load_run
from conf.schedules import rate

pytestmark = pytest.mark.distributed

# fp32: sums over other portions of a batch differ in their last bits, and AdamW's first steps enlarge that where a second moment is small
TOLERANCE = 1e-4
FULL = (
    "model=demo",
    "data=demo",
    "regime=full",
    "training.precision=fp32",
    "node=cpu",
    *TINY,
    "checkpoint.interval=3",
    "training.micro_batch=6",
    "data.max_samples=128",
)
CONSTANT = "optim.scheduler=constant"


def train(folder: Path, *overrides: str) -> line.Ended:
    ended = line.call((*line.MODULE, "train", *overrides), folder)
    assert ended.code == 0, ended.text
    return ended


def longer(folder: Path, started: tuple[str, ...], *given: str) -> tuple[RunDir, str]:
    """A run of three steps, made longer by a second command; (its folder, what the second one printed)."""
    folder.mkdir()
    train(folder, *FULL, *started)
    run_dir = line.the_run(folder / "outputs")
    return run_dir, train(folder, f"resume={run_dir.path}", "training.max_steps=6", *given).out


def whole(folder: Path, *started: str) -> dict[int, float]:
    folder.mkdir()
    train(folder, *FULL, *started, "training.max_steps=6")
    return line.losses(line.the_run(folder / "outputs"))


def rows_of(run_dir: RunDir) -> dict[int, list[int]]:
    """The rows of the prepared data that each step was made of, over all ranks."""
    found: dict[int, list[int]] = {}
    for text in (text for path in run_dir.rows_file(0).parent.glob("rank-*.jsonl") for text in path.read_text().splitlines()):
        entry = json.loads(text)
        found[entry["step"]] = sorted([*found.get(entry["step"], []), *entry["rows"]])
    return found


def test_a_run_of_two_ranks_is_made_longer_on_one_under_another_sharding(tmp_path: Path) -> None:
    """DeepSpeed, whose files the checkpoint consists of, is left out of the rank that goes on (trainers/ranks/libraries.py)."""
    run_dir, said = longer(tmp_path / "longer", ("sharding=zero2", CONSTANT), "sharding=ddp", "cluster.ranks_per_node=1")
    assert "length: training.max_steps 3 -> 6. The run goes on from step 3" in " ".join(said.split())
    assert "sharding: zero2 on 2 ranks -> ddp on 1 rank." in " ".join(said.split())
    assert "batch: micro-batch 6 x 2 ranks x accumulation 1 -> micro-batch 6 x 1 rank x accumulation 2." in " ".join(said.split())
    assert load_run(run_dir).sharding.name == "ddp"
    assert line.losses(run_dir) == pytest.approx(whole(tmp_path / "whole", "sharding=ddp", CONSTANT), rel=TOLERANCE)
    assert sorted(line.losses(run_dir)) == [1, 2, 3, 4, 5, 6]
    assert rows_of(run_dir) == rows_of(line.the_run(tmp_path / "whole" / "outputs"))


@pytest.mark.long
@pytest.mark.parametrize(("before", "after"), [(2, 3), (1, 2), (2, 4)])
def test_a_run_is_made_longer_on_other_ranks(before: int, after: int, tmp_path: Path) -> None:
    started = ("sharding=ddp", CONSTANT, f"cluster.ranks_per_node={before}", f"training.micro_batch={12 // before}")
    run_dir, _ = longer(tmp_path / "longer", started, f"cluster.ranks_per_node={after}", f"training.micro_batch={12 // after}")
    assert line.losses(run_dir) == pytest.approx(whole(tmp_path / "whole", *started), rel=TOLERANCE)


@pytest.mark.long
@pytest.mark.parametrize("sharding", ["ddp", "zero1", "zero2", "zero3"])
def test_every_sharding_has_the_rates_of_the_new_length(sharding: str, tmp_path: Path) -> None:
    run_dir, _ = longer(tmp_path / "longer", (f"sharding={sharding}", "optim.scheduler=linear"), "training.micro_batch=3")
    rates = {entry["step"]: entry["lr"] for entry in line.entries(run_dir) if "lr" in entry}
    optim = load_run(run_dir).optim
    expected = {step: rate(optim, step, 3 if step <= 3 else 6) for step in range(1, 7)}
    assert rates == pytest.approx(expected)
    assert all(math.isfinite(loss) for loss in line.losses(run_dir).values())
