"""Runs in Slurm's hands, with stand-ins for Slurm's commands on the PATH."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conf import journal
from conf.run_dir import RunDir, save_run
from launcher.cli import main
from launcher.composition.recorded import recorded_run
from launcher.errors import RunLocked
from launcher.launch import batch_job, execute
from launcher.launch.batch_script import STOPPED_BY_SLURM, TERMINATED, TIME_LIMIT
from launcher.launch.status import RunStatus, status_of
from tests.described import described

RUN = ("model=demo", "data=demo", "cluster=slurm", "cluster.nodes=2", "cluster.ranks_per_node=1", "node=cpu", "name=demo")
Put = Callable[[str, str], None]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Puts a shell script on the otherwise empty PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return put


@pytest.fixture
def run_dir(tmp_path: Path, put: Put) -> RunDir:
    """A run whose job 12 was submitted."""
    made = RunDir(tmp_path / "outputs" / "demo" / "one")
    made.exits.mkdir(parents=True)
    save_run(described(*RUN), made)
    journal.record(made, journal.Submitted("12"))
    return made


def leave_exit(run_dir: RunDir, rank: int, code: int) -> None:
    run_dir.exits.mkdir(exist_ok=True)
    run_dir.exit_file(rank).write_text(json.dumps({"rank": rank, "code": code, "message": "said", "time": 1.0}))


def told(run_dir: RunDir) -> RunStatus:
    [now] = batch_job.as_slurm_says([status_of(run_dir)])
    return now


def last_event(run_dir: RunDir) -> dict[str, object]:
    entry = journal.events(run_dir)[-1]
    del entry["time"]
    return entry


def submitted(output: Path) -> RunDir:
    [path] = output.glob("demo/*")
    return RunDir(path)


def test_a_submission_returns_with_job_and_folder(tmp_path: Path, put: Put, capsys: pytest.CaptureFixture[str]) -> None:
    put("sbatch", "echo 4711")
    assert main(["train", *RUN, f"output={tmp_path / 'outputs'}"]) == 0
    run_dir = submitted(tmp_path / "outputs")
    assert capsys.readouterr().out.splitlines()[-1] == f"submitted as Slurm job 4711. run folder: {run_dir.path}"
    assert last_event(run_dir) == {"event": "submitted", "job": "4711"}


TESTED = """if [ "$1" != --test-only ]; then echo 4711; exit; fi; echo "{said}" >&2; exit {code}"""
IMPOSSIBLE = "allocation failure: Requested node configuration is not available"


@pytest.mark.parametrize(
    ("said", "code", "told"),
    [
        (
            "sbatch: Job 8 to start at 2026-11-30T10:43:50 using 2 processors on nodes n[1-2]",
            0,
            "Slurm expects the job to start at 2026-11-30T10:43:50.",
        ),
        ("sbatch: Job 8 to start at 2537-04-18T22:58:52 using 2 processors on nodes n[1-2]", 0, None),
        (
            IMPOSSIBLE,
            1,
            f"note: Slurm cannot place the job on the nodes that are available now ({IMPOSSIBLE}), and it may wait for long. Not available: n7.",
        ),
    ],
)
def test_slurm_is_asked_first_when_the_job_would_start(
    said: str, code: int, told: str | None, tmp_path: Path, put: Put, capsys: pytest.CaptureFixture[str]
) -> None:
    put("sbatch", TESTED.format(said=said, code=code))
    put("sinfo", "echo n7; echo n7")
    assert main(["train", *RUN, f"output={tmp_path / 'outputs'}"]) == 0
    out = capsys.readouterr().out
    assert ([told] if told else []) == [line for line in out.splitlines() if line.startswith(("Slurm expects", "note: Slurm"))]
    assert "submitted as Slurm job 4711" in out


@pytest.mark.parametrize("sinfo", [None, "echo 'sinfo: error: Bad state string' >&2; exit 1"])
def test_a_job_is_not_refused_where_sinfo_cannot_say_which_nodes_are_down(
    sinfo: str | None, tmp_path: Path, put: Put, capsys: pytest.CaptureFixture[str]
) -> None:
    put("sbatch", TESTED.format(said=IMPOSSIBLE, code=1))
    if sinfo:
        put("sinfo", sinfo)
    assert main(["train", *RUN, f"output={tmp_path / 'outputs'}"]) == 0
    assert f"Not available: unknown, because sinfo {'failed: Bad state string' if sinfo else 'is not on the PATH'}" in capsys.readouterr().out


def test_a_job_that_no_node_can_take_is_refused_and_leaves_no_folder(tmp_path: Path, put: Put, capsys: pytest.CaptureFixture[str]) -> None:
    """sbatch alone accepts five nodes of two, and the job waits for ever."""
    put("sbatch", TESTED.format(said=IMPOSSIBLE, code=1))
    put("sinfo", ":")
    assert main(["train", *RUN, f"output={tmp_path / 'outputs'}"]) == 5
    assert f"sbatch refused the job: {IMPOSSIBLE}" in capsys.readouterr().err
    assert not list((tmp_path / "outputs").iterdir())


def test_sbatch_runs_in_the_planned_environment(tmp_path: Path, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    site = {
        "SBATCH_PARTITION": "debug",
        "SBATCH_ACCOUNT": "lab",
        "SBATCH_EXPORT": "NONE",
        "GITHUB_TOKEN": "secret",
        "NCCL_X": "kept",
        "SBATCH_QOS": "low",
    }
    for name, value in site.items():
        monkeypatch.setenv(name, value)
    seen = tmp_path / "environment"
    put("sbatch", f"/usr/bin/env >'{seen}'; echo 4711")
    assert main(["train", *RUN, "cluster.partition=main", "cluster.qos=high", f"output={tmp_path / 'outputs'}"]) == 0
    found = dict(line.split("=", 1) for line in seen.read_text().splitlines() if "=" in line)
    # the account is not stated by the run, and so stays the site's
    assert {name: found[name] for name in site if name in found} == {"SBATCH_ACCOUNT": "lab", "NCCL_X": "kept"}
    assert (found["PYTHONSAFEPATH"], found["CUDA_VISIBLE_DEVICES"], found["DS_ACCELERATOR"]) == ("1", "", "cpu")


@pytest.mark.parametrize(
    ("sbatch", "message"),
    [
        (None, "sbatch is not on the PATH"),
        ("echo 'sbatch: error: Invalid qos specification' >&2; exit 1", "sbatch refused the job: Invalid qos specification"),
        ("echo nonsense", "names no job"),
    ],
)
def test_a_submission_that_fails_ends_with_5_and_leaves_no_folder(
    sbatch: str | None, message: str, tmp_path: Path, put: Put, capsys: pytest.CaptureFixture[str]
) -> None:
    if sbatch is not None:
        put("sbatch", sbatch)
    assert main(["train", *RUN, f"output={tmp_path / 'outputs'}"]) == 5
    said = capsys.readouterr().err
    assert message in said
    assert said.count("regimen:") == 1
    assert not list((tmp_path / "outputs").iterdir())


@pytest.mark.parametrize(
    ("overrides", "code", "said"),
    [
        (
            ("cluster.time=8h",),
            2,
            "cluster.time=8h is not a value that sbatch accepts. Write HH:MM:SS or D-HH:MM:SS, for example cluster.time=08:00:00.",
        ),
        (("cluster.memory=lots",), 2, "cluster.memory=lots is not a value that sbatch accepts. Write a number and its unit"),
        (("cluster.time=480",), 2, "cluster.time=480 is not"),
        (("cluster.qos='$(id)'",), 77, "cluster.qos='$(id)' cannot be written into a batch script"),
    ],
)
def test_a_value_that_slurm_does_not_accept_is_refused_before_there_is_a_folder(
    overrides: tuple[str, ...], code: int, said: str, tmp_path: Path, put: Put, capsys: pytest.CaptureFixture[str]
) -> None:
    put("sbatch", "echo 4711")
    given = [word for word in RUN if not any(word.startswith(override.split("=")[0] + "=") for override in overrides)]
    for verb in ("plan", "train"):
        assert main([verb, *given, *overrides, f"output={tmp_path / 'outputs'}"]) == code
        assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("outputs/*"))


@pytest.mark.parametrize(
    ("node", "code"),
    [
        ((), 2),
        (("node=auto",), 2),
        (("node=auto", "node.gpus=0"), 2),
        (("node=cpu",), 0),
        (("node=auto", "node.gpus=0", "node.host_memory=64GB"), 0),
        (("node=h100_80",), 0),
    ],
)
def test_a_machine_without_gpus_does_not_stand_for_the_node_of_a_job(
    node: tuple[str, ...], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    given = [word for word in RUN if not word.startswith("node=")]
    assert main(["plan", *given, *node, f"output={tmp_path}"]) == code
    said = "cluster=slurm with node=auto reads the nodes of the partition. sinfo is not on the PATH."
    told = capsys.readouterr().err
    assert (said in told) == (code == 2)
    assert ("Set node= to one of a100_40, a100_80, h100_80, h200_141," in told) == (code == 2)


def test_an_output_that_slurm_could_misread_is_refused(tmp_path: Path, put: Put, capsys: pytest.CaptureFixture[str]) -> None:
    put("sbatch", "echo 4711")
    assert main(["train", *RUN, f"output='{tmp_path}/my runs'"]) == 77
    assert "for example output=/home/me/outputs" in capsys.readouterr().err
    assert not (tmp_path / "my runs").exists()


# cluster.time, cluster.signal_seconds: 60 s because Slurm may warn early, and 60 s for a start
@pytest.mark.parametrize(
    ("time", "signal", "said"),
    [
        ("00:02:00", 300, "Set cluster.time=00:07:00 or more."),
        ("00:06:59", 300, "Set cluster.time=00:07:00 or more, or lower cluster.signal_seconds to 299 or less"),
        ("00:07:00", 300, ""),
        ("00:03:00", 60, ""),
        ("18:00:00", 64740, "Set cluster.time=18:01:00 or more, or lower cluster.signal_seconds to 64680 or less"),
        ("18:00:00", 64680, ""),
        ("00:00:00", 300, "Set cluster.time=00:07:00 or more."),
    ],
)
def test_a_time_limit_must_leave_time_to_train_before_its_warning(
    time: str, signal: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["plan", *RUN, f"cluster.time={time}", f"cluster.signal_seconds={signal}", f"output={tmp_path}"])
    assert code == (2 if said else 0)
    assert said in capsys.readouterr().err


def test_a_run_is_submitted_again_only_when_its_job_is_gone(tmp_path: Path, put: Put, capsys: pytest.CaptureFixture[str]) -> None:
    put("sbatch", "echo 12")
    main(["train", *RUN, f"output={tmp_path / 'outputs'}"])
    run_dir = submitted(tmp_path / "outputs")
    script = run_dir.batch_script.read_text()
    put("squeue", "echo '12|PENDING|Priority|N/A'")
    assert main(["train", f"resume={run_dir.path}"]) == 73
    assert f"{run_dir.path} belongs to Slurm job 12: PENDING (Priority)." in capsys.readouterr().err
    put("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    put("sbatch", "echo 13")
    run_dir.stop.write_text("stop\n")
    assert main(["train", f"resume={run_dir.path}"]) == 0
    assert last_event(run_dir) == {"event": "submitted", "job": "13"}
    assert run_dir.batch_script.read_text() == script
    assert not run_dir.stop.exists()
    assert not run_dir.lock.exists()


def test_a_resume_that_sbatch_refuses_keeps_the_folder(tmp_path: Path, put: Put) -> None:
    put("sbatch", "echo 12")
    main(["train", *RUN, f"output={tmp_path / 'outputs'}"])
    run_dir = submitted(tmp_path / "outputs")
    put("squeue", "echo '12|TIMEOUT|TimeLimit|N/A'")
    put("sbatch", "exit 1")
    assert main(["train", f"resume={run_dir.path}"]) == 5
    assert run_dir.run_yaml.exists()
    assert not run_dir.lock.exists()


@pytest.mark.parametrize(
    ("squeue", "state", "message"),
    [
        ("12|PENDING|Resources|N/A", "queued", "Slurm job 12: PENDING (Resources)"),
        ("12|RUNNING|None|N/A", "running", "Slurm job 12: RUNNING"),
        ("12|PENDING|Priority|2026-11-30T10:00:00", "queued", "Slurm job 12: PENDING (Priority, expected start 2026-11-30T10:00:00)"),
        ("12|PENDING|None|2026-11-30T10:00:00", "queued", "Slurm job 12: PENDING (expected start 2026-11-30T10:00:00)"),
        ("12|PENDING|Resources|2537-04-18T22:58:52", "queued", "Slurm job 12: PENDING (Resources)"),
        ("12|COMPLETING|None|N/A", "running", "Slurm job 12: COMPLETING"),
    ],
)
def test_squeue_says_what_a_job_does_now(squeue: str, state: str, message: str, run_dir: RunDir, put: Put) -> None:
    put("squeue", f"echo '{squeue}'")
    assert (told(run_dir).state, told(run_dir).message, told(run_dir).job) == (state, message, "12")


def test_a_requeue_by_slurm_itself_is_seen(run_dir: RunDir, put: Put) -> None:
    """After a preemption or a failed node nobody could record anything."""
    journal.record(run_dir, journal.Started("n1", job="12"))
    put("squeue", "echo '12|PENDING|BeginTime|N/A'")
    assert told(run_dir).state == "queued"


@pytest.mark.parametrize(("squeue", "how"), [("echo '12|TIMEOUT|TimeLimit|N/A'", "ended as TIMEOUT"), ("echo", "is gone from the queue")])
def test_a_job_that_ended_without_a_word_is_dead(squeue: str, how: str, run_dir: RunDir, put: Put) -> None:
    journal.record(run_dir, journal.Started("n1", job="12"))
    put("squeue", squeue)
    now = told(run_dir)
    assert now.state == "dead"
    assert f"Slurm job 12 {how} without recording why." in now.message
    assert f"regimen train resume={run_dir.path}" in now.message


@pytest.mark.parametrize(
    ("sacct", "how"),
    [
        ("echo '12|NODE_FAIL'", "ended as NODE_FAIL"),
        ("echo '12|CANCELLED by 1000'", "ended as CANCELLED"),
        ("echo '12|RUNNING'", "is gone from the queue"),
        ("echo 'Slurm accounting storage is disabled' >&2; exit 1", "is gone from the queue"),
    ],
)
def test_how_a_job_ended_that_squeue_has_forgotten_is_asked_of_the_accounting(sacct: str, how: str, run_dir: RunDir, put: Put) -> None:
    journal.record(run_dir, journal.Started("n1", job="12"))
    put("squeue", "echo")
    put("sacct", sacct)
    assert (told(run_dir).state, f"Slurm job 12 {how} without recording why." in told(run_dir).message) == ("dead", True)


def test_an_end_that_was_recorded_while_slurm_was_asked_counts(run_dir: RunDir, put: Put) -> None:
    put(
        "squeue",
        f"""echo '{{"time": 2.0, "event": "end", "exit_code": 0, "message": "finished"}}' >>'{run_dir.journal}'; echo '12|COMPLETED|None|N/A'""",
    )
    assert (told(run_dir).state, told(run_dir).exit_code) == ("finished", 0)


def test_what_the_files_say_is_shown_where_slurm_cannot_be_asked(run_dir: RunDir, put: Put) -> None:
    now = told(run_dir)
    assert now.state == "queued"
    assert now.message.startswith("Slurm job 12; unconfirmed: squeue is not on the PATH")


def test_runs_without_a_job_are_not_asked_about(run_dir: RunDir, put: Put) -> None:
    journal.record(run_dir, journal.Ended(0, "finished"))
    assert told(run_dir) == status_of(run_dir)


def test_stop_cancels_a_job_that_waits(run_dir: RunDir, put: Put, capsys: pytest.CaptureFixture[str]) -> None:
    put("squeue", f"if [ -e '{run_dir.path}/cancelled' ]; then echo '12|CANCELLED|None|N/A'; else echo '12|PENDING|Resources|N/A'; fi")
    put("scancel", f": >'{run_dir.path}/cancelled'")
    assert main(["stop", str(run_dir.path)]) == 0
    assert "Slurm job 12 was waiting and is cancelled." in capsys.readouterr().out
    assert (told(run_dir).state, told(run_dir).exit_code) == ("stopped", 75)


def test_stop_of_a_job_that_starts_meanwhile_leaves_the_stop_file(run_dir: RunDir, put: Put, capsys: pytest.CaptureFixture[str]) -> None:
    put("squeue", f"if [ -e '{run_dir.path}/asked' ]; then echo '12|RUNNING|None|N/A'; else echo '12|PENDING|Resources|N/A'; fi")
    put("scancel", f": >'{run_dir.path}/asked'")
    assert main(["stop", str(run_dir.path)]) == 0
    assert "is asked to save and stop" in capsys.readouterr().out
    assert batch_job.job_start(run_dir, "12") == 0
    assert run_dir.stop.exists()


def test_the_start_of_a_job_clears_what_the_attempt_before_left(run_dir: RunDir) -> None:
    leave_exit(run_dir, 0, 75)
    run_dir.stop.write_text(TIME_LIMIT + "\n")
    assert batch_job.job_start(run_dir, "12") == 0
    assert not run_dir.stop.exists()
    assert not list(run_dir.exits.glob("*"))
    assert last_event(run_dir) == {"event": "start", "job": "12", "host": os.uname().nodename, "by": "the user"}
    assert batch_job.job_start(run_dir, "12") == 0
    assert last_event(run_dir)["by"] == "Slurm"


def test_a_second_job_does_not_start_in_the_same_folder(run_dir: RunDir, put: Put) -> None:
    put("squeue", "echo '12|RUNNING|None|N/A'")
    with pytest.raises(RunLocked, match="belongs to Slurm job 12: RUNNING"):
        batch_job.job_start(run_dir, "13")
    put("squeue", "echo '12|FAILED|NonZeroExitCode|N/A'")
    assert batch_job.job_start(run_dir, "13") == 0
    assert status_of(run_dir).job == "13"


@pytest.mark.parametrize("by", [TIME_LIMIT, TERMINATED])
def test_ranks_that_saved_because_slurm_asked_are_queued_again(by: str, run_dir: RunDir, put: Put) -> None:
    put("scontrol", f"echo \"$@\" >'{run_dir.path}/scontrol'")
    leave_exit(run_dir, 0, 75)
    run_dir.stop.write_text(by + "\n")
    assert batch_job.job_end(run_dir, "12", 143) == 0
    assert (run_dir.path / "scontrol").read_text() == "requeue 12\n"
    assert [event.get("by") for event in journal.events(run_dir) if event["event"] == "stop requested"] == [STOPPED_BY_SLURM[by]]
    assert last_event(run_dir) == {"event": "requeued", "job": "12"}
    assert not run_dir.stop.exists()


@pytest.mark.parametrize(
    ("before", "now", "code", "last"),
    [
        (None, 1, 75, {"event": "requeued", "job": "12"}),
        ("1", 2, 6, {"event": "requeued", "job": "12"}),
        (None, 0, 75, {"event": "end", "exit_code": 75}),
        ("1", 1, 6, {"event": "end", "exit_code": 6}),
    ],
)
def test_a_job_that_slurm_ends_itself_is_not_queued_again_here(
    before: str | None, now: int, code: int, last: dict[str, object], run_dir: RunDir, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    """scontrol requeue raises the count of restarts, scancel does not. Where scontrol is asked to requeue, its stand-in fails."""
    put("scontrol", f"[ \"$1\" = --oneliner ] && echo 'JobId=12 JobState=COMPLETING Requeue=1 Restarts={now} BatchFlag=1'")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    if before is not None:
        monkeypatch.setenv("SLURM_RESTART_COUNT", before)
    if code == 75:
        leave_exit(run_dir, 0, 75)
    run_dir.stop.write_text(TERMINATED + "\n")
    assert main(["job-end", str(run_dir.path), "12", "143", "--ending"]) == code
    assert last.items() <= last_event(run_dir).items()
    if last["event"] == "end":
        assert "Slurm ended job 12 (scancel, or its time limit)" in status_of(run_dir).message
    assert not run_dir.stop.exists()


def test_a_run_that_has_come_to_its_end_is_finished_although_slurm_ends_the_job(run_dir: RunDir) -> None:
    leave_exit(run_dir, 0, 0)
    assert batch_job.job_end(run_dir, "12", 0, ending=True) == 0
    assert (status_of(run_dir).state, status_of(run_dir).message) == ("finished", "finished")


def test_a_sigterm_that_follows_from_a_failed_rank_is_no_request_to_stop(run_dir: RunDir) -> None:
    """srun ends the other nodes with SIGTERM when the agent of one has failed."""
    leave_exit(run_dir, 0, 80)
    run_dir.stop.write_text(TERMINATED + "\n")
    assert batch_job.job_end(run_dir, "12", 143) == 80
    assert [event["event"] for event in journal.events(run_dir)] == ["submitted", "end"]


def test_a_job_that_slurm_has_queued_again_itself_has_not_ended(run_dir: RunDir, put: Put) -> None:
    """As when a node of it fails: the ranks of the others end as lost peers while the job waits already (recorded from Slurm 22.05.8)."""
    put(
        "scontrol",
        '[ "$1" = --oneliner ] && echo "JobId=12 JobState=PENDING Restarts=1" && exit; echo "Job is pending execution for job 12" >&2; exit 1',
    )
    leave_exit(run_dir, 0, 76)
    assert batch_job.job_end(run_dir, "12", 143) == 0
    assert [event["event"] for event in journal.events(run_dir)] == ["submitted", "failure", "requeued"]
    assert status_of(run_dir).state == "queued"


def test_a_requeue_that_slurm_refuses_ends_with_75(run_dir: RunDir, put: Put) -> None:
    put("scontrol", "echo 'Job is not requeuable for job 12' >&2; exit 1")
    leave_exit(run_dir, 0, 75)
    run_dir.stop.write_text(TIME_LIMIT + "\n")
    assert batch_job.job_end(run_dir, "12", 143) == 75
    now = status_of(run_dir)
    assert (now.state, now.exit_code) == ("stopped", 75)
    assert "not queued again: scontrol requeue failed: Job is not requeuable for job 12" in now.message


def test_ranks_that_the_user_stopped_are_not_queued_again(run_dir: RunDir) -> None:
    leave_exit(run_dir, 0, 75)
    execute.ask_to_stop(run_dir)
    assert batch_job.job_end(run_dir, "12", 143) == 75
    assert (status_of(run_dir).state, status_of(run_dir).job) == ("stopped", None)


@pytest.mark.parametrize(("exits", "agent_code", "code"), [((0, 0), 0, 0), ((0, 80), 143, 80), ((0, 2), 143, 2), ((0, 81), 143, 81)])
def test_a_job_ends_with_the_code_of_its_run(exits: tuple[int, ...], agent_code: int, code: int, run_dir: RunDir) -> None:
    for rank, exit_code in enumerate(exits):
        leave_exit(run_dir, rank, exit_code)
    run_dir.stop.write_text(TIME_LIMIT + "\n")  # a warning that came too late changes nothing
    assert batch_job.job_end(run_dir, "12", agent_code) == code
    assert status_of(run_dir).exit_code == code


def test_a_crash_is_queued_again_until_the_budget_is_used_up(run_dir: RunDir, put: Put, capsys: pytest.CaptureFixture[str]) -> None:
    """backend.max_restarts=null allows two under Slurm: three starts in all."""
    put("scontrol", f"echo \"$@\" >>'{run_dir.path}/scontrol'")
    codes = []
    for _ in range(3):
        assert batch_job.job_start(run_dir, "12") == 0
        leave_exit(run_dir, 1, 76)
        codes.append(batch_job.job_end(run_dir, "12", 143))
    assert codes == [0, 0, 82]
    assert (run_dir.path / "scontrol").read_text() == "requeue 12\n" * 2
    assert [event["event"] for event in journal.events(run_dir)][1:] == [*["start", "failure", "requeued"] * 2, "start", "end"]
    assert "The last failure (exit code 76): said" in capsys.readouterr().out


def test_a_job_that_slurm_starts_again_and_again_without_a_checkpoint_is_ended(run_dir: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    """As after preemptions: no process could record an end."""
    assert [main(["job-start", str(run_dir.path), "12"]) for _ in range(4)] == [0, 0, 0, 82]
    assert "The run was started again 2 times without a new checkpoint" in capsys.readouterr().err
    assert (status_of(run_dir).state, status_of(run_dir).exit_code) == ("failed", 82)


def test_a_job_that_commits_may_be_started_again_for_ever(run_dir: RunDir) -> None:
    for step in range(6):
        assert batch_job.job_start(run_dir, "12") == 0
        journal.record(run_dir, journal.Committed(step, 1, 0.1))


def test_a_crash_after_the_user_asked_to_stop_is_not_queued_again(run_dir: RunDir) -> None:
    execute.ask_to_stop(run_dir)
    assert batch_job.job_end(run_dir, "12", 137) == 6
    assert status_of(run_dir).exit_code == 6


def test_a_crash_without_a_restart_allowed_ends_the_job(run_dir: RunDir) -> None:
    save_run(described(*RUN, "backend.max_restarts=0"), run_dir)
    assert batch_job.job_end(run_dir, "12", 137) == 6


FULL = ("model=demo", "data=demo", "cluster=slurm", "node=cpu", "regime=full", "training.precision=fp32")


def submitted_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> RunDir:
    assert main(["train", *FULL, f"output={tmp_path / 'outputs'}", *overrides]) == 0
    return RunDir(Path(capsys.readouterr().out.splitlines()[-1].rpartition(" ")[2]))


def test_three_runs_are_submitted_at_once_each_on_what_the_one_before_will_leave(
    tmp_path: Path, put: Put, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "count").write_text("0\n")
    put("sbatch", f"[ $1 = --test-only ] && exit; read n <{tmp_path}/count; n=$((n+1)); echo $n >{tmp_path}/count; echo $n")
    sft = submitted_run(tmp_path, capsys, "name=sft")
    on_sft = ("model=local", f"model.path={sft.model}", "data.template=chatml")
    rm = submitted_run(tmp_path, capsys, "name=rm", "stage=rm", *on_sft, "cluster.after=sft")
    ppo = submitted_run(tmp_path, capsys, "name=ppo", "stage=ppo", *on_sft, f"stage.reward_model={rm.path}", f"cluster.after={rm.path}")
    asked = {run.path.parent.name: [line for line in run.batch_script.read_text().splitlines() if "-dep" in line] for run in (sft, rm, ppo)}
    cancel = "#SBATCH --kill-on-invalid-dep=yes"
    assert asked == {"sft": [], "rm": ["#SBATCH --dependency=afterok:1", cancel], "ppo": ["#SBATCH --dependency=afterok:2", cancel]}
    assert recorded_run(ppo).model.architecture == recorded_run(sft).model.architecture


def test_without_waiting_a_model_that_is_not_there_is_refused(tmp_path: Path, put: Put, capsys: pytest.CaptureFixture[str]) -> None:
    put("sbatch", '[ "$1" = --test-only ] || echo 4711')
    sft = submitted_run(tmp_path, capsys, "name=sft")
    assert main(["plan", *FULL, "name=b", "model=local", f"model.path={sft.model}", f"output={tmp_path / 'outputs'}"]) == 2
    assert "is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize(("code", "exit_code", "said"), [(0, 0, ""), (80, 2, "that run is failed, and nothing will start it again")])
def test_a_run_that_has_ended_is_not_waited_for(
    code: int, exit_code: int, said: str, tmp_path: Path, put: Put, capsys: pytest.CaptureFixture[str]
) -> None:
    put("sbatch", '[ "$1" = --test-only ] || echo 4711')
    first = submitted_run(tmp_path, capsys, "name=first")
    journal.record(first, journal.Ended(code, "said"))
    words = ["train", *FULL, "name=second", f"output={tmp_path / 'outputs'}", "cluster.after=first"]
    assert main(words) == exit_code
    assert said in capsys.readouterr().err
    scripts = [path.read_text() for path in tmp_path.glob("outputs/second/*/train.sbatch")]
    assert [("--dependency" in script) for script in scripts] == ([False] if exit_code == 0 else [])


@pytest.mark.parametrize("verb", ["plan", "train"])
def test_a_run_that_goes_on_waits_for_a_named_run_or_is_refused(verb: str, tmp_path: Path, put: Put, capsys: pytest.CaptureFixture[str]) -> None:
    put("sbatch", '[ "$1" = --test-only ] || echo 4711')
    first, second = (submitted_run(tmp_path, capsys, f"name={name}") for name in ("first", "second"))
    journal.record(second, journal.Ended(6, "said"))
    words = [verb, f"resume={second.path}", f"output={tmp_path / 'outputs'}"]
    assert main([*words, "cluster.after=nosuch"]) == 2
    assert "nosuch is not a run folder" in capsys.readouterr().err
    assert main([*words, "cluster.after=first"]) == 0
    told = capsys.readouterr().out + second.batch_script.read_text()
    assert "#SBATCH --dependency=afterok:4711\n" in told
    assert verb == "plan" or f"after: {first.path}\n" in second.run_yaml.read_text()
