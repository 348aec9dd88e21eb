"""A sweep as job arrays of Slurm: stand-ins for its commands on the PATH."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conf import journal
from conf.run_dir import RunDir
from launcher.cli import main
from launcher.launch.status import status_of
from launcher.sweep import arrays

RUN = (
    *("model=demo", "data=demo", "cluster=slurm", "cluster.ranks_per_node=1", "node=cpu", "training.precision=fp32", "name=p"),
    "hydra/launcher=slurm",
)
Put = Callable[[str, str], None]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Puts commands on the PATH: sbatch keeps what it was given and counts its jobs, squeue knows all of them as waiting."""
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")

    def put(name: str, script: str) -> None:
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)

    put("sbatch", f'echo "$2" >>{tmp_path}/submitted; wc -l <{tmp_path}/submitted')
    put(
        "squeue", 'for word in "$@"; do case $word in --jobs=*) echo "${word#--jobs=}" | tr , "\\n" | sed "s/$/|PENDING|Priority|N\\/A/";; esac; done'
    )
    return put


def scripts(tmp_path: Path) -> list[str]:
    return [Path(line).read_text() for line in (tmp_path / "submitted").read_text().splitlines()]


def sweep_folder(tmp_path: Path) -> Path:
    [path] = tmp_path.glob("outputs/sweeps/*")
    return path


def start(tmp_path: Path, *words: str) -> int:
    return main(["train", "-m", *RUN, f"output={tmp_path / 'outputs'}", *words])


def test_points_of_one_shape_are_one_array_and_each_task_becomes_its_own_run(put: Put, tmp_path: Path) -> None:
    assert start(tmp_path, "optim.lr=1e-3,1e-2", "cluster.cpus_per_rank=1,2", "hydra.launcher.throttle=3") == 0
    first, second = scripts(tmp_path)
    assert ["#SBATCH --array=0-1%3" in text for text in (first, second)] == [True, True]
    assert ["#SBATCH --cpus-per-task=1" in first, "#SBATCH --cpus-per-task=2" in second] == [True, True]
    for job, name in ((1, "array-1.txt"), (2, "array-2.txt")):
        folders = [RunDir(Path(line)) for line in (sweep_folder(tmp_path) / name).read_text().splitlines()]
        assert [status_of(run).job for run in folders] == [f"{job}_0", f"{job}_1"]
        assert [status_of(run).state for run in folders] == ["queued", "queued"]
        assert all(run.batch_script.is_file() and run.plan.is_file() for run in folders)


