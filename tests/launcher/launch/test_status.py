"""The state of a run from its files alone."""

import json
import os
import shutil
import subprocess
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from conf import journal
from conf.run_dir import RunDir, save_run
from conf.words import columns
from launcher.errors import ConfigError
from launcher.launch import lock
from launcher.launch.status import as_dict, find_runs, last_run, named_run, status_of, table
from launcher.verbs.watch import follow
from tests.described import described


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    return made_run(tmp_path, "demo/2026-11-22_10-00-00")


def made_run(output: Path, name: str) -> RunDir:
    made = RunDir(output / name)
    made.exits.mkdir(parents=True)
    made.layouts.mkdir()
    made.run_yaml.write_text("name: demo\n")
    return made


def owned_by(run_dir: RunDir, owner: lock.Owner) -> None:
    run_dir.lock.write_text(json.dumps(asdict(owner)))


def leave_exit(run_dir: RunDir, rank: int, code: int, message: str = "") -> None:
    run_dir.layout_file(rank).write_text("{}")
    run_dir.exit_file(rank).write_text(json.dumps({"rank": rank, "code": code, "message": message, "time": 1.0}))


def progress(run_dir: RunDir, *entries: dict[str, float]) -> None:
    run_dir.progress.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def test_a_commit_or_a_signal_does_not_change_what_a_run_of_slurm_does(run_dir: RunDir) -> None:
    journal.record(run_dir, journal.Started("n1", job="4711"))
    journal.record(run_dir, journal.Committed(5, 100, 0.1))
    journal.record(run_dir, journal.StopRequested("SIGTERM"))
    assert (status_of(run_dir).state, status_of(run_dir).job) == ("running", "4711")


def test_a_longer_run_that_failed_before_its_first_step_has_its_new_length(run_dir: RunDir) -> None:
    run_dir.plan.write_text(json.dumps({"run": {"stage": {"name": "sft"}}, "expected": {"steps": 20, "flops_per_token": 1.0, "peak_flops": None}}))
    journal.record(run_dir, journal.Started())
    progress(run_dir, {"step": 10, "of": 10, "time": time.time()})
    assert (status_of(run_dir).step, status_of(run_dir).of) == (10, 10)
    journal.record(run_dir, journal.Started())
    journal.record(run_dir, journal.Ended(80, "out of memory"))
    assert (status_of(run_dir).step, status_of(run_dir).of) == (10, 20)


def test_a_folder_that_nobody_started_is_made(run_dir: RunDir) -> None:
    assert status_of(run_dir).state == "made"


def test_a_folder_that_nobody_has_started_for_long_is_dead(run_dir: RunDir) -> None:
    """Otherwise `status --follow` of it would never end."""
    hour_ago = run_dir.path.stat().st_mtime - 3600
    os.utime(run_dir.path, (hour_ago, hour_ago))
    found = status_of(run_dir)
    assert found.state == "dead"
    assert found.message == f"it was made, and nothing has started it; start it with: regimen train resume={run_dir.path}"
    with pytest.raises(ConfigError, match="nothing has started it"):
        follow(str(run_dir.path), None)


def test_a_launcher_that_died_before_it_could_write_a_line_is_dead(run_dir: RunDir) -> None:
    run_dir.journal.write_text("")
    child = subprocess.Popen(["true"])
    child.wait()
    owned_by(run_dir, replace(lock.this_process(), pid=child.pid))
    assert status_of(run_dir).state == "dead"


def test_a_living_owner_means_running(run_dir: RunDir) -> None:
    journal.record(run_dir, journal.Started())
    lock.acquire(run_dir, lock.this_process())
    found = status_of(run_dir)
    assert (found.state, found.message) == ("running", f"process {os.getpid()} on {lock.this_process().host}")


def test_a_start_without_an_end_or_an_owner_is_dead(run_dir: RunDir) -> None:
    journal.record(run_dir, journal.Started())
    child = subprocess.Popen(["true"])
    child.wait()
    owned_by(run_dir, replace(lock.this_process(), pid=child.pid))
    found = status_of(run_dir)
    assert (found.state, found.exit_code) == ("dead", None)
    assert f"regimen train resume={run_dir.path}" in found.message


@pytest.mark.parametrize(("code", "state"), [(0, "finished"), (75, "stopped"), (80, "failed"), (1, "failed")])
def test_a_recorded_end_is_the_state(code: int, state: str, run_dir: RunDir) -> None:
    journal.record(run_dir, journal.Started())
    journal.record(run_dir, journal.Ended(code, "said"))
    found = status_of(run_dir)
    assert (found.state, found.exit_code, found.message) == (state, code, "said")


