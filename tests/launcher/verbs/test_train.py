"""What `regimen train` says when a run has ended."""

import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest

from conf import journal
from conf.run_dir import RunDir, save_run
from launcher.cli import main
from launcher.composition.recorded import recorded_run as recorded_run_of
from launcher.errors import ConfigError, DataError, GateRefused, RanksFailed, RunLocked
from launcher.launch import batch_job, execute, lock, status
from launcher.launch.backends import command
from launcher.launch.torchrun_door import Rank
from launcher.verbs import plan, train, watch
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


def test_a_finished_run_says_what_its_stage_is_about(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    save_run(described("model=demo", "data=demo", "node=cpu", "stage=dpo"), run_dir)
    step = {"step": 20, "of": 20, "loss": 0.6, "reward_accuracy": 0.75, "reward_margin": 0.5}
    run_dir.progress.write_text(json.dumps(step) + "\n")
    assert closing_summary(run_dir) == "step 20: accuracy 75.0% · margin 0.500 · loss 0.6000. "
    before, after = (
        {"step": 0, "of": 20, "eval_loss": 0.7, "eval_reward_accuracy": 0.5},
        {"step": 20, "of": 20, "eval_loss": 0.5, "eval_reward_accuracy": 0.875},
    )
    run_dir.progress.write_text("".join(json.dumps(entry) + "\n" for entry in (before, step, after)))
    assert closing_summary(run_dir) == "evaluation accuracy 50.0% -> 87.5%. evaluation loss 0.7000 -> 0.5000. "


def test_ppo_says_the_reward_of_its_last_rollout_though_later_steps_measured_none(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    save_run(described("model=demo", "data=demo", "node=cpu", "stage=ppo", "stage.reward_model=judge"), run_dir)
    lines = [{"step": 1, "reward": 0.25, "kl": 0.0, "loss": 0.5}, {"step": 5, "reward": 0.75, "kl": 0.01, "loss": 0.4}, {"step": 8, "loss": 0.3}]
    run_dir.progress.write_text("".join(json.dumps({**line, "of": 8}) + "\n" for line in lines))
    assert closing_summary(run_dir) == "step 8: reward 0.750 · KL 0.0100 · loss 0.3000. "


def test_the_closing_line_has_the_loss_of_the_checkpoint_that_was_kept(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    overrides = ("evaluation.interval=10", "checkpoint.interval=10", "evaluation.best_at_end=true")
    save_run(described("model=demo", "data=demo", "node=cpu", *overrides), run_dir)
    lines = [{"step": step, "of": 30, "eval_loss": loss} for step, loss in ((0, 3.0), (10, 1.5), (20, 1.25), (30, 1.75))]
    run_dir.progress.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert closing_summary(run_dir) == "evaluation loss 3.0000 -> 1.2500. kept: step 20, the best by eval_loss. "


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


def refusing_run(output: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A run whose rank 0 has refused its data before the first step."""
    run_dir = recorded_run(output)
    for folder in (run_dir.logs, run_dir.exits):
        folder.mkdir()
    run_dir.rank_log(0).write_text("what rank 0 printed\n")
    run_dir.exit_file(0).write_text(json.dumps({"rank": 0, "code": 4, "message": "my.jsonl is empty. Fix it.", "time": 1.0}))
    monkeypatch.setattr(sys, "executable", "/bin/true")  # stands for the agent and its ranks
    return run_dir


def test_a_run_that_never_began_leaves_no_folder_and_its_message_names_logs_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run_dir = refusing_run(tmp_path / "outputs", monkeypatch)
    with pytest.raises(DataError) as refused:
        train.supervised(run_dir, command(recorded_run_of(run_dir), run_dir), execute.own(run_dir), 0)
    said = re.fullmatch(r"my\.jsonl is empty\. Fix it\. \(rank 0; the full traceback is in (.+)\)", str(refused.value))
    assert said is not None
    assert Path(said[1]).read_text() == "what rank 0 printed\n"
    assert list((tmp_path / "outputs").iterdir()) == []  # the folder of its name would be empty


def test_the_folder_of_a_detached_run_that_never_began_stays_for_who_comes_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = refusing_run(tmp_path, monkeypatch)
    with pytest.raises(DataError, match=rf"my\.jsonl is empty\. Fix it\. \(rank 0; the full traceback is in {run_dir.rank_log(0)}\)"):
        train.supervise_folder(run_dir.path)
    assert run_dir.rank_log(0).exists()
    assert (status.status_of(run_dir).state, status.status_of(run_dir).exit_code) == ("failed", 4)
    with pytest.raises(DataError):
        watch.follow(str(run_dir.path), tmp_path)  # a follower only looks
    assert run_dir.rank_log(0).exists()


def test_a_supervisor_that_never_had_the_folder_is_no_detached_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = recorded_run(tmp_path)
    run_dir.logs.mkdir()
    monkeypatch.setattr(sys, "executable", "/bin/false")  # stands for a supervisor that ends at once
    with pytest.raises(RanksFailed, match=rf"ended with exit code 1 before it had the run. {run_dir.launcher_log} says why"):
        execute.detach(run_dir, execute.own(run_dir), os.environ)
    assert not run_dir.lock.exists()


STEPS = {  # what reads or changes a run folder on the way to a start, by the module that does it
    execute: ("start_fresh", "own", "clear_last_attempt", "write_plan"),
    batch_job: ("refuse_active",),
    lock: ("refuse_live_owner",),
    train: ("judged", "judge_recorded", "after_canary"),
}


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the steps as they are taken."""
    taken: list[str] = []

    def noted(name: str, act: Callable[..., object]) -> Callable[..., object]:
        def step(*arguments: object) -> object:
            taken.append(name)
            return act(*arguments)

        return step

    for module, names in STEPS.items():
        for name in names:
            monkeypatch.setattr(module, name, noted(name, getattr(module, name)))
    return taken


def torchrun_rank() -> Rank:
    return Rank(rank=0, world=2, ranks_per_node=2, job="job", restart=0, unique=True, agent="here:1:1")


def recorded_run(output: Path) -> RunDir:
    run_dir = RunDir(output / "demo" / "made")
    run_dir.path.mkdir(parents=True)
    save_run(described("model=demo", "data=demo", "node=cpu", f"output={output}"), run_dir)
    return run_dir


def test_a_run_starts_by_the_same_steps_through_both_doors(tmp_path: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "supervised", lambda *_: 0)
    overrides = ["model=demo", "data=demo", "node=cpu", f"output={tmp_path}"]
    assert train.train(overrides, [], detached=False) == 0
    by_hand = [*steps]
    steps.clear()
    train.folder_for_torchrun(torchrun_rank(), tmp_path / "place", overrides, [])
    assert steps == by_hand == ["judged", "after_canary", "start_fresh", "own", "write_plan"]


def test_a_run_goes_on_by_the_same_steps_through_both_doors(tmp_path: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "supervised", lambda *_: 0)
    one, other = recorded_run(tmp_path / "one"), recorded_run(tmp_path / "other")
    assert train.train([f"resume={one.path}"], [], detached=False) == 0
    by_hand = [*steps]
    steps.clear()
    train.folder_for_torchrun(torchrun_rank(), tmp_path / "place", [f"resume={other.path}"], [])
    assert steps == by_hand
    assert steps == ["refuse_active", "refuse_live_owner", "judge_recorded", "after_canary", "own", "clear_last_attempt", "write_plan"]


def test_torchrun_touches_nothing_of_a_run_that_is_alive(tmp_path: Path) -> None:
    run_dir = recorded_run(tmp_path)
    run_dir.layouts.mkdir()
    run_dir.layout_file(0).write_text("{}")
    run_dir.stop.write_text("stop")
    run_dir.journal.write_text("")
    lock.acquire(run_dir, lock.this_process())
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in run_dir.path.rglob("*")}
    with pytest.raises(RunLocked):
        train.folder_for_torchrun(torchrun_rank(), tmp_path / "place", [f"resume={run_dir.path}"], [])
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in run_dir.path.rglob("*")} == before


def test_torchrun_reads_the_verdict_on_a_run_that_goes_on(tmp_path: Path) -> None:
    run_dir = recorded_run(tmp_path)
    run = described("model=demo", "data=demo", "node=cpu", "gate.mode=enforce", f"output={tmp_path}")
    save_run(replace(run, node=replace(run.node, auto=False, host_memory=2**27)), run_dir)
    with pytest.raises(GateRefused):
        train.folder_for_torchrun(torchrun_rank(), tmp_path / "place", [f"resume={run_dir.path}"], [])
    assert not run_dir.lock.exists()


def test_torchrun_with_ranks_on_which_a_step_would_take_other_samples_is_refused(tmp_path: Path) -> None:
    run_dir = recorded_run(tmp_path)
    with pytest.raises(ConfigError, match="each step of this run has 2 samples, which 4 ranks cannot share evenly"):
        train.folder_for_torchrun(replace(torchrun_rank(), world=4, ranks_per_node=4), tmp_path / "place", [f"resume={run_dir.path}"], [])


@pytest.mark.parametrize(
    "verb", [lambda given: train.train(given, [], detached=False), lambda given: plan.unstarted(given, [])], ids=["train", "plan"]
)
def test_several_nodes_of_this_machine_are_refused_from_the_command_line(verb: Callable[[list[str]], object], tmp_path: Path) -> None:
    """The plan would count ranks that nobody starts. Under torchrun each node starts its own."""
    with pytest.raises(ConfigError, match=r"cluster\.nodes=2 with cluster=local: .* Set cluster\.nodes=1"):
        verb(["model=demo", "data=demo", "node=cpu", "cluster.nodes=2", f"output={tmp_path}/outputs"])
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(("offline", "why"), [(False, "[Errno 111] Connection refused"), (True, "HF_HUB_OFFLINE is set")])
def test_a_model_that_nothing_here_can_load_is_refused_before_there_is_a_folder(
    offline: bool, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody listens at the endpoint, and nothing is cached."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "a.jsonl").write_text(json.dumps({"instruction": "q", "output": "a"}) + "\n")
    given = ["model=qwen2.5_0.5b", "data=files", "data.sets=[a.jsonl]", "node=cpu", "cluster.ranks_per_node=1", "gate.mode=off", "output=out"]
    assert main(["train", *given]) == 2
    assert (
        f"model.path=Qwen/Qwen2.5-0.5B is not on this machine, and the hub cannot be reached ({why}). Check the network," in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()
