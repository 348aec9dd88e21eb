"""A run folder that another user can change: refused through every door that would run what it says."""

import os
from pathlib import Path

import pytest

from conf.exit_codes import UNSAFE
from conf.run_dir import RunDir, save_run
from launcher.cli import main
from launcher.errors import Unsafe
from launcher.launch.foreign import Trust, refuse_foreign
from launcher.verbs import train
from tests.described import described

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / "outputs" / "demo" / "made")
    made.checkpoint(2).mkdir(parents=True)
    made.model.mkdir()
    save_run(described("model=demo", "data=demo", "node=cpu", f"output={tmp_path}/outputs"), made)
    (made.checkpoint(2) / "optimizer.pt").write_bytes(b"")
    return made


def test_ones_own_folder_is_used(run_dir: RunDir) -> None:
    refuse_foreign(run_dir, Trust())


@as_root
@pytest.mark.parametrize("name", ["", "run.yaml", "checkpoints/step-2", "checkpoints/step-2/optimizer.pt"])
def test_a_file_of_another_user_is_named(name: str, run_dir: RunDir) -> None:
    os.chown(run_dir.path / name, NOBODY, NOBODY)
    with pytest.raises(Unsafe, match=f"^{run_dir.path / name} belongs to nobody, and you are root.* --other-owner"):
        refuse_foreign(run_dir, Trust())
    refuse_foreign(run_dir, Trust(other_owner=True))


@as_root
def test_a_link_to_a_folder_of_another_user_is_named(run_dir: RunDir, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", NOBODY, NOBODY)
    run_dir.checkpoint(4).symlink_to(tmp_path / "theirs")
    with pytest.raises(Unsafe, match=f"^{run_dir.checkpoint(4)} belongs to nobody"):
        refuse_foreign(run_dir, Trust())


def test_a_file_that_everybody_can_write_is_named(run_dir: RunDir) -> None:
    run_dir.run_yaml.chmod(0o666)
    with pytest.raises(Unsafe, match=f"^{run_dir.run_yaml} can be written by every user"):
        refuse_foreign(run_dir, Trust())


@pytest.mark.parametrize("argv", [("train", "resume={run}"), ("export", "{run}"), ("predict", "{run}@step-2"), ("chat", "{run}")])
def test_every_door_asks(argv: tuple[str, ...], run_dir: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir.path.chmod(0o777)
    code = main([text.format(run=run_dir.path) for text in argv])
    assert code == UNSAFE
    assert f"regimen: {run_dir.path} can be written by every user of this machine." in capsys.readouterr().err
    assert not run_dir.lock.exists()


def test_whoever_vouches_for_the_folder_goes_on(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir.path.chmod(0o777)
    monkeypatch.setattr(train, "supervised", lambda *_: 0)  # the ranks
    assert train.train([f"resume={run_dir.path}", "checkpoint.resume=newest"], [], False, Trust(other_owner=True)) == 0


def test_the_umask_of_the_caller_is_his_own_again(run_dir: RunDir) -> None:
    before = os.umask(0o022)
    try:
        assert main(["train", f"resume={run_dir.path}-absent"]) == 2
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
