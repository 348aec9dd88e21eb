"""Several tasks of srun or MPI without torchrun are refused, once; everything else goes on."""

from pathlib import Path

import pytest

from conf.exit_codes import CONFIG
from launcher.cli import main
from launcher.launch.tasks import STARTERS, Starter, refuse_tasks
from launcher.launch.torchrun_door import RefusedByRankZero
from tests.launcher.launch.test_torchrun_door import TORCHRUN

RUN = ("model=demo", "data=demo", "node=cpu", "name=demo")


@pytest.mark.parametrize("starter", STARTERS, ids=[starter.command for starter in STARTERS])
@pytest.mark.parametrize("words", [(), ("-m", "optim.lr=1e-3,1e-4"), ("--detach",)])
def test_several_tasks_are_refused_before_anything_is_written(
    words: tuple[str, ...], starter: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(starter.tasks, "4")
    said = []
    for number in range(4):
        monkeypatch.setenv(starter.number, str(number))
        assert main(["train", *words, *RUN, f"output={tmp_path / 'outputs'}"]) == CONFIG
        said.append(capsys.readouterr().err)
    assert f"{starter.command} has started 4 tasks of this command ({starter.tasks}=4)" in said[0]
    assert f"{starter.one_per_node} torchrun" in said[0]
    assert said[1:] == ["", "", ""]
    assert not (tmp_path / "outputs").exists()


def test_a_resume_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert main(["train", f"resume={tmp_path}"]) == CONFIG
    assert "srun has started 2 tasks" in capsys.readouterr().err


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},  # a batch script
        {"SLURM_NTASKS": "4"},  # salloc's shell
        {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", **TORCHRUN},  # torchrun on each of two nodes
        {"SLURM_STEP_NUM_TASKS": "many"},
    ],
)
def test_one_task_and_ranks_of_torchrun_go_on(environment: dict[str, str]) -> None:
    refuse_tasks(environment)


def test_a_first_task_is_named_by_its_number() -> None:
    with pytest.raises(RefusedByRankZero):
        refuse_tasks({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"})
