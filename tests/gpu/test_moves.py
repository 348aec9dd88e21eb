"""On one GPU: a run is made longer under one sharding after the other, and learns what a run learns that stayed under one from the start."""

from pathlib import Path

import command_line as line
import pytest
from cells import TINY

from conf.committed import committed
from conf.run_dir import RunDir, load_run

JOB = (
    *("model=demo", "data=demo", "regime=full", "node=auto", *TINY, "cluster.ranks_per_node=1", "checkpoint.interval=3"),
    *("training.micro_batch=6", "data.max_samples=128", "optim.scheduler=constant", "training.fit=off"),
)
MOVES = ("zero2", "zero3", "fsdp2 sharding.reshard_after_forward=false", "ddp")
SEGMENT = 3  # steps under each
# fp32 differs in the last bits of sums, which AdamW's first steps enlarge; with 16 bits DeepSpeed keeps weights otherwise than torch does.
TOLERANCE = {"fp32": 1e-3, "bf16_amp": 2e-2}


def trained(folder: Path, *overrides: str) -> RunDir:
    folder.mkdir(exist_ok=True)
    ended = line.call((*line.MODULE, "train", *overrides), folder)
    assert ended.code == 0, ended.text
    return line.the_run(folder / "outputs")


@pytest.mark.gpu(1)
@pytest.mark.parametrize("precision", list(TOLERANCE))
def test_a_run_moves_through_every_sharding_and_goes_on(precision: str, tmp_path: Path) -> None:
    job, steps = (*JOB, f"training.precision={precision}"), SEGMENT
    run_dir = trained(tmp_path / "moved", *job, f"sharding={MOVES[0]}", f"training.max_steps={steps}")
    for move in MOVES[1:]:
        kept, steps = committed(run_dir)[0], steps + SEGMENT
        trained(tmp_path / "moved", f"resume={run_dir.path}", *f"sharding={move}".split(), f"training.max_steps={steps}")
        assert load_run(run_dir).sharding.name == move.split()[0]
        assert kept in committed(run_dir), "the checkpoint of the sharding before is kept"
    stayed = trained(tmp_path / "stayed", *job, "sharding=ddp", f"training.max_steps={steps}")

    losses = line.losses(run_dir)
    assert sorted(losses) == list(range(1, steps + 1))
    assert losses == pytest.approx(line.losses(stayed), rel=TOLERANCE[precision])
    assert losses[steps] < losses[1]
