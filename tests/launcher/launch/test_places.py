"""Where runs are looked for: outputs, and every folder that runs of this working folder went to."""

import os
from pathlib import Path

import command_line as line
import pytest
from cells import TINY

from conf.run_dir import RunDir
from launcher.errors import ConfigError
from launcher.launch import execute, status
from launcher.launch.places import DEFAULT, noted_file, noted_here, places, remember
from launcher.verbs.plan import judged
from tests.in_process import call_here
from tests.launcher.launch.test_status import made_run


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and a state of the user's, both new."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_a_folder_that_is_given_is_the_only_one() -> None:
    Path("saves").mkdir()
    remember(Path("saves"))
    assert places(Path("other")) == [Path("other")]


def test_without_one_every_folder_that_this_working_folder_used_counts(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("saves", "my runs", "法律", "saves", "outputs"):
        Path(name).mkdir(exist_ok=True)
        remember(Path(name))
    assert places(None) == [DEFAULT, here / "saves", here / "my runs", here / "法律"]
    assert len(noted_file(os.environ).read_text().splitlines()) == 3
    monkeypatch.chdir(here.parent)
    assert places(None) == [DEFAULT]


def test_a_folder_that_is_gone_and_a_damaged_line_do_no_harm(here: Path) -> None:
    remember(Path("gone"))
    (here / "kept").mkdir()
    remember(Path("kept"))
    with noted_file(os.environ).open("a") as file:
        file.write('{"from": "x"\n[1]\n"text"\n')
    assert places(None) == [DEFAULT, here / "kept"]


def test_where_nothing_can_be_noted_a_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    remember(Path("saves"))
    assert noted_here() == []
    assert f"To find this run again, name it or give --output {Path('saves').absolute()}." in capsys.readouterr().err


def test_last_and_status_see_the_runs_of_every_place_once(here: Path) -> None:
    older, newer, inner = made_run(here / "outputs", "demo/a"), made_run(here / "saves", "demo/b"), made_run(here / "saves/in", "demo/c")
    for at, run_dir in enumerate((older, inner, newer)):
        os.utime(run_dir.run_yaml, (at, at))
    remember(Path("saves"))
    remember(Path("saves/in"))
    assert status.last_run(None) == newer
    assert {run_dir.path.absolute() for run_dir in status.find_runs(None)} == {older.path, newer.path, inner.path}
    assert len(list(status.find_runs(None))) == 3


def test_no_run_is_told_with_every_place(here: Path) -> None:
    (here / "saves").mkdir()
    remember(Path("saves"))
    with pytest.raises(ConfigError, match=f"There is no run under outputs or {here / 'saves'}"):
        status.last_run(None)


def test_a_canary_is_noted_nowhere() -> None:
    decided = judged(["recipe=demo", "node=cpu", "output=aside"], [])
    execute.start_fresh(decided, listed=False)
    assert noted_here() == []
    execute.start_fresh(decided)
    assert noted_here() == [Path("aside").absolute()]


@pytest.mark.distributed
def test_a_run_whose_output_has_a_space_or_comes_from_a_recipe_is_found_again(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = here / "groups" / "recipe" / "mine.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text("# @package _global_\ndefaults: [demo]\noutput: from recipe\n")
    short = (*TINY, "cluster.ranks_per_node=1", "sharding=ddp", "training.max_steps=1")
    for given, place in (
        ((*short, "recipe=demo", "output='my runs'"), "my runs"),
        ((*short, "recipe=mine", "--config-dir", "groups"), "from recipe"),
    ):
        trained = line.call((*line.MODULE, "train", *given), here)
        assert trained.code == 0, trained.text
        run_dir: RunDir = line.the_run(here / place)
        for argv in (("train", "resume=last"), ("plan", "resume=last"), ("status", "last"), ("status",)):
            found = call_here(capfd, *argv)
            assert (found.code, str(run_dir.path.relative_to(here)) in found.out) == (0, True), found.text
    again = call_here(capfd, "train", "resume=last", "output='my runs'")
    assert (again.code, "my runs/" in again.out) == (0, True), again.text
