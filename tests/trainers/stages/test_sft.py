"""Supervised fine-tuning on one CPU process: what is learned, what a step counts, and going on from a checkpoint."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainerCallback

from conf.run_dir import RunDir
from conf.schema import Run
from tests.described import described
from trainers.callbacks.committing import Committing
from trainers.data import build_collator, build_datasets
from trainers.data.rows.packing import packed_row
from trainers.model.tokenizer import load_tokenizer
from trainers.regimes import prepare_model
from trainers.stages import sft
from trainers.stages.shared.material import Material

VOCABULARY = 264  # of model=demo
IGNORED = -100
SHORT = {"input_ids": [5, 6, 7], "labels": [IGNORED, 6, 7]}  # 2 learned tokens
LONG = {"input_ids": [9, 8, 7, 6, 5, 4], "labels": [IGNORED, 8, 7, 6, 5, 4]}  # 5 learned tokens


def run_of(*overrides: str) -> Run:
    # sharding=ddp is no wrapper on one rank
    common = ["node=cpu", "cluster.ranks_per_node=1", "sharding=ddp", "training.precision=fp32", "training.gradient_checkpointing=false"]
    return described(
        "model=demo", "data=demo", "regime=full", *common, "optim.lr=0.003", "evaluation.interval=0", "checkpoint.interval=0", *overrides
    )


def trainer_of(run: Run, run_dir: RunDir, train: Dataset, evaluation: Dataset | None = None, callbacks: tuple[TrainerCallback, ...] = ()) -> Trainer:
    """The parts in the order in which trainers/run.py puts them together."""
    tokenizer = load_tokenizer(run)
    arguments = sft.build_arguments(run, run_dir, evaluation is not None)
    prepared = prepare_model(run, sft.MODEL_CLASS, run_dir.base)
    return sft.build_trainer(run, arguments, prepared, Material(tokenizer, train, evaluation, build_collator(run, tokenizer), [*callbacks]))


def logged(trainer: Trainer, key: str) -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def with_uniform_answers(trainer: Trainer) -> Trainer:
    """Embedding and head are one weight in this model: at zero, every token is equally likely."""
    assert trainer.model is not None
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.zero_()
    return trainer


@pytest.mark.parametrize("regime", [("regime=full",), ("regime=lora", "regime.rank=32", "regime.alpha=64")])
def test_the_loss_falls_and_the_answers_of_unseen_questions_get_likelier(regime: tuple[str, ...], tmp_path: Path) -> None:
    run = run_of(*regime, "training.max_steps=40", "training.micro_batch=16", "data.max_samples=200")
    data = build_datasets(run, load_tokenizer(run))
    trainer = trainer_of(run, RunDir(tmp_path), data.train, data.evaluation)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    losses = logged(trainer, "loss")
    assert len(losses) == 40
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert trainer.evaluate()["eval_loss"] < 0.7 * before


def test_the_loss_is_the_mean_over_the_learned_tokens_alone(tmp_path: Path) -> None:
    trainer = with_uniform_answers(trainer_of(run_of(), RunDir(tmp_path), Dataset.from_list([SHORT]), Dataset.from_list([SHORT, LONG])))
    assert trainer.evaluate()["eval_loss"] == pytest.approx(math.log(VOCABULARY), rel=1e-6)


@pytest.mark.parametrize("prompt", [[5, 6], [7, 6]])
def test_labels_of_the_prompt_have_no_part_in_the_loss(prompt: list[int], tmp_path: Path) -> None:
    """Two positions ask for a token, and one of them is masked: only the other is counted, whatever stands in the prompt."""
    row = {"input_ids": [*prompt, 8], "labels": [IGNORED, IGNORED, 8]}
    trainer = trainer_of(run_of(), RunDir(tmp_path), Dataset.from_list([row]), Dataset.from_list([row]))
    assert trainer.model is not None
    with torch.no_grad():
        logits = trainer.model(input_ids=torch.tensor([row["input_ids"]])).logits[0, 1]
    by_hand = -torch.log_softmax(logits, dim=-1)[8].item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(by_hand, rel=1e-5)


def test_accumulated_passes_make_the_step_of_one_large_pass(tmp_path: Path) -> None:
    """Rows of 2 and of 5 learned tokens: a mean of the two means would weigh the tokens of the short one more."""
    found = []
    for overrides in (("training.micro_batch=2",), ("training.micro_batch=1", "training.accumulation=2")):
        run = run_of("training.max_steps=1", "optim.warmup=0", *overrides)
        trainer = trainer_of(run, RunDir(tmp_path), Dataset.from_list([SHORT, LONG]))
        trainer.train()
        assert trainer.model is not None
        found.append((logged(trainer, "loss"), logged(trainer, "grad_norm"), trainer.model.get_input_embeddings().weight.detach().clone()))
    (loss, norm, weight), (split_loss, split_norm, split_weight) = found
    assert split_loss == pytest.approx(loss, rel=1e-5)
    assert split_norm == pytest.approx(norm, rel=1e-4)
    torch.testing.assert_close(split_weight, weight, rtol=0, atol=1e-5)


def test_the_chunked_loss_makes_the_same_steps_and_evaluation(tmp_path: Path) -> None:
    found = []
    for loss in ("plain", "chunked"):
        run = run_of(f"training.loss={loss}", "training.max_steps=3", "training.micro_batch=1", "training.accumulation=2")
        trainer = trainer_of(run, RunDir(tmp_path), Dataset.from_list([SHORT, LONG]), Dataset.from_list([LONG]))
        trainer.train()
        found.append([*logged(trainer, "loss"), *logged(trainer, "grad_norm"), trainer.evaluate()["eval_loss"]])
    plain, chunked = found
    assert len(plain) == 7
    assert chunked == pytest.approx(plain, rel=1e-5)


def test_the_given_callbacks_see_every_step(tmp_path: Path) -> None:
    class Steps(TrainerCallback):
        seen: list[int]

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.seen.append(state.global_step)

    steps = Steps()
    steps.seen = []
    trainer_of(run_of("training.max_steps=3"), RunDir(tmp_path), Dataset.from_list([SHORT, LONG]), callbacks=(steps,)).train()
    assert steps.seen == [1, 2, 3]


def test_a_run_goes_on_from_a_committed_checkpoint_with_the_same_losses(tmp_path: Path) -> None:
    run, run_dir = run_of("training.max_steps=6", "checkpoint.interval=2"), RunDir(tmp_path)
    run_dir.checkpoints.mkdir()
    rows = Dataset.from_list([SHORT, LONG, {"input_ids": [1, 2], "labels": [1, 2]}])
    whole = trainer_of(run, run_dir, rows, callbacks=(Committing(run_dir, keep=3, world=1),))
    whole.train()
    resumed = trainer_of(run, run_dir, rows, callbacks=(Committing(run_dir, keep=1, world=1),))
    resumed.train(resume_from_checkpoint=str(run_dir.checkpoint(2)))
    assert logged(resumed, "loss") == logged(whole, "loss")
    assert sorted(path.name for path in run_dir.checkpoints.glob("step-*")) == ["step-4", "step-6"]  # two whole ones while it trains


def test_a_packed_run_goes_on_from_a_checkpoint_with_the_same_losses_and_evaluates_as_unpacked_rows(tmp_path: Path) -> None:
    packing = ("data.packing=true", "training.attention=varlen", "training.micro_batch=1", "evaluation.micro_batch=1")
    run, run_dir = run_of(*packing, "training.max_steps=4", "checkpoint.interval=2"), RunDir(tmp_path)
    run_dir.checkpoints.mkdir()
    rows = Dataset.from_list([packed_row([(row["input_ids"], row["labels"]) for row in pair]) for pair in ((SHORT, LONG), (LONG, SHORT))])
    whole = trainer_of(run, run_dir, rows, rows, callbacks=(Committing(run_dir, keep=3, world=1),))
    whole.train()
    resumed = trainer_of(run, run_dir, rows, rows, callbacks=(Committing(run_dir, keep=1, world=1),))
    resumed.train(resume_from_checkpoint=str(run_dir.checkpoint(2)))
    assert logged(resumed, "loss") == logged(whole, "loss")
    alone = trainer_of(run_of("evaluation.micro_batch=2"), RunDir(tmp_path), Dataset.from_list([SHORT]), Dataset.from_list([SHORT, LONG]))
    alone.model.load_state_dict(resumed.model.state_dict())
    assert resumed.evaluate()["eval_loss"] == pytest.approx(alone.evaluate()["eval_loss"], rel=1e-5)
