"""Going on in a run folder: what is given is compared with what was recorded, key by key."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml

from conf.run_dir import RunDir, save_run
from conf.run_values import run_as_dict
from conf.schema import Run
from launcher.composition.recorded import FREE, output_of, recorded_run, resumed_run, split_resume
from launcher.errors import ConfigError, Unsafe
from tests.described import described


@cache
def started() -> Run:
    return described("model=demo", "data=demo", "node=cpu")


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    save_run(started(), RunDir(tmp_path))
    return RunDir(tmp_path)


def refusal(run_dir: RunDir, *overrides: str) -> str:
    with pytest.raises(ConfigError) as refused:
        resumed_run(run_dir, overrides)
    return str(refused.value)


def test_without_overrides_the_recorded_run_goes_on(run_dir: RunDir) -> None:
    assert run_as_dict(resumed_run(run_dir, [])) == run_as_dict(started())


@pytest.mark.parametrize(
    "override",
    [
        "optim.lr=1e-4",  # PyYAML alone would read this number as text
        "optim.lr=0.0001",
        "regime.alpha=32",
        "training.gradient_checkpointing=true",
        "data.sets=[generated]",
        "data.max_samples=null",
        "model=demo",
        "regime=lora",
        "name=sft-lora-demo",
        "name='sft-lora-demo'",
        "name=${stage.name}-${regime.name}-${model.name}",
        "model.architecture.hidden_size=128",
    ],
)
def test_what_is_given_as_it_was_recorded_is_no_difference(override: str, run_dir: RunDir) -> None:
    assert run_as_dict(resumed_run(run_dir, [override])) == run_as_dict(started())


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("regime.rank=8", "regime.rank: recorded 16, given 8"),
        ("optim.lr=2e-4", "optim.lr: recorded 0.0001, given 0.0002"),
        ("data.max_samples=10", "data.max_samples: recorded null, given 10"),
        ("data.sets=[a,b]", "data.sets: recorded ['generated'], given ['a', 'b']"),
        ("regime=full", "regime: recorded lora, given full"),
        ("model=llama2_7b", "model: recorded demo, given llama2_7b"),
        ("output=elsewhere", "output: recorded outputs, given elsewhere"),
        ("model.architecture.hidden_size=64", "model.architecture.hidden_size: recorded 128, given 64"),
    ],
)
def test_a_difference_is_told_with_both_values(override: str, line: str, run_dir: RunDir) -> None:
    assert line in refusal(run_dir, override)


def test_every_difference_is_told_at_once(run_dir: RunDir) -> None:
    said = refusal(run_dir, "regime.rank=8", "regime.alpha=32", "training.seed=1")
    assert "regime.rank: recorded 16, given 8\n  training.seed: recorded 42, given 1\n" in said
    assert "regime.alpha" not in said


def test_free_keys_are_taken_as_given(run_dir: RunDir) -> None:
    run = resumed_run(run_dir, ["checkpoint.interval=7", "checkpoint.resume=step-3", "tracking.project=p", "backend.port=29501"])
    expected = started()
    assert run_as_dict(run) == run_as_dict(
        replace(
            expected,
            checkpoint=replace(expected.checkpoint, interval=7, resume="step-3"),
            tracking=replace(expected.tracking, project="p"),
            backend=replace(expected.backend, port=29501),
        )
    )


def test_a_named_checkpoint_belongs_to_one_start(run_dir: RunDir) -> None:
    """A run.yaml of an earlier version may still hold it."""
    run = started()
    save_run(replace(run, checkpoint=replace(run.checkpoint, resume="step-3")), run_dir)
    assert resumed_run(run_dir, []).checkpoint.resume == "newest"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("checkpoint.interval=often", "checkpoint.interval=often is not possible. It must be a whole number."),
        ("regime.rank=abc", "regime.rank=abc is not possible. It must be a whole number."),
        ("regime.rnk=3", "regime.rnk is not a key of this run. Did you mean regime.rank?"),
        ("sharding.stage=3", "sharding.stage is not a key of this run."),
        ("nope=3", "nope is not a key of this run."),
        ("name.x=3", "name.x is not a key of this run."),
        ("recipe=demo", "recipe= has no effect on a resume"),
        ("+regime.rank=3", "`+key` and `~key` are not supported"),
        ("regime.rank=4,8", "one value"),
        ("regime.rank", "is not key=value. Write: regime.rank=VALUE"),
    ],
)
def test_a_mistake_is_told_as_at_a_first_start(override: str, said: str, run_dir: RunDir) -> None:
    assert said in refusal(run_dir, override)


def test_a_secret_is_not_shown_as_a_difference(run_dir: RunDir) -> None:
    with pytest.raises(Unsafe) as refused:
        resumed_run(run_dir, ["name=hf_abcdefghijklmnopqrstuvwxyz"])
    assert "hf_abc" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "a: [", "regime: {name: nope}", "- a", "name: x\nregime: {name: lora}", "null"])
def test_a_damaged_record_is_named(text: str, tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.run_yaml.write_text(text)
    with pytest.raises(ConfigError, match=f"{run_dir.run_yaml} cannot be read"):
        recorded_run(run_dir)


def test_a_record_of_another_version_is_named(run_dir: RunDir) -> None:
    run_dir.run_yaml.write_text(run_dir.run_yaml.read_text().replace("  rank: 16", "  width: 16"))
    with pytest.raises(ConfigError, match="a different version"):
        recorded_run(run_dir)


def test_resume_is_split_from_the_other_overrides() -> None:
    assert split_resume(["a=1", "resume=last", "b=2"]) == ("last", ["a=1", "b=2"])
    assert split_resume(["a=1"]) == (None, ["a=1"])


def test_two_folders_to_resume_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match="2 times"):
        split_resume(["resume=a", "resume=b"])


def test_runs_are_looked_for_where_output_says() -> None:
    assert output_of(["a=1"]) is None
    assert output_of(["output=x", "output=y"]) == Path("y")
    assert output_of(["output='my runs'"]) == output_of(["output=my runs"]) == Path("my runs")


def test_an_output_that_the_environment_names_is_read_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    assert output_of(["output=${oc.env:SCRATCH}/runs"]) == Path("/scratch/me/runs")
    with pytest.raises(ConfigError, match=r"^output=\$\{oc.env:ABSENT\} cannot be resolved: .* Write the folder itself\.$"):
        output_of(["output=${oc.env:ABSENT}"])


@pytest.mark.parametrize("value", ["", "null"])
def test_a_resume_without_a_run_is_refused_with_what_to_give(value: str) -> None:
    with pytest.raises(ConfigError, match=rf"^resume={value} names no run\. Give a run folder, the name of a run, or last\.$"):
        split_resume([f"resume={value}"])


def test_a_checkpoint_to_resume_is_named_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"^resume=last@step-100 names a checkpoint\. Write: resume=last checkpoint\.resume=step-100$"):
        split_resume(["resume=last@step-100"])


@pytest.mark.parametrize("written", ["my runs/demo/one", "'my runs/demo/one'", '"my runs/demo/one"'])
def test_a_run_to_resume_may_stand_in_quotes(written: str) -> None:
    assert split_resume([f"resume={written}"]) == ("my runs/demo/one", [])


def test_the_same_output_may_be_written_differently(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HERE", str(Path.cwd()))
    for written in (f"output={Path('outputs').absolute()}", "output=./outputs", "output=${oc.env:HERE}/outputs"):
        assert run_as_dict(resumed_run(run_dir, [written])) == run_as_dict(started())
    assert f"output: recorded outputs, given {tmp_path}/outputs" in refusal(run_dir, f"output={tmp_path}/outputs")


def test_what_only_the_site_sees_may_differ_on_a_resume() -> None:
    """A time limit that was too short must not end a run for good; nodes and ranks change what is trained."""
    site = {"partition", "account", "qos", "time", "memory", "constraint", "reservation", "exclude", "signal_seconds"}
    site |= {"gpu_types", "exclusive", "licenses", "mail_user", "mail_type", "comment", "dependency", "after", "directives", "setup", "export"}
    site |= {"container", "container_runtime", "container_mounts", "container_python"}
    site |= {"hosts", "address", "start", "python", "connect_seconds"}  # other machines of as many ranks
    assert {key.removeprefix("cluster.") for key in FREE if key.startswith("cluster.")} == site


def test_a_key_that_is_newer_than_the_run_has_its_default_and_a_line(run_dir: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    values = run_as_dict(started())
    for key in ("data.control_tokens", "evaluation.answers", "regime.lora_plus_ratio", "gate.canary", "training.kernels"):
        group, field = key.split(".")
        del values[group][field]
    run_dir.run_yaml.write_text(yaml.safe_dump(values))
    assert run_as_dict(resumed_run(run_dir, [])) == run_as_dict(started())
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"note: {run_dir.run_yaml} is older than the key {key}. The run has {key}={default}."
        for key, default in (
            ("data.control_tokens", "special"),
            ("training.kernels", "plain"),
            ("evaluation.answers", "0"),
            ("gate.canary", "false"),
            ("regime.lora_plus_ratio", "null"),
        )
    ]


def test_a_run_yaml_that_ends_early_is_damaged(run_dir: RunDir) -> None:
    run_dir.run_yaml.write_text(run_dir.run_yaml.read_text().partition("evaluation:")[0])
    with pytest.raises(ConfigError, match="It is damaged, or a different version of regimen wrote it"):
        resumed_run(run_dir, [])


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("a/run@step-3", "resume=a/run checkpoint.resume=step-3"),
        ("a/run@2", "resume=a/run checkpoint.resume=step-2"),
        ("a/run@newest", "resume=a/run, which goes on from the newest checkpoint"),
    ],
)
def test_a_checkpoint_behind_the_run_is_told_with_the_line_that_works(given: str, written: str) -> None:
    with pytest.raises(ConfigError) as refused:
        split_resume([f"resume={given}"])
    assert str(refused.value) == f"resume={given} names a checkpoint. Write: {written}"


def test_a_run_whose_name_holds_an_at_sign_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "mine@2").mkdir()
    assert split_resume([f"resume={tmp_path}/mine@2"])[0] == f"{tmp_path}/mine@2"
