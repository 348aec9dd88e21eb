"""What `regimen train` says when a run has ended."""

import json
from pathlib import Path

import pytest

from conf.run_dir import RunDir, save_run
from launcher.composition.compose import compose
from launcher.verbs.train import closing_summary


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
    save_run(compose(["model=demo", "data=demo", f"evaluation.patience={patience}"]), run_dir)
    lines = [{"step": 0, "of": 20, "eval_loss": 3.0}, {"step": last, "of": 20, "eval_loss": 3.5}]
    run_dir.progress.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert closing_summary(run_dir) == said
