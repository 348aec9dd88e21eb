"""training.max_steps or training.epochs on a resume: what is said before anything starts, what is refused, and what the folder says afterwards."""

import json
import os
from pathlib import Path

import pytest

from conf import journal
from conf.run_dir import RunDir, load_run, save_run
from launcher.cli import main
from launcher.errors import ConfigError
from launcher.launch import execute, lengthen, status
from launcher.launch.again import take_again
from launcher.verbs.train import decide_again
from tests.described import described
from trainers.checkpoints.commit import commit

RUN = ("model=demo", "data=demo", "node=cpu", "optim.lr=1e-3", "optim.warmup=0.1")


@pytest.fixture
def run_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A run that stands at a step of so many, with checkpoints of these steps; a finished one has its model."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def made(*overrides: str, step: int = 100, of: int = 100, checkpoints: tuple[int, ...] = (50, 100), finished: bool = True) -> RunDir:
        run_dir = RunDir(tmp_path / "outputs" / "demo" / "made")
        run_dir.checkpoints.mkdir(parents=True)
        save_run(described(*RUN, f"output={tmp_path / 'outputs'}", *overrides), run_dir)
        run_dir.progress.write_text(json.dumps({"step": step, "of": of, "loss": 1.0}) + "\n")
        for number in checkpoints:
            staged = run_dir.checkpoints / ".making" / "checkpoint"
            staged.mkdir(parents=True)
            (staged / "trainer_state.json").write_text(json.dumps({"global_step": number, "epoch": number / 50}))
            commit(staged, run_dir, number, world=2)
        journal.record(run_dir, journal.Started())
        journal.record(run_dir, journal.Ended(0, "finished") if finished else journal.Ended(75, "stopped and saved"))
        if finished:
            run_dir.model.mkdir()
            (run_dir.model / "model.safetensors").write_text("weights of the earlier end")
        return run_dir

    return made


