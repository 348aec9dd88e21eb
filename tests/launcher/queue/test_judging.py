"""What is not added to the queue, and what is said then."""

from pathlib import Path

import pytest

from launcher.cli import main

DEMO = ["recipe=demo", "node=cpu", "cluster.ranks_per_node=1"]


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
