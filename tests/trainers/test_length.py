"""A finished run that is made longer, trained by the rank's own train(): what a step after the old end is."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState, GradientState

from conf.run_dir import RunDir, load_run, save_run
from conf.schedules import rate
from tests.trainers.conftest import REGIMES, trained
from trainers.errors import DataError
from trainers.ranks.place import Place
from trainers.run import train

RunOf = Callable[..., RunDir]
CACHE = "cache"


@pytest.fixture
def run_of(tmp_path: Path) -> RunOf:
    def made(name: str, steps: int, *overrides: str) -> RunDir:
        data = ("data=demo", "data.max_samples=64", f"data.cache={tmp_path / CACHE}", "stage=sft")
        return trained(tmp_path / name, *data, *REGIMES["full"], "checkpoint.interval=3", f"training.max_steps={steps}", *overrides)

    return made


def go_on(run_dir: RunDir, steps: int, **portions: int) -> tuple[int, str]:
    """As the launcher does after run.yaml has the new length."""
    run = load_run(run_dir)
    run = replace(run, training=replace(run.training, max_steps=steps, **portions))
    save_run(run, run_dir)
    for folder in (run_dir.exits, run_dir.layouts, run_dir.peaks):
        shutil.rmtree(folder, ignore_errors=True)
    AcceleratorState._reset_state()
    GradientState._reset_state()
    return train(run, run_dir, Place(0, 0, 1))


def logged(run_dir: RunDir, key: str) -> dict[int, float]:
    lines = [json.loads(line) for line in run_dir.progress.read_text().splitlines()]
    return {line["step"]: line[key] for line in lines if key in line}


def rows_of(run_dir: RunDir) -> dict[int, list[int]]:
    """The rows of the prepared data that each step was made of, in their order."""
    lines = [json.loads(line) for line in run_dir.rows_file(0).read_text().splitlines()]
    return {line["step"]: line["rows"] for line in lines}


def test_with_a_constant_rate_a_longer_run_is_one_that_was_never_shorter(run_of: RunOf) -> None:
    constant = "optim.scheduler=constant"
    whole, longer = run_of("whole", 6, constant), run_of("longer", 3, constant)
    assert go_on(longer, 6) == (0, "finished")
    assert sorted(logged(longer, "loss")) == [1, 2, 3, 4, 5, 6]
    assert logged(longer, "loss") == logged(whole, "loss")
    assert (longer.model / "model.safetensors").read_bytes() == (whole.model / "model.safetensors").read_bytes()


@pytest.mark.parametrize("overrides", [("optim.scheduler=linear",), ("optim.scheduler=cosine", "optim.warmup=0.2")])
def test_every_step_after_the_old_end_has_the_rate_of_the_new_length(overrides: tuple[str, ...], run_of: RunOf) -> None:
    """The checkpoint of a finished run holds the end of its schedule: the first step after it was made at that rate, which is 0 for both."""
    run_dir = run_of("longer", 3, *overrides)
    assert go_on(run_dir, 7) == (0, "finished")
    optim = load_run(run_dir).optim
    rates = logged(run_dir, "lr")
    assert [rates[step] for step in (1, 2, 3)] == pytest.approx([rate(optim, step, 3) for step in (1, 2, 3)])
    assert [rates[step] for step in (4, 5, 6, 7)] == pytest.approx([rate(optim, step, 7) for step in (4, 5, 6, 7)])
    assert logged(run_dir, "loss")[5] != logged(run_dir, "loss")[4]


def test_a_run_that_lost_only_its_model_writes_it_without_a_further_step(run_of: RunOf) -> None:
    """Killed while the model was saved, after the checkpoint of the last step: within an epoch, transformers made one step more."""
    run_dir = run_of("killed", 3)
    before = (run_dir.model / "model.safetensors").read_bytes()
    shutil.rmtree(run_dir.model)
    assert go_on(run_dir, 3) == (0, "finished")
    assert (run_dir.model / "model.safetensors").read_bytes() == before
    assert max(logged(run_dir, "loss")) == 3
    assert [path.name for path in run_dir.checkpoints.glob("step-*")] == ["step-3"]


def test_smaller_micro_batches_see_the_same_samples(run_of: RunOf) -> None:
    """59 samples are trained on: an epoch has 8 steps of 8, and its last one is not full. Losses differ by the order of additions in fp32."""
    started = ("training.micro_batch=4", "training.accumulation=2", "optim.scheduler=constant", "data.max_samples=65")
    whole, smaller = run_of("whole", 12, *started), run_of("smaller", 3, *started)
    assert go_on(smaller, 12, micro_batch=1, accumulation=8) == (0, "finished")
    assert rows_of(smaller) == rows_of(whole)
    assert [len(rows) for rows in rows_of(whole).values()] == [*[8] * 7, 3, *[8] * 4]
    assert logged(smaller, "loss") == pytest.approx(logged(whole, "loss"), rel=1e-4)


def test_fewer_steps_than_were_made_are_refused_and_nothing_is_lost(run_of: RunOf) -> None:
    run_dir = run_of("shorter", 3)
    with pytest.raises(ValueError, match=r"gives 2 steps, and the run stands at step 3\. Give more training\.epochs"):
        go_on(run_dir, 2)
    assert (run_dir.model / "model.safetensors").is_file()


def test_a_finished_run_does_not_go_on_with_other_data(tmp_path: Path) -> None:
    rows = [{"instruction": f"Say {number}.", "output": f"{number} it is."} for number in range(32)]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    data = ("data=files", f"data.folder={tmp_path}", "data.sets=[rows.json]", "data.template=chatml", f"data.cache={tmp_path / CACHE}")
    run_dir = trained(tmp_path / "run", *data, "stage=sft", *REGIMES["full"])
    file.write_text(json.dumps([*rows[1:], rows[0]]))
    with pytest.raises(DataError, match="The data of this finished run has changed since"):
        go_on(run_dir, 4)
    assert not run_dir.prepared.exists()
    file.write_text(json.dumps(rows))
    assert go_on(run_dir, 4) == (0, "finished")