def test_a_run_that_goes_on_after_its_end_is_running_again(run_dir: RunDir) -> None:
    journal.record(run_dir, journal.Ended(75, "saved"))
    journal.record(run_dir, journal.Started())
    lock.acquire(run_dir, lock.this_process())
    assert status_of(run_dir).state == "running"


def test_a_run_in_the_hands_of_slurm_says_what_its_job_recorded(run_dir: RunDir) -> None:
    journal.record(run_dir, journal.Submitted("4711"))
    progress(run_dir, {"step": 1, "of": 10, "time": 1.0, "loss": 2.0})  # of an attempt before
    assert (status_of(run_dir).state, status_of(run_dir).message, status_of(run_dir).job) == ("queued", "Slurm job 4711", "4711")
    journal.record(run_dir, journal.Started("n1", job="4711"))
    leave_exit(run_dir, 0, 75)  # the others are still saving
    assert (status_of(run_dir).state, status_of(run_dir).exit_code) == ("running", None)
    journal.record(run_dir, journal.Requeued("4711"))
    assert status_of(run_dir).state == "queued"
    journal.record(run_dir, journal.Ended(0, "finished"))
    assert (status_of(run_dir).state, status_of(run_dir).job) == ("finished", None)


def test_unsupervised_ranks_that_all_finished_make_a_finished_run(run_dir: RunDir) -> None:
    journal.record(run_dir, journal.Started("here", journal.TORCHRUN))
    leave_exit(run_dir, 0, 0)
    run_dir.layout_file(1).write_text("{}")
    assert (status_of(run_dir).state, status_of(run_dir).message) == ("running", "1 of 2 ranks have ended")
    leave_exit(run_dir, 1, 0)
    assert status_of(run_dir).state == "finished"


def test_one_failed_unsupervised_rank_makes_a_failed_run(run_dir: RunDir) -> None:
    journal.record(run_dir, journal.Started("here", journal.TORCHRUN))
    leave_exit(run_dir, 0, 0)
    leave_exit(run_dir, 1, 80, "Out of memory")
    found = status_of(run_dir)
    assert (found.state, found.exit_code) == ("failed", 80)
    assert "Out of memory (rank 1" in found.message


def test_the_last_losses_are_shown_with_the_last_step(run_dir: RunDir) -> None:
    progress(
        run_dir,
        {"step": 0, "of": 10, "time": 5.0, "eval_loss": 3.0},
        {"step": 1, "of": 10, "time": 6.0, "loss": 2.5},
        {"step": 2, "of": 10, "time": 7.0, "loss": 2.0},
    )
    found = status_of(run_dir)
    assert (found.step, found.of, found.loss, found.eval_loss) == (2, 10, 2.0, 3.0)


def test_progress_that_is_being_written_does_no_harm(run_dir: RunDir) -> None:
    run_dir.progress.write_text('{"step": 1, "of": 10, "loss": 2.5, "time": 6.0}\n{"step": 2, "o')
    assert status_of(run_dir).step == 1


def test_runs_and_points_of_sweeps_are_found(tmp_path: Path) -> None:
    one, point = made_run(tmp_path, "demo/one"), made_run(tmp_path, "sweep/two/point")
    made_run(tmp_path, "a/b/c/too-deep")
    assert {run.path for run in find_runs(tmp_path)} == {one.path, point.path}


def test_last_is_the_run_that_was_started_last(tmp_path: Path) -> None:
    older, newer = made_run(tmp_path, "demo/b"), made_run(tmp_path, "demo/a")
    os.utime(older.run_yaml, (1000, 1000))
    os.utime(newer.run_yaml, (2000, 2000))
    assert named_run("last", tmp_path) == newer
    os.utime(older.run_yaml, (3000, 3000))  # it was resumed
    assert last_run(tmp_path) == older


