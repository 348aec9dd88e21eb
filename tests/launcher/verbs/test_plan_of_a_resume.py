"""`plan resume=RUN` has every form that a first plan has, and --cfg shows what was recorded."""

import json
from pathlib import Path

import pytest
import yaml

from conf.run_dir import RunDir, save_run
from conf.run_values import run_as_dict
from launcher.cli import main
from tests.described import described


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = RunDir(tmp_path / "outputs" / "demo" / "made")
    made.path.mkdir(parents=True)
    save_run(described("model=demo", "data=demo", "node=cpu", "regime.rank=5"), made)
    return made


@pytest.mark.parametrize(
    ("form", "said"),
    [((), "verdict: "), (("--explain",), "adapter"), (("--matrix",), "qlora"), (("--diff", "last"), "node.host_memory: "), (("--json",), "{")],
)
def test_every_form_plans_the_recorded_run(form: tuple[str, ...], said: str, run_dir: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "resume=last", *form]) == 0
    out = capsys.readouterr().out
    assert said in out
    if form == ("--json",):
        assert json.loads(out)["run"]["regime"]["rank"] == 5
        assert Path(json.loads(out)["run_folder"]).absolute() == run_dir.path


@pytest.mark.parametrize("verb", ["train", "plan"])
def test_the_configuration_of_a_resume_is_the_recorded_one_with_what_may_differ(
    verb: str, run_dir: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, f"resume={run_dir.path}", "checkpoint.keep=7", "--cfg"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["regime"]["rank"], shown["checkpoint"]["keep"]) == (5, 7)
    assert shown["training"] == run_as_dict(described("model=demo", "data=demo", "node=cpu"))["training"]


def test_a_resume_that_differs_is_refused_in_every_form(run_dir: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["plan", "--explain"], ["plan", "--matrix"], ["train", "--cfg"]):
        assert main([*argv, "resume=last", "regime.rank=6"]) == 2
        assert "regime.rank: recorded 5, given 6" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["train", "plan"])
def test_a_checkpoint_that_is_not_there_is_refused_by_the_plan_too(verb: str, run_dir: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "resume=last", "checkpoint.resume=step-7"]) == 2
    assert "checkpoint.resume=step-7 cannot be used: " in capsys.readouterr().err
