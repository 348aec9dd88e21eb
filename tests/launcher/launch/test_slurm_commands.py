"""Slurm's commands as stand-ins on the PATH, with replies recorded from Slurm 22.05.8."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.errors import SubmissionError
from launcher.facts import slurm
from launcher.launch import slurm_commands
from launcher.launch.slurm_commands import QueuedJob

Answer = Callable[..., Path]


@pytest.fixture
def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Puts a command on the PATH that notes its arguments, says this, and ends so; the file of its arguments."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def answer(name: str, out: str = "", err: str = "", code: int = 0) -> Path:
        asked = tmp_path / f"{name}.asked"
        command = tmp_path / name
        command.write_text(f"#!/bin/sh\necho \"$@\" >'{asked}'\nprintf '%s' '{out}'\nprintf '%s' '{err}' >&2\nexit {code}\n")
        command.chmod(0o755)
        return asked

    return answer


def test_squeue_is_asked_once_about_all_jobs(answer: Answer) -> None:
    asked = answer("squeue", "12|PENDING|Resources|N/A\n11|RUNNING|None|N/A\n")
    assert slurm_commands.queue(["11", "12"], os.environ) == {"11": QueuedJob("RUNNING", "None"), "12": QueuedJob("PENDING", "Resources")}
    assert asked.read_text() == "--noheader --array --states=all --jobs=11,12 --format=%i|%T|%r|%S\n"


def test_a_job_that_slurm_has_forgotten_is_absent(answer: Answer) -> None:
    answer("squeue", err="slurm_load_jobs error: Invalid job id specified\n", code=1)
    assert slurm_commands.queue(["99"], os.environ) == {}


def test_a_queue_that_cannot_be_read_is_an_error_with_its_cause(answer: Answer) -> None:
    answer("squeue", err="slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n", code=1)
    with pytest.raises(SubmissionError, match=r"squeue failed: slurm_load_jobs error: Unable to contact slurm controller \(connect failure\)"):
        slurm_commands.queue(["11"], os.environ)


@pytest.mark.parametrize(
    ("queued", "waits", "ended", "text"),
    [
        (QueuedJob("PENDING", "Resources"), True, False, "PENDING (Resources)"),
        (QueuedJob("PENDING", "None"), True, False, "PENDING"),
        (QueuedJob("RUNNING", "None"), False, False, "RUNNING"),
        (QueuedJob("COMPLETING", "NonZeroExitCode"), False, False, "COMPLETING"),
        (QueuedJob("OUT_OF_MEMORY", "OutOfMemory"), False, True, "OUT_OF_MEMORY"),
    ],
)
def test_a_state_of_slurm_waits_runs_or_has_ended(queued: QueuedJob, waits: bool, ended: bool, text: str) -> None:
    assert (queued.waits, queued.ended, str(queued)) == (waits, ended, text)


def test_a_refused_submission_says_why_in_one_line(answer: Answer) -> None:
    answer(
        "sbatch",
        err="sbatch: error: invalid partition specified: nope\nsbatch: error: Batch job submission failed: Invalid partition name specified\n",
        code=1,
    )
    with pytest.raises(SubmissionError) as caught:
        slurm_commands.submit(("sbatch", "--parsable", "x"), os.environ)
    assert "invalid partition specified: nope; Batch job submission failed: Invalid partition name specified. " in str(caught.value)


def test_warnings_of_a_submission_that_is_accepted_are_passed_on(answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    answer("sbatch", "4711\n", err="sbatch: maintenance tonight\n")
    assert slurm_commands.submit(("sbatch", "--parsable", "x"), os.environ) == "4711"
    assert capsys.readouterr().err == "sbatch: maintenance tonight\n"


def test_only_a_waiting_job_is_cancelled(answer: Answer) -> None:
    asked = answer("scancel")
    slurm_commands.cancel_pending("12", os.environ)
    assert asked.read_text() == "--state=PENDING 12\n"


def test_cancelling_a_job_that_is_gone_is_no_error_and_being_refused_is_one(answer: Answer) -> None:
    asked = answer("scancel", err="scancel: error: Kill job error on job id 99: Invalid job id specified\n", code=1)
    slurm_commands.cancel_pending("99", os.environ)
    assert asked.read_text() == "--state=PENDING 99\n"
    answer("scancel", err="scancel: error: Kill job error on job id 12: Access/permission denied\n", code=1)
    with pytest.raises(SubmissionError, match="scancel failed: Kill job error on job id 12: Access/permission denied"):
        slurm_commands.cancel_pending("12", os.environ)


@pytest.mark.parametrize(
    "act",
    [
        lambda: slurm_commands.queue(["1"], os.environ),
        lambda: slurm_commands.cancel_pending("1", os.environ),
        lambda: slurm_commands.requeue("1", os.environ),
    ],
)
def test_a_machine_without_slurm_is_told(act: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SubmissionError, match=r"is not on the PATH\. Do this on a machine of the cluster, or use cluster=local"):
        act()


def test_a_command_that_does_not_answer_is_given_up(answer: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer("squeue")
    (tmp_path / "squeue").write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    monkeypatch.setitem(slurm.SECONDS, "squeue", 1)
    with pytest.raises(SubmissionError, match="squeue did not answer in 1 s, so Slurm cannot be reached"):
        slurm_commands.queue(["1"], os.environ)


def test_filters_of_the_site_hide_no_job(answer: Answer, tmp_path: Path) -> None:
    answer("squeue")
    (tmp_path / "squeue").write_text('#!/bin/sh\necho "11|RUNNING|$SQUEUE_PARTITION|N/A"\n')
    assert slurm_commands.queue(["11"], {**os.environ, "SQUEUE_PARTITION": "other"}) == {"11": QueuedJob("RUNNING", "")}
