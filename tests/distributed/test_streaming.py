"""A stream on two ranks: each reads a share of its own, and a resumed run goes on where it was."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from launcher.composition.compose import compose
from launcher.facts.node import settle_node
from launcher.gate.settle import settled
from launcher.rules.ranges import check_values

pytestmark = pytest.mark.distributed


@dataclass(frozen=True)
class StreamCell:
    """A cell of tests/distributed/cells.py on a stream."""

    sharding: str
    folder: str
    regime: str = "stream"
    stage: str = "sft"

    @cached_property
    def settled(self) -> Any:
        streaming = ("data.streaming=true", "data.buffer=10", "training.max_steps=4", "checkpoint.interval=2", "training.dataloader_workers=1")
        data = ("data=files", f"data.folder={self.folder}", "data.sets=[a.jsonl]", "data.evaluation_sets=[a.jsonl]", "data.cutoff=64")
        ends = ("evaluation.interval=0", "evaluation.at_start=true", "evaluation.at_end=true")
        common = ("recipe=demo", "evaluation.answers=0", *ends, "optim.warmup=0", f"output={self.folder}/outputs")
        run = compose([*common, *data, *streaming, "node=cpu", f"sharding={self.sharding}", "training.micro_batch=2"])
        check_values(run)
        return settled(run, settle_node(run.node, 1).node)


def test_two_ranks_stream_and_resume_with_the_same_losses(cells: ModuleType, tmp_path: Path) -> None:
    rows = [json.dumps({"instruction": f"what is {number}", "output": "x" * (1 + number % 17)}) for number in range(60)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    members = [StreamCell(sharding, str(tmp_path)) for sharding in ("ddp", "zero2")]
    left = cells.lay_out(members, tmp_path, "torchrun")
    pairs = {cell.sharding: (left[cell], cells.going_on(cell, left[cell], step=2)) for cell in members}
    cells.train_folders(members[0], [result for pair in pairs.values() for result in pair], tmp_path, "torchrun")
    for sharding, (whole, resumed) in pairs.items():
        assert [entry["code"] for entry in (*whole.exits, *resumed.exits)] == [0, 0, 0, 0], (sharding, whole.exits, resumed.exits)
        assert len(set(whole.losses)) == 4
        assert resumed.losses == whole.losses[2:]
