"""What a run that has not ended will leave, for a job that waits for it."""

from dataclasses import replace
from pathlib import Path

import pytest

from conf.run_dir import RunDir, save_run
from conf.schema import Run
from launcher.errors import ConfigError
from launcher.facts.awaited import architecture_left, awaited_run
from tests.described import described

JOB = ("model=demo", "data=demo", "cluster=slurm", "node=cpu")


def recorded(folder: Path, *overrides: str, after: Path | None = None) -> RunDir:
    run_dir = RunDir(folder)
    folder.mkdir(parents=True)
    save_run(waiting_for(after, *overrides), run_dir)
    return run_dir


def waiting_for(after: Path | None, *overrides: str) -> Run:
    run = described(*JOB, *overrides)
    return replace(run, cluster=replace(run.cluster, after=None if after is None else str(after)))


def test_a_model_is_awaited_of_the_run_that_is_named_and_of_those_before_it(tmp_path: Path) -> None:
    sft, other = recorded(tmp_path / "sft", "regime=full"), recorded(tmp_path / "other", "regime=full")
    rm = recorded(tmp_path / "rm", "stage=rm", "regime=full", after=sft.path)
    ppo = waiting_for(rm.path)
    assert awaited_run(ppo, str(sft.model)) == sft
    assert awaited_run(ppo, str(rm.path)) == rm
    assert awaited_run(ppo, str(other.model)) is None
    assert awaited_run(ppo, str(sft.path / "checkpoints")) is None
    assert awaited_run(ppo, None) is None
    assert awaited_run(waiting_for(None), str(sft.model)) is None
    sft.model.mkdir()
    assert awaited_run(ppo, str(sft.model)) is None


def test_runs_that_wait_for_each_other_end_the_search(tmp_path: Path) -> None:
    first = recorded(tmp_path / "a", after=tmp_path / "b")
    recorded(tmp_path / "b", after=first.path)
    assert awaited_run(waiting_for(first.path), str(tmp_path / "c")) is None


def test_a_full_run_leaves_its_own_architecture_with_the_rows_that_it_added(tmp_path: Path) -> None:
    run_dir = recorded(tmp_path / "run", "regime=full", 'model.added_tokens=["<a>","<b>"]', "model.vocab_multiple=64")
    before = described(*JOB).model.architecture
    left = architecture_left("x", run_dir)
    assert left["vocab_size"] == -(-(before["vocab_size"] + 2) // 64) * 64
    assert {**left, "vocab_size": 0} == {**before, "vocab_size": 0}


def test_an_adapter_is_no_model_to_start_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.path=x: the run there is of regime=lora and will leave an adapter.*regimen export"):
        architecture_left("x", recorded(tmp_path / "run", "regime=lora"))


def test_a_run_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("model: [")
    with pytest.raises(ConfigError, match=r"cluster\.after: .*run\.yaml cannot be read"):
        awaited_run(waiting_for(tmp_path), str(tmp_path))
