"""What is not added to the queue, what is said then, and what an entry that lets a run go on does when its turn comes."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from conf import journal
from conf.run_dir import RunDir, save_run
from launcher.cli import main
from launcher.composition.compose import compose
from launcher.errors import ConfigError
from launcher.gate.judge import judge_run
from launcher.launch import lock
from launcher.queue import entries as queue
from launcher.queue.entries import QueueDir, queue_dir
from launcher.queue.judging import judged_now
from launcher.sweep.points import Permitted, refuse_wider
from launcher.sweep.schedule import Resources
from tests.described import described
from trainers.checkpoints.commit import commit

DEMO = ["recipe=demo", "node=cpu", "cluster.ranks_per_node=1"]
ONE = Resources((), 1)


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (["node.host_memory=100MB"], 3, "HOST_RAM"),
        (["cluster=slurm"], 2, "the queue begins runs on this machine"),
        (["nosuch=1"], 2, "nosuch is not a key"),
        (["optim.lr=1,2"], 2, "gives several values"),
        (["hydra.launcher.slots=2"], 2, "is a setting of sweeps"),
    ],
)
def test_what_cannot_begin_here_is_not_added(
    given: list[str], code: int, said: str, working_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in DEMO if not (given == ["cluster=slurm"] and word.startswith("cluster."))]
    assert main(["queue", "add", *words, *given]) == code
    assert said in capsys.readouterr().err
    assert list(working_folder.iterdir()) == []


def test_a_run_to_go_on_with_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["queue", "add", "resume=nowhere"]) == 2
    assert "nowhere is not a run folder" in capsys.readouterr().err


def test_an_empty_queue_says_how_a_run_is_added(working_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["queue"]) == 0
    assert "The queue is empty. Add a run with: regimen queue add KEY=VALUE" in capsys.readouterr().out
    assert list(working_folder.iterdir()) == []


@pytest.fixture
def place(working_folder: Path) -> Iterator[QueueDir]:
    """A queue whose scheduler is this process, which begins nothing: what is added waits."""
    found = queue_dir(os.environ)
    found.path.mkdir(parents=True)
    held = lock.this_process()
    lock.acquire(found.lockable, held)
    yield found
    lock.release(found.lockable, held)


def made(working_folder: Path, name: str, finished: bool = False) -> RunDir:
    """A run of 100 steps that stands at step 61, where it has a checkpoint, or at its end."""
    step = 100 if finished else 61
    run_dir = RunDir(working_folder / "outputs" / "demo" / name)
    run_dir.checkpoints.mkdir(parents=True)
    save_run(described("model=demo", "data=demo", "node=cpu", "cluster.ranks_per_node=1", "training.max_steps=100"), run_dir)
    run_dir.progress.write_text(json.dumps({"step": step, "of": 100, "loss": 1.0}) + "\n")
    staged = run_dir.checkpoints / ".making" / "checkpoint"
    staged.mkdir(parents=True)
    (staged / "trainer_state.json").write_text(json.dumps({"global_step": step, "epoch": 1.0}))
    commit(staged, run_dir, step, world=1)
    journal.record(run_dir, journal.Started())
    journal.record(run_dir, journal.Ended(0, "finished") if finished else journal.Ended(75, "stopped and saved"))
    return run_dir


def test_keys_that_are_given_for_a_run_that_goes_on_are_judged_and_run(
    place: QueueDir, working_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = made(working_folder, "one")
    assert main(["queue", "add", f"resume={run_dir.path}", "training.max_steps=120", "checkpoint.interval=7"]) == 0
    assert "length: training.max_steps 100 -> 120. The run goes on from step 61" in " ".join(capsys.readouterr().out.split())
    [entry] = queue.entries(place)
    found = judged_now(entry.overrides, [], ONE)
    assert isinstance(found, Permitted)
    assert (found.run_dir, found.judged.run.training.max_steps, found.judged.run.checkpoint.interval) == (run_dir, 120, 7)


@pytest.mark.parametrize(("saved", "said"), [(True, "laid out anew. Losses differ"), (False, "nothing is laid out anew")])
def test_a_move_is_said_to_lay_out_anew_only_what_was_saved(
    saved: bool, said: str, place: QueueDir, working_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = made(working_folder, "one")
    if not saved:
        shutil.rmtree(run_dir.checkpoints)
    assert main(["queue", "add", f"resume={run_dir.path}", "sharding=zero2"]) == 0
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("finished", "given", "said"),
    [
        (False, "training.max_steps=20", "stands at step 61. Give more than 61 steps"),
        (True, "training.max_steps=80", "is finished with step 100. Give more than 100 steps"),
        (False, "checkpoint.resume=step-7", "checkpoint.resume=step-7 cannot be used"),
        (False, "optim.lr=7", "was started with a different configuration"),
        (True, "checkpoint.interval=7", "is finished. Nothing is left to do."),
    ],
)
def test_what_train_would_not_start_is_refused_when_it_is_added_and_when_its_turn_comes(
    finished: bool, given: str, said: str, place: QueueDir, working_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"resume={made(working_folder, 'one', finished).path}", given]
    assert main(["queue", "add", *words]) == 2
    assert said in capsys.readouterr().err
    assert queue.entries(place) == []
    with pytest.raises(ConfigError, match=said):
        judged_now(words, [], ONE)


@pytest.mark.parametrize("word", ["last", "one", "outputs/demo/one"])
def test_the_run_that_a_word_means_when_it_is_added_is_the_one_that_goes_on(word: str, place: QueueDir, working_folder: Path) -> None:
    run_dir = made(working_folder, "one")
    assert main(["queue", "add", f"resume={word}"]) == 0
    made(working_folder, "newer")
    [entry] = queue.entries(place)
    assert entry.overrides == (f"resume={run_dir.path}",)
    found = judged_now(entry.overrides, [], ONE)
    assert isinstance(found, Permitted)
    assert found.run_dir == run_dir


def test_a_run_waits_once(place: QueueDir, working_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir, other = made(working_folder, "one"), made(working_folder, "other")

    def add(*words: str) -> int:
        return main(["queue", "add", *words])

    assert [add(f"resume={run_dir.path}"), add(f"resume={other.path}")] == [0, 0]
    assert add("resume=outputs/demo/../demo/one", "training.max_steps=120") == 2
    assert f"{run_dir.path} waits already: it is number 1 of the queue." in capsys.readouterr().err
    assert main(["queue", "remove", "1", "1"]) == 0
    assert "removed: 1\n" in capsys.readouterr().out
    assert add("resume=one", "training.max_steps=120") == 0
    assert [(entry.number, entry.state) for entry in queue.entries(place)] == [(1, "removed"), (2, "waiting"), (3, "waiting")]


def test_more_gpus_than_there_are_is_said_in_words_of_a_run() -> None:
    with pytest.raises(ConfigError, match=r"^This run needs 1 GPU, and 0 may be used here\. Lower"):
        refuse_wider(1, ONE)


def test_a_run_that_only_a_canary_can_judge_waits_for_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a node whose host memory is what the run is predicted to need, without the margin."""
    monkeypatch.setattr("launcher.queue.scheduler.ensure_running", lambda *_: None)
    memory = judge_run(compose([*DEMO, "gate.floor=advisory"])).estimate.host
    close = [*DEMO, "gate.floor=advisory", f"node.host_memory={memory}"]
    assert main(["queue", "add", *close]) == 3
    capsys.readouterr()
    assert main(["queue", "add", *close, "gate.canary=true"]) == 0
    assert "a canary decides when its turn comes" in " ".join(capsys.readouterr().out.split())
    assert main(["queue", "add", *DEMO, "gate.canary=true"]) == 0
    assert "a canary decides" not in capsys.readouterr().out
