"""How the command line is read."""

import os
import re
import tomllib
from pathlib import Path

import pytest

from launcher.cli import main, parsed_arguments
from launcher.verbs.parser import INTERNAL, VERBS

REPOSITORY = Path(__file__).resolve().parents[2]


def test_overrides_may_stand_before_between_and_after_options() -> None:
    read = parsed_arguments(["plan", "a=1", "--json", "b=2", "--config-dir", "x", "c=3"])
    assert read.overrides == ["a=1", "b=2", "c=3"]
    assert read.json
    assert [str(folder) for folder in read.config_dir] == ["x"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["plan", "a=1", "--jsn", "b=2"], "--jsn is not an option of `regimen plan`. Did you mean --json?"),
        (["plan", "--config", "groups"], "`--config groups` is not an option. Write: --config-dir groups"),
        (["plan", "--config", "lf.yaml"], "`--config lf.yaml` is not an option. lf.yaml does not exist. Name a file of a run"),
        (["plan", "--json", "--matrix"], "Argument --matrix: not allowed with argument --json. Write: regimen plan "),
        (["queue", "add", "--json"], "--json is not an option of `regimen queue add`. `regimen queue add --help` shows them."),
        (["status", "--out", "x"], "--out is not an option of `regimen status`."),
        (["predict", "last", "--dta", "x"], "--dta is not an option of `regimen predict`. Did you mean --data?"),
        (["stop", "RUN", "OTHER"], "`regimen stop` cannot use `OTHER`. `regimen stop --help` shows"),
        (
            ["stop"],
            "The following arguments are required: RUN. RUN is a run folder, the name of a run, or last. Write: regimen stop [--output FOLDER] RUN",
        ),
        (
            ["export", "last", "--shard-size", "-5GB"],
            "--shard-size has no value. A value that begins with - is written with =, as in --shard-size=VALUE",
        ),
        (["trian", "x=1"], "trian is not a verb. Write: regimen train. The verbs are train, plan,"),
        (["resume"], "resume is not a verb. Write: regimen train resume=last."),
        (["nope"], "nope is not a verb. The verbs are train, plan,"),
        (["model=demo"], "model=demo is not a verb. Write: regimen train model=demo ..., or regimen plan model=demo ..."),
        (["train", "-m", "--cfg", "optim.lr=1,2"], "--cfg is not possible with -m."),
        (["train", "-m", "--detach", "optim.lr=1,2"], "--detach is not possible with -m. Write: nohup regimen train -m ... &"),
    ],
)
def test_what_is_no_verb_and_no_option_has_one_message_with_the_line_that_works(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"regimen: {said}")
    assert len(err.splitlines()) == 1
    assert not [verb for verb in INTERNAL if verb in err]


def test_an_override_that_a_later_one_replaces_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert parsed_arguments(["plan", "optim.lr=1", "a=2", "optim.lr=3", "a=2"]).overrides == ["optim.lr=1", "a=2", "optim.lr=3", "a=2"]
    assert capsys.readouterr().err == "note: optim.lr=1 is replaced by optim.lr=3, which is given after it.\n"


@pytest.mark.parametrize("argv", [[], ["data"], ["memory"]])
def test_without_a_verb_the_help_is_shown(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    shown = capsys.readouterr()
    assert (shown.out.startswith("usage: regimen"), shown.err) == (True, "")
    assert not [verb for verb in INTERNAL if verb in shown.out]


def test_the_verbs_of_the_messages_are_those_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert set(re.findall(r"^    ([a-z]+)  ", capsys.readouterr().out, re.MULTILINE)) == set(VERBS)


def test_the_version_is_that_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert capsys.readouterr().out == f"regimen {project['version']}\n"


@pytest.mark.parametrize("place", ["argument", "working folder"])
def test_a_folder_whose_name_is_not_utf_8_is_refused_before_anything_starts(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / os.fsdecode("数据".encode("gbk"))
    folder.mkdir()
    monkeypatch.chdir(folder if place == "working folder" else tmp_path)
    assert main(["train", "model=demo", "data=files", f"data.folder={folder.name if place == 'argument' else '.'}", "data.sets=[a.jsonl]"]) == 2
    err = capsys.readouterr().err
    assert r"\xca\xfd\xbe\xdd has a name that is not UTF-8" in err
    assert "it reads '数据'. Rename it: mv " in err
    assert not list(tmp_path.rglob("outputs"))


def test_a_working_folder_that_was_removed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["status"]) == 2
    assert capsys.readouterr().err == "regimen: The working folder was removed. Change to a folder that exists.\n"
