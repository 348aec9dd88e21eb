"""What `regimen train` says when a run has ended."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from conf.run_dir import RunDir, save_run
from launcher.errors import RanksFailed
from launcher.launch import journal
from launcher.verbs import train
from launcher.verbs.train import closing_summary
from tests.described import described


@pytest.mark.parametrize(
    ("patience", "last", "said"),
    [
        ("2", 4, "ended at step 4 of 20: no better eval_loss in 2 evaluations (evaluation.patience). evaluation loss 3.0000 -> 3.5000. "),
        ("2", 20, "evaluation loss 3.0000 -> 3.5000. "),
        ("null", 18, "evaluation loss 3.0000 -> 3.5000. "),  # training.log_interval leaves the last steps out
    ],
)
def test_a_run_that_its_patience_ended_says_so(patience: str, last: int, said: str, tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    save_run(described("model=demo", "data=demo", "node=cpu", f"evaluation.patience={patience}"), run_dir)
    lines = [{"step": 0, "of": 20, "eval_loss": 3.0}, {"step": last, "of": 20, "eval_loss": 3.5}]
    run_dir.progress.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert closing_summary(run_dir) == said


def test_a_supervisor_starts_what_was_judged_and_does_not_judge_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both a detached run and a point of a sweep are started so. Judged again, this run would be refused: its model has moved since."""
    run_dir = RunDir(tmp_path)
    run = described("model=demo", "data=demo", "node=cpu")
    save_run(replace(run, model=replace(run.model, path=str(tmp_path / "moved"), init="pretrained")), run_dir)
    run_dir.logs.mkdir()
    monkeypatch.setattr(sys, "executable", "/bin/true")  # stands for the agent and its ranks
    with pytest.raises(RanksFailed):
        train.supervise_folder(run_dir.path)
    assert [event["event"] for event in journal.events(run_dir)] == ["start", "end"]
