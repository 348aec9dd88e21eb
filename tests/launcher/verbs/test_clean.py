"""What `regimen clean` offers, what it removes, and what it never touches."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from conf import journal
from conf.run_dir import RunDir
from launcher.cli import main
from launcher.launch import lock


def run_in(output: Path, name: str, *, model: bool = False, ended: int | None = 0, age_days: float = 0.0) -> RunDir:
    run_dir = RunDir(output / name)
    run_dir.exits.mkdir(parents=True)
    run_dir.run_yaml.write_text(f"name: {name}\n")
    if model:
        run_dir.model.mkdir()
        (run_dir.model / "weights").write_bytes(bytes(3 * 2**20))
    if ended is not None:
        journal.record(run_dir, journal.Ended(ended, ""))
        then = time.time() - age_days * 86400
        run_dir.journal.write_text(run_dir.journal.read_text().replace(run_dir.journal.read_text().split('"time": ')[1].split(",")[0], f"{then:.3f}"))
    return run_dir


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work" / "outputs"


def cleaned(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    code = main(["clean", *argv])
    shown = capsys.readouterr()
    return code, shown.out + shown.err


def test_nothing_to_clean_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = run_in(here, "demo/good", model=True)
    code, said = cleaned(capsys)
    assert (code, "There is nothing to clean under outputs. To remove a run that ended, name it" in said) == (0, True)
    assert kept.model.is_dir()


def test_caches_and_runs_that_left_nothing_go_and_runs_with_a_model_or_a_checkpoint_stay(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, failed, stopped = run_in(here, "demo/good", model=True), run_in(here, "bad/failed", ended=6), run_in(here, "demo/stopped", ended=75)
    stopped.checkpoint(3).mkdir(parents=True)
    for name in (".data/0a", ".torchrun/job", ".canary-x"):
        (here / name).mkdir(parents=True)
        (here / name / "file").write_bytes(bytes(2**20))
    code, said = cleaned(capsys, "--yes")
    assert code == 0
    assert f"{failed.path.relative_to(here.parent)}  (failed, left neither a model nor a checkpoint)" in said
    assert "1.0 MiB  outputs/.data/0a  (tokenised data)" in said
    assert "4 folders, 3.0 MiB in all.\n3.0 MiB removed." in said
    assert sorted(path.name for path in here.iterdir()) == ["demo"]
    assert good.model.is_dir()
    assert stopped.checkpoint(3).is_dir()


def test_a_named_run_goes_with_its_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named, other = run_in(here, "demo/one", model=True), run_in(here, "demo/two", model=True)
    code, said = cleaned(capsys, str(named.path), "--yes")
    assert (code, "3.0 MiB removed." in said) == (0, True)
    assert not named.path.exists()
    assert other.model.is_dir()


def test_a_run_whose_files_another_one_uses_is_shown_with_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named, user = run_in(here, "demo/one", model=True), run_in(here, "demo/two", model=True)
    user.run_yaml.write_text(f"model:\n  path: {named.model}\n")
    code, said = cleaned(capsys, str(named.path))
    assert (code, f"its files are used by {user.path.relative_to(here.parent)}" in said) == (2, True)
    assert "nobody can be asked here. Write: regimen clean --yes" in said
    assert named.model.is_dir()


def test_old_runs_go_by_their_age(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = run_in(here, "demo/old", model=True, age_days=31), run_in(here, "demo/new", model=True, age_days=29)
    assert cleaned(capsys, "--older", "30", "--yes")[0] == 0
    assert (old.path.exists(), new.path.exists()) == (False, True)


@pytest.mark.parametrize("argv", [(), ("--older", "0"), ("last",)])
def test_a_run_that_is_alive_is_never_touched(argv: tuple[str, ...], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alive = run_in(here, "demo/alive", ended=None)
    lock.acquire(alive, lock.this_process())
    journal.record(alive, journal.Started())
    (here / ".data" / "0a").mkdir(parents=True)
    code, said = cleaned(capsys, *argv, "--yes")
    assert alive.run_yaml.is_file()
    assert (here / ".data" / "0a").is_dir()
    assert code == (73 if argv == ("last",) else 0)
    assert (f"in use by process {os.getpid()}" if argv == ("last",) else "kept: outputs/demo/alive is running.") in said


def test_a_run_at_its_start_and_one_of_another_host_count_as_alive(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, elsewhere = run_in(here, "demo/made", ended=None), run_in(here, "demo/elsewhere", ended=None)
    journal.record(elsewhere, journal.Started())
    lock.acquire(elsewhere, replace(lock.this_process(), host="other"))
    code, said = cleaned(capsys, "--yes")
    assert code == 0
    assert "kept: outputs/demo/made is at its start." in said
    assert "kept: outputs/demo/elsewhere is running." in said
    assert made.path.is_dir()
    assert elsewhere.path.is_dir()


def test_no_is_an_answer(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    failed = run_in(here, "demo/failed", ended=6)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    for answer, there in (("", True), ("n", True), ("y", False)):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        assert main(["clean"]) == 0
        assert failed.path.exists() is there
    assert capsys.readouterr().out.count("Nothing was removed.") == 2


def test_a_name_and_an_age_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert cleaned(capsys, "last", "--older", "3") == (2, "regimen: --older chooses among all runs, and RUN names one. Give one of them.\n")


@pytest.mark.parametrize("days", ["-1", "nan", "inf"])
def test_days_that_are_none_remove_nothing(days: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", f"--older={days}", "--yes", "--output", str(tmp_path)]) == 2
    assert "is not a number of days. Give 0 or more, for example --older 30." in capsys.readouterr().err


def test_checkpoints_that_were_set_aside_and_a_cache_elsewhere_are_offered(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, cache = run_in(here, "demo/good", model=True), tmp_path / "my cache"
    good.run_yaml.write_text(f"name: demo\ndata:\n  sets: [a]\n  cache: {cache}\n  workers: null\n")
    aside, damaged = good.checkpoints / "set-aside-step-9", good.checkpoints / "damaged-step-8"
    for folder in (aside, damaged, cache / ("0" * 32), cache / "mine"):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(bytes(2**20))
    code, said = cleaned(capsys, "--yes")
    assert code == 0
    assert f"{aside.relative_to(here.parent)}  (a checkpoint that was set aside)" in said
    assert f"{cache / ('0' * 32)}  (tokenised data)" in said
    assert "3 folders, 3.0 MiB in all.\n3.0 MiB removed." in said
    assert (good.model.is_dir(), good.lock.exists(), aside.exists(), damaged.exists()) == (True, False, False, False)
    assert [path.name for path in cache.iterdir()] == ["mine"]


def test_what_a_run_that_is_alive_may_use_stays(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alive, cache = run_in(here, "demo/alive", ended=None), tmp_path / "cache"
    alive.run_yaml.write_text(f"name: demo\ndata:\n  cache: {cache}\n")
    lock.acquire(alive, lock.this_process())
    for folder in (alive.checkpoints / "set-aside-step-9", cache / ("0" * 32)):
        folder.mkdir(parents=True)
    _, said = cleaned(capsys, "--yes")
    assert f"kept: {cache / ('0' * 32)} may be in use by a run that is alive." in said
    assert (alive.checkpoints / "set-aside-step-9").is_dir()
    assert (cache / ("0" * 32)).is_dir()
