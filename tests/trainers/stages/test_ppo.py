"""PPO on one CPU process: every regime, going on in the middle of a rollout, and a reward that rises."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from reward_models import save_reward_model
from transformers import AutoModelForCausalLM, Trainer

from conf.run_dir import RunDir
from tests.trainers.stages.own_answers import REGIMES, Logged, RunOf, TrainerOf
from trainers.callbacks.committing import Committing
from trainers.callbacks.stopping import Stopping
from trainers.measures.phases import Peaks, Phases, Reading
from trainers.ranks.stop import REQUESTS

PROMPTS = Dataset.from_list([{"prompt_ids": [*range(97, 100 + number % 5), 100 + number], "prompt": "", "answer": ""} for number in range(16)])


@pytest.fixture(scope="module")
def ppo_run(run_of: RunOf, tmp_path_factory: pytest.TempPathFactory) -> RunOf:
    judge = save_reward_model(tmp_path_factory.mktemp("judge") / "model")
    return lambda *overrides: run_of("ppo", f"stage.reward_model={judge}", "stage.response_length=6", "stage.epochs=2", *overrides)


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("regime", REGIMES.values(), ids=REGIMES)
def test_every_regime_trains_and_saves_a_plain_policy(
    regime: tuple[str, ...], ppo_run: RunOf, trainer_of: TrainerOf, logged: Logged, tmp_path: Path
) -> None:
    trainer = trainer_of(ppo_run(*regime, "training.max_steps=4"), tmp_path, PROMPTS, PROMPTS.select(range(4)))
    before = weights(trainer)
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    assert len(logged(trainer, "loss")) == 4
    assert logged(trainer, "clip_ratio")[0] == 0  # nothing has moved yet
    assert len(logged(trainer, "reward")) == 2  # a rollout lasts for two steps
    assert logged(trainer, "kl")[0] == pytest.approx(0, abs=1e-3)  # bf16 rounds the reference's weights
    assert 0 < abs(logged(trainer, "kl")[1]) < 1
    after = weights(trainer)
    assert any((after[name] - before[name]).abs().max() > 1e-4 for name in before if "value_head" not in name)
    assert (after["value_head.weight"] != 0).any()
    saved = sorted(path.name for path in (tmp_path / "model").glob("*.safetensors"))
    assert saved == (["adapter_model.safetensors"] if "lora" in regime[0] else ["model.safetensors"])


def test_what_is_saved_is_loaded_by_plain_transformers_and_peft(ppo_run: RunOf, trainer_of: TrainerOf, tmp_path: Path) -> None:
    tokens = torch.arange(97, 109)[None]
    for regime in ("full", "lora"):
        folder = tmp_path / regime
        trainer = trainer_of(ppo_run(*REGIMES[regime], "training.max_steps=2"), folder, PROMPTS)
        trainer.train()
        trainer.save_model(str(folder / "model"))
        back = AutoModelForCausalLM.from_pretrained(folder / ("model" if regime == "full" else "base"))
        back = back if regime == "full" else PeftModel.from_pretrained(back, folder / "model")
        with torch.no_grad():
            torch.testing.assert_close(back(input_ids=tokens).logits, trainer.model(input_ids=tokens).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("step", [3, 4], ids=["in the middle of a rollout", "between two rollouts"])
@pytest.mark.parametrize("regime", ["full", "lora"])
def test_a_resumed_run_goes_on_exactly(regime: str, step: int, ppo_run: RunOf, trainer_of: TrainerOf, logged: Logged, tmp_path: Path) -> None:
    """A rollout lasts for 2 epochs x 2 mini batches = 4 steps; 16 prompts make an epoch of 2 rollouts, so that the order of a second one counts."""
    overrides = (*REGIMES[regime], "stage.mini_batches=2", "training.max_steps=10", f"checkpoint.interval={step}", "training.accumulation=1")
    run, run_dir = ppo_run(*overrides), RunDir(tmp_path)
    run_dir.checkpoints.mkdir()
    whole = trainer_of(run, tmp_path, PROMPTS, callbacks=(Committing(run_dir, keep=9, world=1),))
    whole.train()
    last = max(number for number in (step, 2 * step) if run_dir.checkpoint(number).exists())
    for start in {step, last}:
        resumed = trainer_of(run, tmp_path, PROMPTS, callbacks=(Committing(run_dir, keep=9, world=1),))
        resumed.train(resume_from_checkpoint=str(run_dir.checkpoint(start)))
        for key in ("loss", "grad_norm", "reward", "kl"):
            assert logged(resumed, key) == logged(whole, key), (start, key)
        for name, weight in weights(whole).items():
            assert torch.equal(weights(resumed)[name], weight), name


def test_only_a_checkpoint_inside_of_a_rollout_keeps_it(ppo_run: RunOf, trainer_of: TrainerOf, tmp_path: Path) -> None:
    run, run_dir = ppo_run(*REGIMES["full"], "training.max_steps=4", "checkpoint.interval=1"), RunDir(tmp_path)
    run_dir.checkpoints.mkdir()
    trainer_of(run, tmp_path, PROMPTS, callbacks=(Committing(run_dir, keep=9, world=1),)).train()
    kept = {step: (run_dir.checkpoint(step) / "rollout_0.safetensors").exists() for step in (1, 2, 3, 4)}
    assert kept == {1: True, 2: False, 3: True, 4: False}
    assert all((run_dir.checkpoint(step) / "value_head.safetensors").exists() for step in kept)


def test_accumulated_passes_make_the_step_of_one_large_pass(ppo_run: RunOf, trainer_of: TrainerOf, logged: Logged, tmp_path: Path) -> None:
    """Answers of different lengths: a mean of the means of passes would weigh the tokens of short ones more."""
    found = []
    for overrides in (("training.micro_batch=8",), ("training.micro_batch=2", "training.accumulation=4")):
        trainer = trainer_of(ppo_run(*REGIMES["full"], "training.max_steps=2", "stage.temperature=2.0", *overrides), tmp_path, PROMPTS)
        with torch.no_grad():
            trainer.model.model.norm.weight.mul_(0.2)  # flat probabilities, so that some answers end early
        trainer.train()
        found.append((logged(trainer, "loss"), logged(trainer, "grad_norm"), logged(trainer, "completions/mean_length"), weights(trainer)))
    (loss, norm, length, weight), (split_loss, split_norm, split_length, split_weight) = found
    assert split_length == length
    assert split_loss == pytest.approx(loss, rel=1e-4)
    assert split_norm == pytest.approx(norm, rel=1e-4)
    for name in weight:
        torch.testing.assert_close(split_weight[name], weight[name], rtol=0, atol=2e-4)


def test_the_reward_rises(ppo_run: RunOf, trainer_of: TrainerOf, tmp_path: Path) -> None:
    """The policy finds out what a judge of random weights likes."""
    settings = ("stage.kl_coef=0.01", "stage.temperature=1.0", "optim.lr=0.01", "optim.scheduler=constant")
    prompts = Dataset.from_list([{**row, "prompt_ids": [*row["prompt_ids"], 97 + turn]} for turn in range(4) for row in PROMPTS])
    trainer = trainer_of(ppo_run(*REGIMES["full"], "training.max_steps=60", "training.micro_batch=64", *settings), tmp_path, prompts, PROMPTS)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before - 1


def test_an_evaluation_answers_alike_each_time_and_its_loss_is_minus_its_reward(ppo_run: RunOf, trainer_of: TrainerOf, tmp_path: Path) -> None:
    trainer: Any = trainer_of(ppo_run(*REGIMES["full"], "evaluation.micro_batch=3"), tmp_path, PROMPTS, PROMPTS.select(range(7)))
    first, second = trainer.evaluate(), trainer.evaluate()
    assert first["eval_loss"] == second["eval_loss"] != 0
    assert first["eval_reward"] == pytest.approx(-first["eval_loss"], abs=1e-5)
    alone = [trainer.evaluate(PROMPTS.select([row]))["eval_loss"] for row in range(7)]
    assert first["eval_loss"] == pytest.approx(sum(alone) / 7, abs=1e-5)


def test_writing_and_judging_answers_is_a_phase_of_its_own(ppo_run: RunOf, trainer_of: TrainerOf, tmp_path: Path) -> None:
    """The meter counts how often it was asked: the second step reads the answers of the first and has no such phase."""
    asked = 0

    def meter() -> Reading:
        nonlocal asked
        asked += 1
        return Reading(asked, asked)

    peaks = Peaks(meter)
    trainer_of(ppo_run(*REGIMES["full"], "training.max_steps=2"), tmp_path, PROMPTS, callbacks=(Phases(peaks),)).train()
    assert list(peaks.by_phase) == ["load", "warm-up", "elsewhere", "forward", "backward", "optimizer step"]
    borders_of_a_step = 5  # before and after the forward pass, backward, optimizer, the end of the step
    assert asked == 1 + 2 + 2 * borders_of_a_step


def test_a_stop_in_the_middle_of_a_rollout_leaves_a_checkpoint_that_keeps_it(
    ppo_run: RunOf, trainer_of: TrainerOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.callbacks.stopping.SIGNALS", ())  # pytest keeps its own handlers
    run, run_dir = ppo_run(*REGIMES["full"], "training.max_steps=4", "checkpoint.interval=0"), RunDir(tmp_path)
    run_dir.checkpoints.mkdir()
    stopping = Stopping(run_dir)
    trainer = trainer_of(run, tmp_path, PROMPTS, callbacks=(stopping, Committing(run_dir, keep=9, world=1)))
    with monkeypatch.context() as patched:
        patched.setattr("trainers.stages.ppo.leave_if_asked", run_dir.stop.touch)  # once its first answers are written
        trainer.train()
    REQUESTS.begin(tmp_path / "never")
    assert (stopping.stopped, trainer.state.global_step) == (True, 1)
    assert {"manifest.json", "rollout_0.safetensors", "value_head.safetensors"} <= {path.name for path in run_dir.checkpoint(1).iterdir()}