def planned(run_dir: RunDir, capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    assert main(["plan", f"resume={run_dir.path}", *overrides]) == 0
    return " ".join(capsys.readouterr().out.split())


def refusal(run_dir: RunDir, *overrides: str) -> str:
    before = {path: path.read_bytes() for path in run_dir.path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError) as refused:
        decide_again(run_dir, overrides)
    assert {path: path.read_bytes() for path in run_dir.path.rglob("*") if path.is_file()} == before
    return str(refused.value)


def test_a_plan_says_from_where_it_goes_on_and_at_which_rate(run_of, capsys: pytest.CaptureFixture[str]) -> None:
    """Warmups of 10 and 20 steps: after 99 of 100 steps a line has 1/90 of its peak left, after 100 of 200 it has 100/180."""
    text = planned(run_of("training.max_steps=100", "optim.scheduler=linear"), capsys, "training.max_steps=200")
    assert "note: length: training.max_steps 100 -> 200. The run goes on from step 100 with the states of its optimizer." in text
    assert "The model of the earlier end stays in model/ until the new one is whole." in text
    assert "optim.scheduler=linear of 200 steps from step 101 on. Step 101 is made at 0.000556, as in a run of that length from its start" in text
    assert "; step 100 was made at 1.11e-05 by the schedule of 100 steps." in text
    assert "rises" not in text


def test_a_schedule_that_does_not_know_the_length_goes_on_unchanged(run_of, capsys: pytest.CaptureFixture[str]) -> None:
    text = planned(run_of("training.max_steps=100", "optim.scheduler=constant"), capsys, "training.max_steps=200")
    assert "optim.scheduler=constant does not depend on the number of steps and goes on unchanged." in text


def test_a_warmup_that_begins_again_is_said(run_of, capsys: pytest.CaptureFixture[str]) -> None:
    text = planned(run_of("training.max_steps=100"), capsys, "training.max_steps=2000")
    assert "optim.warmup=0.1 is 200 of these steps, so the rate rises until step 200." in text


def test_epochs_are_counted_in_the_steps_that_they_had(run_of, capsys: pytest.CaptureFixture[str]) -> None:
    text = planned(run_of("training.epochs=2"), capsys, "training.epochs=3.5")
    assert "training.epochs 2 -> 3.5" in text
    assert "optim.scheduler=cosine of 175 steps from step 101 on" in text


def test_steps_whose_state_was_not_kept_are_said_to_be_made_again(run_of, capsys: pytest.CaptureFixture[str]) -> None:
    text = planned(run_of("training.max_steps=100", checkpoints=(60,)), capsys, "training.max_steps=200")
    assert "Steps 61 to 100 are made again, because no later state was kept." in text


def test_a_stopped_run_may_become_shorter_but_not_than_it_is(run_of, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = run_of("training.max_steps=100", step=50, checkpoints=(50,), finished=False)
    assert "of 60 steps from step 51 on" in planned(run_dir, capsys, "training.max_steps=60")
    said = refusal(run_dir, "training.max_steps=50")
    assert said.startswith(f"training.max_steps 100 -> 50: {run_dir.path} stands at step 50. Give more than 50 steps, or start a new run.")
    assert said.endswith(f"regimen export {run_dir.path}@step-50")


def test_a_finished_run_does_not_become_shorter(run_of) -> None:
    run_dir = run_of("training.max_steps=100", checkpoints=(50,))
    assert "is finished with step 100. Give more than 100 steps" in refusal(run_dir, "training.max_steps=80")


def test_epochs_that_are_over_are_refused_where_their_steps_are_not_known(run_of) -> None:
    run_dir = run_of("training.epochs=2.5", step=50, of=125, checkpoints=(50,), finished=False)
    assert "stands at epoch 1. Give more than training.epochs=1, or start a new run." in refusal(run_dir, "training.epochs=0.5")


def test_a_run_of_which_only_the_model_was_kept_is_refused_with_what_helps(run_of) -> None:
    run_dir = run_of("training.max_steps=100", "checkpoint.interval=0", checkpoints=())
    said = refusal(run_dir, "training.max_steps=200")
    assert f"{run_dir.path} is finished, and only its model was kept, no checkpoint." in said
    assert f"Start a new run from its weights, with a warmup of its own: regime.adapter={run_dir.path}." in said


def test_epochs_have_no_effect_beside_max_steps(run_of) -> None:
    run_dir = run_of("training.max_steps=100")
    assert "training.epochs=5 has no effect, because training.max_steps=100 decides" in refusal(run_dir, "training.epochs=5")


def test_a_finished_run_whose_length_stays_has_nothing_to_do(run_of, capsys: pytest.CaptureFixture[str]) -> None:
    assert decide_again(run_of("training.max_steps=100"), ["training.max_steps=100"]) is None
    assert "Nothing is left to do." in capsys.readouterr().out


def test_what_is_given_in_vain_for_a_finished_run_is_said(run_of, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = run_of("training.max_steps=100")
    assert decide_again(run_dir, ["sharding=zero2", "checkpoint.interval=7", "training.max_steps=100"]) is None
    assert capsys.readouterr().out == (
        f"{run_dir.path} is finished. Nothing is left to do. These have no effect:\n  sharding: recorded ddp, given zero2\n"
        "  checkpoint.interval: recorded 200, given 7\n"
        "To train it further with them, give more training.max_steps or training.epochs too.\n"
    )


def test_a_longer_run_keeps_its_model_and_is_no_finished_one_any_more(run_of, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever happens next: the length is in run.yaml, the journal says it, and a plain resume goes on."""
    run_dir = run_of("training.max_steps=100")
    again = decide_again(run_dir, ["training.max_steps=200"])
    assert again is not None
    _, held = take_again(again, run_dir, os.environ)
    execute.lock.release(run_dir, held)
    assert "length: training.max_steps 100 -> 200." in capsys.readouterr().out
    assert load_run(run_dir).training.max_steps == 200
    assert (run_dir.model / "model.safetensors").read_text() == "weights of the earlier end"
    changed = {event["key"]: (event["before"], event["after"]) for event in journal.events(run_dir) if event["event"] == "change"}
    assert changed["training.max_steps"] == ("100", "200")
    assert status.status_of(run_dir).state == "dead"
    plain = decide_again(run_dir, [])
    assert plain is not None
    assert lengthen.changed_length(load_run(run_dir), plain.run) == ()
    assert "length: " not in capsys.readouterr().out
