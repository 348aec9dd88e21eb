"""Real ranks meet a limit of memory that the kernel keeps: with training.on_oom=split they go on in smaller micro-batches, and learn the same."""

import json
import os
from pathlib import Path

import command_line as line
import pytest

from conf import journal
from conf.exit_codes import OUT_OF_MEMORY
from conf.run_dir import RunDir, load_run

pytestmark = [pytest.mark.distributed, pytest.mark.long]

# In the last rank alone, from the third step on: it may allocate this many bytes beyond what it has (RLIMIT_DATA counts them since Linux 4.7).
LIMITED = """
import os, sys
if sys.orig_argv[-3:-1] == ["-m", "trainers"] and os.environ.get("RANK") == os.environ.get("LIMITED"):
    import resource, transformers
    step = transformers.Trainer.training_step
    def limited(self, *given, **named):
        if self.state.global_step == 2 and resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY:
            [held] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmData:")]
            limit = int(held) * 1024 + {room}
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        return step(self, *given, **named)
    transformers.Trainer.training_step = limited
"""
ROOM = 250 * 2**20  # sixteen texts of 512 tokens need more, with four heads and eager attention in two layers, and eight need less
RUN = (
    *("model=demo", "data=files", "data.sets=[answers.json]", "data.template=chatml", "data.cutoff=512", "data.validation_share=0", "node=cpu"),
    *("regime=full", "training.precision=fp32", "training.attention=eager", "training.gradient_checkpointing=false", "training.max_steps=4"),
    *("evaluation.interval=0", "evaluation.at_start=false", "evaluation.at_end=false", "evaluation.answers=0", "checkpoint.interval=1"),
    *("model.architecture.max_position_embeddings=512", "optim.warmup=0", "optim.lr=1e-3", "training.effective_batch=32"),
)


def trained(folder: Path, limited: str, *overrides: str) -> tuple[line.Ended, RunDir]:
    """A run whose rank `limited` has too little memory from its third step on; empty: none has."""
    folder.mkdir()
    (folder / "answers.json").write_text(json.dumps([{"instruction": f"Go on with {number}.", "output": "a b c d " * 120} for number in range(128)]))
    (folder / "sitecustomize.py").write_text(LIMITED.replace("{room}", str(ROOM)))
    paths = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    ended = line.call((*line.MODULE, "train", *RUN, f"data.folder={folder}", *overrides), folder, PYTHONPATH=paths, LIMITED=limited)
    return ended, line.the_run(folder / "outputs")


def rows_of(run_dir: RunDir) -> dict[int, list[int]]:
    """Of each step, over all ranks; of one that was made twice, the second."""
    found: dict[int, list[int]] = {}
    for path in run_dir.rows_file(0).parent.glob("rank-*.jsonl"):
        made = {entry["step"]: entry["rows"] for entry in map(json.loads, path.read_text().splitlines())}
        for step, rows in made.items():
            found[step] = sorted([*found.get(step, []), *rows])
    return found


@pytest.mark.parametrize(("sharding", "ranks"), [("ddp", 2), ("zero3", 2)])
def test_a_run_that_splits_learns_what_one_learns_that_was_split_from_its_start(sharding: str, ranks: int, tmp_path: Path) -> None:
    keys = (f"sharding={sharding}", f"cluster.ranks_per_node={ranks}")
    ended, run_dir = trained(tmp_path / "split", str(ranks - 1), *keys, f"training.micro_batch={32 // ranks}", "training.on_oom=split")
    assert ended.code == 0, ended.text
    reached = load_run(run_dir).training
    before = 32 // ranks
    assert reached.micro_batch < before
    assert reached.micro_batch * reached.accumulation * ranks == 32
    failures = [event for event in journal.events(run_dir) if event["event"] == "failure"]
    assert {event["exit_code"] for event in failures} == {OUT_OF_MEMORY}
    assert all("Out of memory at step 3, training" in event["message"] for event in failures)
    assert f"training.micro_batch={before // 2}" in ended.out
    changed = [(event["key"], event["before"]) for event in journal.events(run_dir) if event["event"] == "change"]
    assert ("training.micro_batch", str(before)) in changed
    whole, other = trained(tmp_path / "whole", "", *keys, f"training.micro_batch={reached.micro_batch}")
    assert whole.code == 0, whole.text
    assert line.losses(run_dir) == pytest.approx(line.losses(other), rel=1e-5)
    assert rows_of(run_dir) == rows_of(other)
