"""Real runs that are asked to stop in the middle of something long: they leave it, save what there is to save, and end with 75."""

import json
import os
import signal
from pathlib import Path

import command_line as line
import pytest
from cells import TINY

from conf.run_dir import RunDir
from conf.signs import DATA, EVALUATION, Sign, read_sign
from trainers.callbacks.stopping import owes_evaluation

pytestmark = pytest.mark.distributed

RUN = ("recipe=demo", *TINY, "training.max_steps=100000", "checkpoint.interval=0", "sharding=ddp")
ALONE = "cluster.ranks_per_node=1"


def sign_of(run_dir: RunDir, phase: str) -> Sign | None:
    sign = read_sign(run_dir.sign(0))
    return sign if sign is not None and sign.phase == phase else None


def test_inside_an_evaluation_all_ranks_leave_it_together(tmp_path: Path) -> None:
    """4,000 samples one by one on two ranks; the signal of a cluster's warning."""
    long = ("data.max_samples=5000", "data.validation_share=0.8", "evaluation.at_start=false", "evaluation.interval=5", "evaluation.micro_batch=1")
    with line.start((*line.MODULE, "train", *RUN, *long), tmp_path) as started:
        run_dir = started.the_run(tmp_path / "outputs")
        begun = started.wait_until(lambda: sign_of(run_dir, EVALUATION), "evaluation")
        started.wait_until(lambda: (sign := sign_of(run_dir, EVALUATION)) and sign.moves > begun.moves + 2, "batches of the evaluation")
        started.process.send_signal(signal.SIGUSR1)
        ended = started.end()
    assert ended.code == 75, ended.text
    assert "stopped and saved. Go on with: regimen train resume=" in ended.err.replace("\n", " ")
    assert json.loads(run_dir.exit_file(0).read_text())["message"] == "stopped at step 5, saved"
    assert max(line.losses(run_dir)) == 5
    assert owes_evaluation(run_dir.checkpoint(5))
    assert [entry for entry in line.entries(run_dir) if "eval_loss" in entry] == []
    assert line.processes_of(run_dir) == []


def test_inside_a_rollout_answers_end_and_the_step_before_is_saved(tmp_path: Path) -> None:
    """An answer of 400 tokens takes seconds, and a step that learns from it much less."""
    written = ("stage=grpo", "stage.rewards=[brevity]", "stage.response_length=400", "training.micro_batch=32", "data.validation_share=0")
    with line.start((*line.MODULE, "train", *RUN, ALONE, *written), tmp_path) as started:
        run_dir = started.the_run(tmp_path / "outputs")
        started.wait_until(line.reached(run_dir, 1), "first step")
        os.kill(line.agents_of(run_dir)[0].pid, signal.SIGUSR1)  # who passes it on to its ranks
        ended = started.end()
    assert ended.code == 75, ended.text
    assert "stopped and saved. Go on with: regimen train resume=" in ended.err.replace("\n", " ")
    assert json.loads(run_dir.exit_file(0).read_text())["message"] == "stopped at step 1, saved"
    assert max(line.losses(run_dir)) == 1
    assert run_dir.checkpoint(1).exists()


def test_while_it_tokenises_it_ends_at_once_and_leaves_no_half_of_a_cache(tmp_path: Path) -> None:
    record = json.dumps({"instruction": "What is 3 + 4? " * 20, "output": "7"})
    (tmp_path / "many.jsonl").write_text(f"{record}\n" * 300_000)  # more than a busy machine tokenises before the signal arrives
    data = (
        "data=files",
        "data.sets=[many.jsonl]",
        f"data.folder={tmp_path}",
        f"data.cache={tmp_path}/cache",
        "data.max_samples=null",
        "data.cutoff=512",
    )
    with line.start((*line.MODULE, "train", *RUN, *data, ALONE), tmp_path) as started:
        run_dir = started.the_run(tmp_path / "outputs")
        started.wait_until(lambda: sign_of(run_dir, DATA) and [*(tmp_path / "cache").glob(".making-*/*")], "file of rows")
        started.process.send_signal(signal.SIGTERM)
        ended = started.end()
    assert ended.code == 75, ended.text
    assert "stopped before the first checkpoint, so nothing was saved." in ended.err.replace("\n", " ")
    assert [*(tmp_path / "cache").iterdir()] == []
    assert line.losses(run_dir) == {}
