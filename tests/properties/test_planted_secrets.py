"""A value of the environment in every key that takes text: it reaches no file, no command line and no message."""

import json
import os
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from conf.environment import FromEnvironment
from conf.exit_codes import UNSAFE
from conf.run_dir import RunDir, load_run, save_run
from conf.schema import Composed
from launcher.cli import main
from launcher.composition.recorded import recorded_run
from launcher.errors import ConfigError
from launcher.launch.execute import write_plan
from launcher.launch.plan import plan_as_dict, plan_for
from launcher.verbs.plan import judged
from tests.conf.test_secrets import SECRETS, URLS
from tests.described import composed

BASE = ("model=demo", "data=demo", "node=cpu")
SLURM = ("cluster=slurm", "cluster.ranks_per_node=2")
VISIBLE = ("name", "output")  # they name the folder of the run


def text_keys(run: Composed) -> dict[str, Any]:
    """Every key that takes text or a list of texts, with its value, by its full name."""
    found: dict[str, Any] = {}
    for group in fields(run):
        value = getattr(run, group.name)
        members = {f"{group.name}.{each.name}": (each.type, getattr(value, each.name)) for each in fields(value)} if is_dataclass(value) else {}
        found |= {key: kind for key, (kind, _) in (members or {group.name: (group.type, value)}).items() if "str" in str(kind)}
    return {key: kind for key, kind in found.items() if not key.endswith(".name") and "dict" not in str(kind)}


NUMBERS = {"optim.lr": float, "training.max_steps": int, "data.packing": bool, "checkpoint.keep": int}  # refused, since the value is no number
KEYS = {**NUMBERS, **text_keys(composed(*BASE)), **{k: v for k, v in text_keys(composed(*BASE, *SLURM)).items() if k.startswith("cluster.")}}


def planted(key: str, kind: Any, number: int) -> tuple[str, str, str]:
    """(variable, its value, the override): a name that says nothing, and a value without a known shape."""
    variable = f"THING_{number}"
    source = f"${{oc.env:{variable}}}"
    return variable, f"plantedvalue{number}x", f"{key}=[{source}]" if "list" in str(kind) else f"{key}={source}"


def test_there_are_keys_of_text() -> None:
    assert len(KEYS) >= 22
    assert {"tracking.project", "data.sets", "model.path", "cluster.account", "evaluation.generate"} <= set(KEYS)


def test_in_every_key_it_is_permitted_or_refused_without_being_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, (key, kind) in enumerate(KEYS.items()):
        variable, value, override = planted(key, kind, number)
        monkeypatch.setenv(variable, value)
        main(["plan", "--json", *BASE, *(SLURM if key.startswith("cluster.") else ()), override])
        said = capsys.readouterr()
        if key not in VISIBLE:
            assert value not in said.out + said.err, key
        assert "bug in regimen" not in said.err, said.err


@pytest.mark.parametrize("secret", [*SECRETS.values(), *URLS.values()], ids=[*SECRETS, *URLS])
def test_a_secret_that_is_written_down_is_refused_and_not_shown(
    secret: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THING", secret)
    for key in ("tracking.project", "data.folder", "name"):
        for value in (f"'{secret}'", "${oc.env:THING}"):
            assert main(["plan", *BASE, f"{key}={value}"]) == UNSAFE
            said = capsys.readouterr()
            assert secret not in said.out + said.err


OVERRIDES = (
    *("tracking=wandb", "tracking.project=${oc.env:PROJECT}", "tracking.entity=team-${oc.env:PROJECT}", "model.added_tokens=['${oc.env:WORD}']"),
    *("data.cache=${oc.env:CACHE}/data", "evaluation.generate='${oc.env:QUESTION} ${tracking.entity}'", "optim.lr=${oc.env:RATE}"),
)
VALUES = {"PROJECT": "project-value-1", "WORD": "word-value-2", "QUESTION": "question-value-3", "RATE": "0.25"}


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    values = {**VALUES, "CACHE": str(tmp_path / "cache-value-4")}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


def written(run_dir: RunDir) -> str:
    return "\n".join(path.read_text(errors="replace") for path in run_dir.path.rglob("*") if path.is_file())


def hidden(values: dict[str, str]) -> list[str]:
    return [value for name, value in values.items() if name != "RATE"]


def test_files_hold_the_source_and_a_rank_reads_the_value(tmp_path: Path, environment: dict[str, str]) -> None:
    decided = judged([*BASE, f"output={tmp_path}/outputs", *OVERRIDES], [])
    run_dir = RunDir(tmp_path / "run")
    run_dir.path.mkdir()
    plan = plan_for(decided, run_dir)
    write_plan(plan, os.environ)
    text = written(run_dir)
    assert [value for value in hidden(environment) if value in text] == []
    assert "${oc.env:QUESTION} team-${oc.env:PROJECT}" in text
    run = load_run(run_dir)
    assert (run.evaluation.generate, run.optim.lr) == ("question-value-3 team-project-value-1", 0.25)
    assert run.model.added_tokens == ["word-value-2"]
    assert isinstance(run.tracking.project, FromEnvironment)
    assert dict(plan.command.forced)["WANDB_PROJECT"] == "project-value-1"
    save_run(run, run_dir)  # as a resume does
    assert [value for value in hidden(environment) if value in written(run_dir)] == []


def test_a_batch_script_gets_its_options_from_the_environment(tmp_path: Path, environment: dict[str, str]) -> None:
    options = ("cluster.account=${oc.env:PROJECT}", "cluster.partition=${oc.env:WORD}", "cluster.qos=normal", "cluster.time=01:00:00")
    decided = judged([*BASE, *SLURM, f"output={tmp_path}/outputs", *OVERRIDES, *options], [])
    plan = plan_for(decided, RunDir(tmp_path / "run"))
    shown = json.dumps(plan_as_dict(plan, dict(os.environ)))
    assert [value for value in hidden(environment) if value in shown] == []
    assert "#SBATCH --qos=normal" in shown
    assert "--account" not in shown
    sbatch = plan.command.environment(os.environ)
    assert (sbatch["SBATCH_ACCOUNT"], sbatch["SBATCH_PARTITION"]) == ("project-value-1", "word-value-2")
    with pytest.raises(ConfigError, match=r"cluster\.exclude cannot be read from the environment"):
        plan_for(judged([*BASE, *SLURM, f"output={tmp_path}/outputs", "cluster.exclude=${oc.env:WORD}"], []), RunDir(tmp_path / "run"))


def test_a_variable_that_is_gone_is_named(tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    decided = judged([*BASE, f"output={tmp_path}/outputs", *OVERRIDES], [])
    run_dir = RunDir(tmp_path)
    save_run(decided.run, run_dir)
    monkeypatch.delenv("WORD")
    with pytest.raises(ConfigError, match=r"'WORD' not found.\. Set the variable as at the first start"):
        recorded_run(run_dir)
