"""checkpoint.resume=step-N: refused before anything is touched, or made the newest checkpoint for one start."""

import json
from pathlib import Path

import pytest

from conf import journal
from conf.committed import committed, faults
from conf.run_dir import RunDir, load_run, save_run
from launcher.cli import main
from launcher.errors import ConfigError
from launcher.gate.judge import judge_recorded
from launcher.launch.rewind import refuse_unusable, rewound
from tests.described import composed, described
from trainers.checkpoints.commit import commit


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path)
    made.checkpoints.mkdir()
    for step in (5, 10, 15):
        commit_step(made, step)
    return made


def commit_step(run_dir: RunDir, step: int) -> None:
    staged = run_dir.checkpoints / ".making" / "checkpoint"
    staged.mkdir(parents=True)
    (staged / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    commit(staged, run_dir, step, world=1)


def asking(wanted: str):
    return judge_recorded(composed("model=demo", "data=demo", "node=cpu", f"checkpoint.resume={wanted}"))


def names(run_dir: RunDir) -> list[str]:
    return sorted(path.name for path in run_dir.checkpoints.iterdir() if not path.name.startswith("."))


def test_later_checkpoints_are_set_aside_whole_and_said(run_dir: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    decided = rewound(asking("step-5"), run_dir)
    assert decided.run.checkpoint.resume == "newest"
    assert [path.name for path in committed(run_dir)] == ["step-5"]
    assert names(run_dir) == ["set-aside-step-10", "set-aside-step-15", "step-5"]
    assert faults(run_dir.checkpoints / "set-aside-step-15") == []
    assert f"step-10 is later than step-5 and was set aside as {run_dir.checkpoints}/set-aside-step-10." in capsys.readouterr().out
    event = journal.events(run_dir)[-1]
    assert (event["event"], event["checkpoint"], event["set_aside"]) == ("rewound", "step-5", ["set-aside-step-15", "set-aside-step-10"])


def test_what_was_set_aside_before_is_not_overwritten(run_dir: RunDir) -> None:
    rewound(asking("step-10"), run_dir)
    commit_step(run_dir, 15)
    rewound(asking("step-5"), run_dir)
    assert names(run_dir) == ["set-aside-step-10", "set-aside-step-15", "set-aside-step-15-2", "step-5"]


def test_the_newest_needs_no_rewind(run_dir: RunDir) -> None:
    decided = asking("newest")
    assert rewound(decided, run_dir) is decided
    assert len(committed(run_dir)) == 3
    assert "rewound" not in [event["event"] for event in journal.events(run_dir)]


def test_one_that_is_damaged_is_not_replaced_by_another(run_dir: RunDir) -> None:
    (run_dir.checkpoint(10) / "trainer_state.json").write_text(json.dumps({"global_step": 11}))
    with pytest.raises(
        ConfigError, match=r"checkpoint\.resume=step-10 cannot be used: .*hash differs.*Committed checkpoints: step-15, step-10, step-5\."
    ):
        refuse_unusable(run_dir, "step-10")


def test_one_that_is_absent_is_told_with_those_that_are_there(run_dir: RunDir) -> None:
    with pytest.raises(ConfigError, match=r"checkpoint\.resume=step-7 cannot be used: .*step-7 does not exist\. Committed checkpoints: step-15, "):
        refuse_unusable(run_dir, "step-7")


def test_a_resume_from_an_absent_step_starts_nothing(run_dir: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    save_run(described("model=demo", "data=demo", "node=cpu"), run_dir)
    before = run_dir.run_yaml.read_bytes()
    assert main(["train", f"resume={run_dir.path}", "checkpoint.resume=step-7"]) == 2
    assert "checkpoint.resume=step-7 cannot be used" in capsys.readouterr().err
    assert run_dir.run_yaml.read_bytes() == before
    assert not run_dir.lock.exists()
    assert {event["event"] for event in journal.events(run_dir)} == {"commit"}
    assert load_run(run_dir).checkpoint.resume == "newest"


def test_a_new_run_has_no_checkpoint_to_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "model=demo", "data=demo", "node=cpu", "checkpoint.resume=step-7"]) == 2
    assert "checkpoint.resume=step-7: a new run has no checkpoints. Remove the key, or name the run" in capsys.readouterr().err


def test_a_finished_run_keeps_its_model(run_dir: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    save_run(described("model=demo", "data=demo", "node=cpu"), run_dir)
    journal.record(run_dir, journal.Ended(0, "finished"))
    assert main(["train", f"resume={run_dir.path}", "checkpoint.resume=step-7"]) == 2
    assert "step-7 does not exist. Committed checkpoints: step-15, step-10, step-5." in capsys.readouterr().err
    assert main(["train", f"resume={run_dir.path}", "checkpoint.resume=step-5"]) == 2
    assert f"Use the weights of that step: regimen export {run_dir.path}@step-5" in capsys.readouterr().err
    assert len(committed(run_dir)) == 3
