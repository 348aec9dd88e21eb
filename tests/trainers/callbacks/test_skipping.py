"""training.on_nan=skip leaves out the steps whose loss or gradient is no number, and nothing else."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState

from conf import journal
from conf.committed import committed, faults
from conf.run_dir import RunDir, save_run
from tests.described import described
from trainers.ranks.causes import NotANumber
from trainers.ranks.place import Place

TINY = (
    *("model=demo", "model.architecture.hidden_size=64", "model.architecture.intermediate_size=128", "data=demo", "data.max_samples=64"),
    *("node=cpu", "cluster.ranks_per_node=1", "training.precision=fp32", "training.micro_batch=4", "evaluation.interval=0", "regime=full"),
    *("training.max_steps=6", "optim.warmup=0", "checkpoint.interval=1", "optim.scheduler=constant", "optim.lr=1e-3", "sharding=ddp"),
)
STEPS = range(1, 7)


def trained(folder: Path, bad: set[int], *overrides: str) -> tuple[RunDir, dict[int, Any]]:
    """In this process; the loss of the steps in `bad` is NaN. With the weights of one layer before each step."""
    from trainers.run import train
    from trainers.stages.sft import NextToken

    run, run_dir = described(*TINY, *overrides), RunDir(folder)
    run_dir.path.mkdir(parents=True)
    save_run(run, run_dir)
    AcceleratorState._reset_state()
    GradientState._reset_state()
    compute, weights = NextToken.compute_loss, {}

    def broken(self: NextToken, model: Any, *positional: Any, **named: Any) -> Any:
        step = self.state.global_step + 1
        weights[step] = next(model.parameters()).detach().clone()
        loss = compute(self, model, *positional, **named)
        return loss * math.nan if step in bad else loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NextToken, "compute_loss", broken)
        assert train(run, run_dir, Place(0, 0, 1)) == (0, "finished")
    return run_dir, weights


def losses(run_dir: RunDir) -> list[float]:
    return [entry["loss"] for line in run_dir.progress.read_text().splitlines() if "loss" in (entry := json.loads(line))]


def test_only_the_bad_steps_are_left_out(tmp_path: Path) -> None:
    run_dir, weights = trained(tmp_path / "run", {2, 4, 5}, "training.on_nan=skip")
    same = {step: bool(torch.equal(weights[step], weights[step + 1])) for step in list(STEPS)[:-1]}
    assert same == {1: False, 2: True, 3: False, 4: True, 5: True}
    found = losses(run_dir)
    assert all(map(math.isfinite, found))
    assert found[1] == pytest.approx(found[0], abs=1e-4)  # with the loss before it
    assert [event["step"] for event in journal.events(run_dir) if event["event"] == "skip"] == [2, 4, 5]
    assert run_dir.notes.read_text().count("was left out: the loss is NaN or infinite (rank 0: rows ") == 3
    assert [faults(path) for path in committed(run_dir)] == [[], []]


def test_a_run_without_bad_steps_is_the_same_with_and_without(tmp_path: Path) -> None:
    plain, _ = trained(tmp_path / "stop", set())
    skipping, _ = trained(tmp_path / "skip", set(), "training.on_nan=skip")
    assert losses(plain) == losses(skipping)
    assert (plain.model / "model.safetensors").read_bytes() == (skipping.model / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("bad", "keys", "why"),
    [
        ({1}, (), "^At step 1 the loss is NaN or infinite .*, and no step before it was good"),
        (set(range(2, 13)), ("training.max_steps=13",), "^At step 12 .* 10 steps before it were left out too"),
    ],
)
def test_it_stops_where_the_weights_are_at_fault(bad: set[int], keys: tuple[str, ...], why: str, tmp_path: Path) -> None:
    with pytest.raises(NotANumber, match=why):
        trained(tmp_path / "run", bad, "training.on_nan=skip", *keys)
