"""GRPO on one CPU process: every regime, the prompts as they were tokenised, exact resume, and a reward that rises."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from reward_models import save_reward_model

from conf.run_dir import RunDir
from tests.trainers.stages.own_answers import REGIMES, Logged, RunOf, TrainerOf
from trainers.callbacks.committing import Committing
from trainers.callbacks.progress import Progress
from trainers.measures.phases import Peaks, Phases, Reading
from trainers.model.tokenizer import byte_tokenizer

PROMPTS = Dataset.from_list([{"prompt_ids": [*range(97, 100 + number % 5), 100 + number], "prompt": "", "answer": "7"} for number in range(8)])
WORDS = ("stage.rewards=[format]", "stage.format='[ -~].*'")  # answers that begin with a printable letter


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"stage.reward_model={save_reward_model(tmp_path_factory.mktemp('judge') / 'model')}"


@pytest.fixture
def grpo_run(run_of: RunOf) -> RunOf:
    return lambda *overrides: run_of("grpo", "stage.response_length=6", "stage.generations=4", *overrides)


@pytest.mark.parametrize("regime", REGIMES.values(), ids=REGIMES)
def test_every_regime_trains_and_saves(
    regime: tuple[str, ...], judge: str, grpo_run: RunOf, trainer_of: TrainerOf, logged: Logged, tmp_path: Path
) -> None:
    run = grpo_run(*regime, judge, "stage.rewards=[]", "stage.kl_coef=0.1", "training.max_steps=3")
    trainer = trainer_of(run, tmp_path, PROMPTS, PROMPTS.select(range(2)))
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert {weight.dtype for weight in before.values()} == {torch.float32}
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    after = dict(trainer.model.named_parameters())
    assert any((after[name] - weight).abs().max() > 1e-4 for name, weight in before.items())
    assert len(logged(trainer, "reward")) == 3
    kl = logged(trainer, "kl")
    assert kl[0] == pytest.approx(0, abs=1e-3)
    assert 0 < kl[2] < 1
    saved = sorted(path.name for path in (tmp_path / "model").glob("*.safetensors"))
    assert saved == (["adapter_model.safetensors"] if "lora" in regime[0] else ["model.safetensors"])


@pytest.mark.parametrize("regime", ["full", "lora"])
def test_a_resumed_run_goes_on_exactly(regime: str, judge: str, grpo_run: RunOf, trainer_of: TrainerOf, logged: Logged, tmp_path: Path) -> None:
    """8 prompts x 4 answers make an epoch of 4 steps of 8 answers: step 6 lies in the middle of the second."""
    settings = ("stage.kl_coef=0.1", "training.max_steps=9", "training.accumulation=2", "checkpoint.interval=3")
    run, run_dir = grpo_run(*REGIMES[regime], judge, "stage.rewards=[]", *settings), RunDir(tmp_path)
    run_dir.checkpoints.mkdir()
    whole = trainer_of(run, tmp_path, PROMPTS, callbacks=(Committing(run_dir, keep=9, world=1),))
    whole.train()
    for step in (3, 6):
        resumed = trainer_of(run, tmp_path, PROMPTS, callbacks=(Committing(run_dir, keep=9, world=1),))
        resumed.train(resume_from_checkpoint=str(run_dir.checkpoint(step)))
        for key in ("loss", "grad_norm", "reward", "kl"):
            assert logged(resumed, key) == logged(whole, key), (step, key)


def test_the_reward_rises(grpo_run: RunOf, trainer_of: TrainerOf, logged: Logged, tmp_path: Path) -> None:
    """The letters that begin an answer are 95 of 264 tokens; after training they begin nearly all."""
    settings = ("training.max_steps=60", "training.micro_batch=32", "stage.generations=8", "optim.lr=0.005", "optim.scheduler=constant")
    trainer = trainer_of(grpo_run(*REGIMES["full"], *WORDS, *settings), tmp_path, PROMPTS, PROMPTS)
    trainer.train()
    rewards = logged(trainer, "reward")
    assert sum(rewards[:5]) / 5 < 0.6
    assert sum(rewards[-5:]) / 5 > 0.9


def test_rewards_are_added_up_and_each_is_told(grpo_run: RunOf, trainer_of: TrainerOf, logged: Logged, tmp_path: Path) -> None:
    run = grpo_run(*REGIMES["full"], "stage.rewards=[brevity,format]", "stage.format='.*'", "training.max_steps=1")
    trainer = trainer_of(run, tmp_path, PROMPTS)
    trainer.train()
    assert logged(trainer, "rewards/format/mean") == [1.0]
    assert logged(trainer, "reward") == pytest.approx([1.0 + logged(trainer, "rewards/brevity/mean")[0]])


def test_a_prompt_is_answered_as_the_data_tokenised_it_and_a_reward_sees_the_columns_of_its_row(
    grpo_run: RunOf, trainer_of: TrainerOf, tmp_path: Path
) -> None:
    """The text of a prompt, tokenised again, could begin with a second beginning-of-text token, or be cut elsewhere."""
    seen: list[dict[str, Any]] = []

    def watch(prompt_ids: list[list[int]], completion_ids: list[list[int]], completions: list[str], answer: list[str], **_: Any) -> list[float]:
        seen.append({"prompts": prompt_ids, "completions": completions, "ids": completion_ids, "answers": answer})
        return [0.0] * len(prompt_ids)

    trainer: Any = trainer_of(grpo_run(*REGIMES["full"], "stage.rewards=[brevity]", "training.max_steps=1"), tmp_path, PROMPTS)
    trainer.reward_funcs = [watch]
    batches: list[torch.Tensor] = []
    trainer.model.register_forward_pre_hook(
        lambda _, __, named: batches.append(named["input_ids"]) if trainer.model.training else None, with_kwargs=True
    )
    trainer.train()
    (call,) = seen
    assert call["prompts"] == [call["prompts"][0]] * 4  # one group
    assert call["prompts"][0] in PROMPTS["prompt_ids"]
    assert call["answers"] == ["7"] * 4
    assert call["completions"] == byte_tokenizer().batch_decode(call["ids"], skip_special_tokens=True)
    (batch,) = batches  # answers are written out of sight of what counts the tokens of training
    assert sorted(row[: len(call["prompts"][0])].tolist() for row in batch) == call["prompts"]


def test_the_loss_of_an_evaluation_is_minus_its_reward(grpo_run: RunOf, trainer_of: TrainerOf, logged: Logged, tmp_path: Path) -> None:
    trainer = trainer_of(grpo_run(*REGIMES["full"], *WORDS, "evaluation.micro_batch=2"), tmp_path, PROMPTS, PROMPTS)
    found = trainer.evaluate()
    assert found["eval_loss"] == -logged(trainer, "eval_reward")[0]
    assert 0 < -found["eval_loss"] < 1


def test_writing_answers_is_a_phase_of_its_own(grpo_run: RunOf, trainer_of: TrainerOf, tmp_path: Path) -> None:
    """The meter counts how often it was asked: each border once, whatever number of forward passes an answer takes."""
    asked = 0

    def meter() -> Reading:
        nonlocal asked
        asked += 1
        return Reading(asked, asked)

    peaks = Peaks(meter)
    run = grpo_run(*REGIMES["full"], *WORDS, "stage.kl_coef=0.1", "training.max_steps=2")
    trainer_of(run, tmp_path, PROMPTS, callbacks=(Phases(peaks),)).train()
    assert list(peaks.by_phase) == ["load", "warm-up", "elsewhere", "generation", "forward", "backward", "optimizer step"]
    borders_of_a_step = 7  # before and after the answers, before and after the forward pass, backward, optimizer, the end of the step
    assert asked == 1 + 2 * borders_of_a_step


def test_progress_tells_rewards_divergence_entropy_and_lengths(grpo_run: RunOf, trainer_of: TrainerOf, tmp_path: Path) -> None:
    run = grpo_run(*REGIMES["full"], *WORDS, "stage.kl_coef=0.1", "training.max_steps=2")
    trainer_of(run, tmp_path, PROMPTS, callbacks=(Progress(RunDir(tmp_path), leads=True),)).train()
    lines = RunDir(tmp_path).progress.read_text().splitlines()
    assert len(lines) == 2
    for key in ("loss", "reward", "kl", "entropy", "answer_length", "unfinished", "clip_ratio", "eta_seconds"):
        assert f'"{key}": ' in lines[0], key


@pytest.mark.parametrize("regime", ["full", "lora"])
def test_only_the_tokens_of_answers_get_logits(regime: str, grpo_run: RunOf, trainer_of: TrainerOf, tmp_path: Path) -> None:
    """A prompt of thousands of tokens would have gigabytes of them."""
    trainer = trainer_of(grpo_run(*REGIMES[regime], "stage.rewards=[brevity]", "training.max_steps=1"), tmp_path, PROMPTS)
    widths: list[int] = []
    head = trainer.model.get_output_embeddings()
    head.register_forward_hook(lambda _, __, logits: widths.append(logits.shape[1]) if logits.requires_grad else None)
    trainer.train()
    assert widths == [6 + 1]


def test_an_answer_may_end_as_the_tokenizer_or_as_the_template_says(grpo_run: RunOf, trainer_of: TrainerOf, logged: Logged, tmp_path: Path) -> None:
    """As with Gemma, whose texts end with one token and whose answers with another."""
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    settings = ("training.micro_batch=64", "training.max_steps=1", "stage.rewards=[brevity]", "stage.response_length=64", "stage.temperature=3.0")
    trainer: Any = trainer_of(
        grpo_run(*REGIMES["full"], *settings, f"model.tokenizer={tmp_path / 'tokenizer'}"), tmp_path, Dataset.from_list([*PROMPTS] * 2)
    )
    seen: list[list[int]] = []
    trainer.reward_funcs = [lambda completion_ids, **_: seen.extend(completion_ids) or [0.0] * len(completion_ids)]
    trainer.train()
    ended = [answer for answer in seen if set(answer) & set(ends)]
    assert {answer[-1] for answer in ended} == set(ends)
    assert all(not set(answer[:-1]) & set(ends) for answer in seen)