def test_a_point_that_does_not_fit_is_refused_before_anything_is_submitted(put: Put, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(tmp_path, "node.host_memory=100000000,64GB") == 6
    told = capsys.readouterr().out
    assert told.index("point 1 refused") < told.index("submitted 1 point as Slurm job array 1")
    assert "#SBATCH --array=0-0\n" in scripts(tmp_path)[0]
    assert len(list(tmp_path.glob("outputs/p-*/*"))) == 1


def test_what_sbatch_refuses_leaves_no_run_folder_and_its_code(put: Put, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put("sbatch", "echo 'sbatch: error: Batch job submission failed: Invalid account' >&2; exit 1")
    assert start(tmp_path, "optim.lr=1e-3,1e-2") == 5
    assert "point 2 refused: sbatch refused the job: Batch job submission failed: Invalid account" in capsys.readouterr().out
    assert not list(tmp_path.glob("outputs/p-*"))


def test_a_later_start_submits_only_what_neither_waits_nor_has_ended(put: Put, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(tmp_path, "optim.lr=1e-3,1e-2,1e-1")
    folder = sweep_folder(tmp_path)
    runs = [RunDir(Path(line)) for line in (folder / "array-1.txt").read_text().splitlines()]
    journal.record(runs[0], journal.Ended(0, "finished"))
    journal.record(runs[1], journal.Ended(75, "stopped"))
    capsys.readouterr()
    assert main(["train", "-m", f"resume={folder}"]) == 0
    told = capsys.readouterr().out
    assert "point 3 waits or runs already: Slurm job 1_2: PENDING (Priority)" in told
    assert "submitted 1 point as Slurm job array 2" in told
    assert (folder / "array-2.txt").read_text() == f"{runs[1].path}\n"
    assert status_of(runs[1]).job == "2_0"


def test_status_and_stop_know_the_jobs_of_a_sweep(put: Put, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(tmp_path, "optim.lr=1e-3,1e-2")
    folder = sweep_folder(tmp_path)
    put("scancel", f'echo "$2" >>{tmp_path}/cancelled')
    put("squeue", 'echo "1_0|CANCELLED|None|N/A"; echo "1_1|RUNNING|None|N/A"')
    capsys.readouterr()
    assert main(["status", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "Slurm job 1_0 ended as CANCELLED" in told
    assert "Slurm job 1_1: RUNNING" in told
    put("squeue", 'echo "1_0|PENDING|None|N/A"; echo "1_1|RUNNING|None|N/A"')
    assert main(["stop", str(folder)]) == 0
    runs = [RunDir(Path(line)) for line in (folder / "array-1.txt").read_text().splitlines()]
    assert (tmp_path / "cancelled").read_text() == "1_0\n"
    assert all(run.stop.exists() for run in runs)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("hydra.launcher.throttle=0", "optim.lr=1e-3,1e-2"), "hydra.launcher.throttle=0 is out of range"),
        (("cluster=local", "optim.lr=1e-3,1e-2"), "cluster=local is not possible with hydra/launcher=slurm"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(
    words: tuple[str, ...], said: str, put: Put, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = [word for word in RUN if word.partition("=")[0] not in {given.partition("=")[0] for given in words} and (
        "cluster=local" not in words or not word.startswith("cluster."))]  # fmt: skip
    assert main(["train", "-m", *kept, f"output={tmp_path / 'outputs'}", *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()


def test_more_points_than_an_array_may_have_are_several_arrays(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "LARGEST_ARRAY", 2)
    assert start(tmp_path, "optim.lr=1e-3,2e-3,3e-3") == 0
    assert [next(line for line in text.splitlines() if "--array" in line) for text in scripts(tmp_path)] == [
        "#SBATCH --array=0-1", "#SBATCH --array=0-0",
    ]  # fmt: skip
    ledger = [json.loads(line) for line in (sweep_folder(tmp_path) / "ledger.jsonl").read_text().splitlines()]
    assert [event["point"] for event in ledger if event["event"] == "started"] == [1, 2, 3]


def test_a_dry_sweep_judges_every_job_and_submits_none(put: Put, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-m", *RUN, f"output={tmp_path / 'outputs'}", "optim.lr=1e-3,1e-2"]) == 0
    assert "2 points: 2 permitted" in capsys.readouterr().out
    assert not (tmp_path / "submitted").exists()
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("verb", ["plan", "train"])
@pytest.mark.parametrize("name", ["nosuch", "last"])
def test_points_that_wait_for_a_run_that_is_not_there_are_refused_at_once(
    verb: str, name: str, put: Put, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*RUN, f"output={tmp_path / 'outputs'}", "regime.rank=8,16", f"cluster.after={name}"]
    assert main([verb, "-m", *words]) == 2
    assert ("There is no run under" if name == "last" else "nosuch is not a run folder") in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("name", ["hold", "last"])
def test_points_wait_for_the_run_that_a_name_means(name: str, put: Put, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = [word for word in RUN if not word.startswith(("hydra/", "name="))]
    assert main(["train", *alone, f"output={tmp_path / 'outputs'}", "name=hold"]) == 0
    [hold] = tmp_path.glob("outputs/hold/*")
    words = ["regime.rank=8,16", f"cluster.after={name}"]
    assert main(["plan", "-m", *RUN, f"output={tmp_path / 'outputs'}", *words]) == 0
    assert start(tmp_path, *words) == 0
    job = status_of(RunDir(hold)).job
    assert f"#SBATCH --dependency=afterok:{job}\n" in (sweep_folder(tmp_path) / "array-1.sbatch").read_text()
    points = [Path(line) for line in (sweep_folder(tmp_path) / "array-1.txt").read_text().splitlines()]
    assert len(points) == 2
    assert all(f"after: {hold}\n" in RunDir(point).run_yaml.read_text() for point in points)