def test_no_run_to_be_last_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"There is no run under {tmp_path}"):
        named_run("last", tmp_path)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("outputs/demo/b/model", "outputs/demo/b"),
        ("outputs/demo/b/checkpoints/step-3", "outputs/demo/b@step-3"),
        ("outputs/demo", "outputs/demo/b"),
        ("outputs", "outputs/demo/b"),
        ("LAST", "last"),
    ],
)
def test_a_folder_around_or_in_a_run_is_told_with_that_run(name: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made_run(tmp_path / "outputs", "demo/a")
    newer = made_run(tmp_path / "outputs", "demo/b")
    newer.checkpoint(3).mkdir(parents=True)
    newer.model.mkdir()
    with pytest.raises(ConfigError) as refused:
        named_run(name, Path("outputs"))
    assert str(refused.value) == f"{name} is not a run folder, because it has no run.yaml. Did you mean {meant}?"


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{tmp_path} is not a run folder"):
        named_run(str(tmp_path), tmp_path)


def test_a_message_of_several_lines_takes_one_line_of_the_table(run_dir: RunDir) -> None:
    journal.record(run_dir, journal.Ended(2, "first\nsecond"))
    lines = table([status_of(run_dir)])
    assert len(lines) == 2
    assert lines[1].endswith("first")


def test_a_run_with_a_chinese_name_leaves_the_columns_after_it_in_line(tmp_path: Path, run_dir: RunDir) -> None:
    named = made_run(tmp_path, "数据/2026-11-22_10-00-00")
    lines = table([status_of(run_dir), status_of(named)])
    assert len({columns(line[: line.index("  made")]) for line in lines[1:]}) == 1


def test_json_holds_every_field(run_dir: RunDir) -> None:
    journal.record(run_dir, journal.Ended(75, "saved"))
    progress(run_dir, {"step": 2, "of": 10, "time": 7.0, "loss": 2.0})
    [entry] = [json.loads(json.dumps(as_dict(status_of(run_dir))))]
    assert {key: value for key, value in entry.items() if key != "updated"} == {
        "run_folder": str(run_dir.path),
        "state": "stopped",
        "step": 2,
        "of": 10,
        "loss": 2.0,
        "eval_loss": None,
        "exit_code": 75,
        "message": "saved",
        "job": None,
        "measured": {"loss": 2.0},
        "doing": None,
        "damaged": "",
    }


def test_a_loss_that_is_no_number_is_null_in_json(run_dir: RunDir) -> None:
    run_dir.progress.write_text('{"step": 1, "of": 2, "time": 1.0, "loss": NaN, "eval_loss": Infinity}\n')
    status = status_of(run_dir)
    assert "nan" in "".join(table([status]))
    [entry] = [json.loads(json.dumps(as_dict(status)), parse_constant=pytest.fail)]
    assert (entry["loss"], entry["eval_loss"]) == (None, None)


def plan(run_dir: RunDir, stage: str = "sft", steps: int | None = 200) -> None:
    expected = {"flops_per_token": 1.0, "peak_flops": None, "steps": steps}
    run_dir.plan.write_text(json.dumps({"run": {"stage": {"name": stage}}, "expected": expected}))


@pytest.mark.parametrize(("steps", "shown"), [(200, "0/200"), (None, "0/?")])
def test_a_run_that_was_just_started_says_how_many_steps_are_before_it(steps: int | None, shown: str, run_dir: RunDir) -> None:
    plan(run_dir, steps=steps)
    assert f"  {shown}  " in table([status_of(run_dir)])[1]


def test_a_run_before_its_first_step_says_what_it_does(run_dir: RunDir) -> None:
    journal.record(run_dir, journal.Started())
    lock.acquire(run_dir, lock.this_process())
    assert str(status_of(run_dir).doing).startswith("starting the ranks, ")
    run_dir.doing.write_text(json.dumps({"time": time.time() - 12, "doing": "loading weights"}) + "\n")
    assert "  loading weights, 12 s; process " in table([status_of(run_dir)])[1]
    with run_dir.doing.open("a") as file:
        file.write(json.dumps({"time": time.time(), "doing": "training"}) + "\n")
    assert status_of(run_dir).doing is None


def test_what_the_stage_is_about_is_shown_of_the_last_step_and_the_last_evaluation(run_dir: RunDir) -> None:
    plan(run_dir, "dpo")
    progress(
        run_dir,
        {"step": 1, "of": 10, "time": 6.0, "loss": 0.7, "reward_accuracy": 0.5},
        {"step": 2, "of": 10, "time": 7.0, "loss": 0.6, "reward_accuracy": 0.75},
        {"step": 2, "of": 10, "time": 8.0, "eval_loss": 0.65, "eval_reward_accuracy": 0.625, "eval_other": 1.0},
    )
    found = status_of(run_dir)
    assert found.measured == {"reward_accuracy": 0.75, "loss": 0.6, "eval_reward_accuracy": 0.625, "eval_loss": 0.65}
    assert "  accuracy 75.0% · loss 0.6000  accuracy 62.5% · loss 0.6500  " in table([found])[1]


def test_a_table_that_is_wider_than_the_terminal_becomes_short_lines_without_a_loss(run_dir: RunDir) -> None:
    plan(run_dir)
    journal.record(run_dir, journal.Ended(80, "Out of memory in the phase backward. " + "Set a lower training.micro_batch. " * 3))
    progress(run_dir, {"step": 2, "of": 10, "time": 7.0, "loss": 2.0, "eval_loss": 2.5})
    status = replace(status_of(run_dir), run_dir=RunDir(Path("outputs/demo/2026-11-22_10-00-00")))
    [wide] = table([status], 400)[1:]
    narrow = table([status], 80)
    assert max(map(len, narrow)) <= 80
    assert narrow[0] == "outputs/demo/2026-11-22_10-00-00  failed  2/10  0 s ago"
    assert narrow[1] == "  loss 2.0000 · evaluation loss 2.5000"
    assert wide.endswith(" ".join(line.strip() for line in narrow[2:]))


def test_runs_below_the_working_folder_are_named_from_there(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run_dir.path.parent.parent)
    assert table([status_of(run_dir)])[1].startswith("demo/2026-11-22_10-00-00  made")
    monkeypatch.chdir(run_dir.exits)
    assert table([status_of(run_dir)])[1].startswith(f"{run_dir.path}  made")


def test_a_damaged_line_is_said_beside_what_the_others_say(run_dir: RunDir) -> None:
    journal.record(run_dir, journal.Started())
    with run_dir.journal.open("a") as file:
        file.write('{"time": 7.0, "eve\n')
    journal.record(run_dir, journal.Ended(0, "finished"))
    found = status_of(run_dir)
    assert (found.state, found.damaged) == ("finished", "journal.jsonl is damaged (1 line left out)")
    assert table([found])[1].endswith("journal.jsonl is damaged (1 line left out)")


def test_a_damaged_lock_hides_no_run(run_dir: RunDir) -> None:
    journal.record(run_dir, journal.Started())
    run_dir.lock.write_text("")
    found = status_of(run_dir)
    assert found.state == "unknown"
    assert "If no process works in that folder, take it over with: regimen train resume=" in found.message


def test_a_name_that_one_run_alone_has_means_that_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second, other = (made_run(tmp_path / "outputs", name) for name in ("demo/a", "demo/b", "other/c"))
    assert named_run("a", Path("outputs")).path == first.path
    assert named_run("other", Path("outputs")).path == other.path
    with pytest.raises(ConfigError) as refused:
        named_run("demo", Path("outputs"))
    assert str(refused.value) == "demo is the name of 2 runs. Did you mean the newest, outputs/demo/b? The others are outputs/demo/a."
    assert second.path.is_dir()


def test_a_finished_run_shows_the_evaluation_of_the_model_that_it_kept(tmp_path: Path) -> None:
    made = RunDir(tmp_path / "demo/best")
    made.exits.mkdir(parents=True)
    best = ("evaluation.best_at_end=true", "evaluation.interval=5", "checkpoint.interval=5")
    save_run(described("model=demo", "data=demo", "node=cpu", *best), made)
    progress(made, {"step": 5, "of": 10, "eval_loss": 1.0}, {"step": 10, "of": 10, "eval_loss": 2.0, "loss": 0.5})
    assert status_of(made).eval_loss == 2.0
    journal.record(made, journal.Ended(0, ""))
    found = status_of(made)
    assert (found.state, found.eval_loss, found.loss) == ("finished", 1.0, 0.5)


def test_a_narrow_table_counts_columns_and_not_characters(run_dir: RunDir) -> None:
    journal.record(run_dir, journal.Ended(4, "数据 文件 不存在 请检查 文件 路径 然后 再 运行 一次 训练 命令"))
    lines = table([status_of(run_dir)], 30)
    assert max(map(columns, lines[1:])) <= 30
    assert "".join(lines).count("训练") == 1


def test_runs_that_are_removed_while_they_are_looked_for_stop_nobody(tmp_path: Path, run_dir: RunDir) -> None:
    """Was: FileNotFoundError, where a folder went between two looks at it."""
    other, ended = tmp_path / "other" / "now", threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            (other / "inside").mkdir(parents=True, exist_ok=True)
            (other / "run.yaml").touch()
            shutil.rmtree(other.parent)

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        found = [[each.path for each in find_runs(tmp_path)] for _ in range(2000)]
    finally:
        ended.set()
        thread.join()
    assert {path for paths in found for path in paths} <= {other, run_dir.path}
    assert all(run_dir.path in paths for paths in found)
