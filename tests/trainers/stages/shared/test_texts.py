"""Texts laid end to end are the padded rows: loss and gradients of every stage that compares answers, and what it logs and evaluates."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Trainer

from conf.schema import Run
from tests.trainers.small_models import SIZES as SMALL
from tests.trainers.small_models import WINDOW
from trainers.stages.shared import texts
from trainers.stages.shared.pairs import joined_pairs

FUSED = ("training.kernels=fused", "training.attention=varlen")
OWN_NAMES = {"rm": ("margin", "accuracy", "mean_reward"), "kto": ("kl",)}  # what else a step logs of these stages; elsewhere TRL's rewards
FULL, LORA = ("regime=full",), ("regime=lora", "regime.rank=4", "regime.alpha=8")
STAGES: dict[str, tuple[str, ...]] = {
    "rm": (),
    "dpo": ("stage.sft_weight=0.3",),
    "kto": ("stage.undesirable_weight=0.6",),
    "orpo": (),
    "simpo": ("stage.sft_weight=0.3",),
}
SIZES = {name: size for name, size in SMALL.items() if name != "pad_token_id"} | {
    "vocab_size": 264,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 264, "n_embd": 32, "n_layer": 2, "n_head": 4, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "n_positions": 64},
    "qwen2": SIZES,
    "gemma3_text": SIZES | WINDOW | {"head_dim": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "phi3": SIZES | WINDOW | {"pad_token_id": 0},
}


def described_run(tiny_run: Any, stage: str, *overrides: str, family: str | None = None) -> Run:
    run: Run = tiny_run(stage, *STAGES[stage], *overrides)
    return run if family is None else replace(run, model=replace(run.model, architecture={"model_type": family, **FAMILIES[family]}))


def disturbed(trainer: Trainer) -> None:
    """As after some training: the policy is no longer the reference, and an adapter adds something."""
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in trainer.model.parameters():
            if weight.requires_grad:
                weight += 0.02 * torch.randn(weight.shape, generator=draw)


def learned(trainer: Trainer, rows: Any, size: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and the gradients of micro-batches of `size` rows."""
    parts = [list(rows.select(range(begin, begin + size))) for begin in range(0, len(rows), size)]
    trainer.current_gradient_accumulation_steps = len(parts)
    losses = [trainer.training_step(trainer.model, trainer.data_collator(part)) for part in parts]
    return torch.stack(losses).sum(), {name: weight.grad for name, weight in trainer.model.named_parameters() if weight.grad is not None}


def assert_learns_the_same(run_pair: tuple[Run, Run], trainer_of: Any, rows: Any, folder: Path, size: int) -> None:
    found = []
    for run, name in zip(run_pair, ("plain", "fused"), strict=True):
        trainer = trainer_of(run, folder / name, rows)
        disturbed(trainer)
        found.append(learned(trainer, rows, size))
    (plain, plain_gradients), (fused, gradients) = found
    torch.testing.assert_close(fused, plain, rtol=1e-6, atol=1e-6)
    assert gradients.keys() == plain_gradients.keys()
    largest = max(float(gradient.abs().max()) for gradient in plain_gradients.values())
    assert largest > 1e-3
    torch.testing.assert_close(gradients, plain_gradients, rtol=1e-5, atol=1e-6 * max(1.0, largest))


@pytest.mark.parametrize("regime", [FULL, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("stage", STAGES)
def test_loss_and_gradients_are_those_of_padded_rows(
    stage: str, regime: tuple[str, ...], tmp_path: Path, run_of: Any, rows_of: Any, trainer_of: Any
) -> None:
    """In one micro-batch, and in three of two rows."""
    pair = described_run(run_of, stage, *regime), described_run(run_of, stage, *regime, *FUSED)
    for size in (6, 2):
        assert_learns_the_same(pair, trainer_of, rows_of(stage, 6), tmp_path / str(size), size)


@pytest.mark.parametrize(
    ("stage", "family"), [("rm", "gpt2"), ("dpo", "gpt2"), ("dpo", "qwen2"), ("rm", "gemma3_text"), ("orpo", "gemma3_text"), ("dpo", "phi3")]
)
def test_other_families_learn_the_same_too(stage: str, family: str, tmp_path: Path, run_of: Any, rows_of: Any, trainer_of: Any) -> None:
    pair = described_run(run_of, stage, *FULL, family=family), described_run(run_of, stage, *FULL, *FUSED, family=family)
    assert_learns_the_same(pair, trainer_of, rows_of(stage, 4), tmp_path, 4)


@pytest.mark.parametrize(
    ("stage", "further"),
    [
        ("dpo", ("stage.precompute_reference=true",)),
        ("dpo", ("stage.loss=ipo", "stage.sft_weight=0")),
        ("dpo", ("stage.label_smoothing=0.2",)),
        ("simpo", ("stage.sft_weight=0",)),
        ("dpo", ("training.gradient_checkpointing=true",)),
        ("rm", ("training.gradient_checkpointing=true",)),
    ],
    ids=str,
)
def test_other_keys_learn_the_same_too(
    stage: str, further: tuple[str, ...], tmp_path: Path, run_of: Any, rows_of: Any, trainer_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = rows_of(stage, 4)
    pair = described_run(run_of, stage, *LORA, *further), described_run(run_of, stage, *LORA, *further, *FUSED)
    assert_learns_the_same(pair, trainer_of, rows, tmp_path, 4)


@pytest.mark.parametrize(("stage", "regime"), [("dpo", FULL), ("kto", LORA), ("orpo", FULL), ("simpo", LORA)])
def test_a_chunked_loss_is_the_plain_one(
    stage: str, regime: tuple[str, ...], tmp_path: Path, run_of: Any, rows_of: Any, trainer_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In chunks of five tokens, of which no text is a multiple."""
    monkeypatch.setattr(texts, "LOSS_CHUNK", 5)
    pair = described_run(run_of, stage, *regime), described_run(run_of, stage, *regime, *FUSED, "training.loss=chunked")
    assert_learns_the_same(pair, trainer_of, rows_of(stage, 4), tmp_path, 4)


@pytest.mark.parametrize(("stage", "regime"), [("rm", FULL), ("dpo", LORA), ("kto", FULL), ("orpo", LORA), ("simpo", FULL)])
def test_a_run_logs_and_evaluates_what_the_plain_path_does(
    stage: str, regime: tuple[str, ...], tmp_path: Path, run_of: Any, rows_of: Any, trainer_of: Any
) -> None:
    """Under the same names. TRL logs more, of logits that do not exist here, and means of the means of micro-batches, which differ where those hold
    different numbers of tokens or of good answers."""
    logs, found = [], []
    for kernels in ((), FUSED):
        further = ("training.max_steps=3", "training.accumulation=2", "training.micro_batch=2", "evaluation.micro_batch=3", *kernels)
        trainer = trainer_of(described_run(run_of, stage, *regime, *further), tmp_path / str(len(logs)), rows_of(stage), rows_of(stage, 7))
        disturbed(trainer)
        trainer.train()
        logs.append([entry for entry in trainer.state.log_history if "loss" in entry])
        found.append(trainer.evaluate())
    plain, fused = logs
    assert len(fused) == 3
    means = {"loss", "grad_norm", "learning_rate", *OWN_NAMES.get(stage, ("rewards/chosen", "rewards/margins", "rewards/accuracies", "logps/chosen"))}
    assert means <= set(fused[0])
    for ours, theirs in zip(fused, plain, strict=True):
        assert {name: ours[name] for name in means} == pytest.approx({name: theirs[name] for name in means}, rel=1e-4, abs=1e-5)
    measures = {name for name in found[0] if not name.endswith(("runtime", "per_second"))}
    assert {name: found[1][name] for name in measures} == pytest.approx({name: found[0][name] for name in measures}, rel=1e-4, abs=1e-5)


def test_a_batch_holds_no_padding_and_reads_answers_where_they_are_foretold(run_of: Any) -> None:
    rows = [{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [5]}, {"prompt_ids": [6], "chosen_ids": [7], "rejected_ids": [8, 9]}]
    batch = joined_pairs(rows, run_of("dpo", *FUSED))
    texts_there = batch["texts"]
    assert texts_there["input_ids"].tolist() == [[1, 2, 3, 4, 6, 7, 1, 2, 5, 6, 8, 9]]
    assert texts_there["cu_seq_lens_q"].tolist() == [0, 4, 6, 9, 12]
    assert texts_there["places"].tolist() == [1, 2, 4, 7, 9, 10]
    assert texts_there["targets"].tolist() == [3, 4, 7, 5, 8, 9]
    assert (batch["counts"], batch["answers"], batch["lengths"].tolist()) == ([2, 1, 1, 2], [2, 1, 1, 2], [2, 1, 1, 2])
    with_prompts = joined_pairs(rows, run_of("orpo", *FUSED), prompts=True)
    assert with_prompts["texts"]["targets"].tolist() == [2, 3, 4, 7, 5, 8, 9]
    assert (with_prompts["counts"], with_prompts["answers"]) == ([3, 1, 1, 2], [2, 1, 1, 2])


def test_the_head_computes_answers_alone(tmp_path: Path, run_of: Any, rows_of: Any, trainer_of: Any) -> None:
    run = described_run(run_of, "dpo", *FULL, *FUSED)
    trainer, seen = trainer_of(run, tmp_path, rows_of("dpo")), []
    trainer.model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    batch = trainer.data_collator(list(rows_of("dpo", 3)))
    trainer.compute_loss(trainer.model, batch)
    assert seen == [(sum(batch["counts"]), 32)]
    assert batch["texts"]["input_ids"].numel() > 2 * sum(batch["counts"])


NLL = "stage.sft_weight=0.5"


@pytest.mark.parametrize(
    ("stage", "keys"),
    [
        *(("rm", ()), ("dpo", FUSED), ("dpo", (NLL,)), ("dpo", (NLL, *FUSED))),
        *(("simpo", FUSED), ("simpo", (NLL,)), ("simpo", (NLL, *FUSED)), ("orpo", ()), ("orpo", FUSED)),
    ],
    ids=[
        "rm",
        "dpo",
        "dpo with tokens",
        "dpo with tokens, joined",
        "simpo",
        "simpo with tokens",
        "simpo with tokens, joined",
        "orpo",
        "orpo, joined",
    ],
)
def test_a_step_learns_the_same_from_the_same_pairs_in_any_micro_batches(
    stage: str, keys: tuple[str, ...], tmp_path: Path, run_of: Any, rows_of: Any, trainer_of: Any
) -> None:
    """Seven pairs, four a step: the last step has three, of which the last micro-batch may be one."""
    found = []
    for size in (1, 2, 4):
        run = run_of(stage, *FULL, *keys, f"training.micro_batch={size}", "training.effective_batch=4", "training.max_steps=4", "optim.lr=0.001")
        trainer = trainer_of(run, tmp_path / str(size), rows_of(stage, 7))
        disturbed(trainer)
        trainer.train()
        found.append([(entry["loss"], entry["grad_norm"]) for entry in trainer.state.log_history if "loss" in entry])
    assert len(found[0]) == 4
    for others in found[1:]:
        assert others[0] == pytest.approx(found[0][0], rel=1e-6)  # before rounding has moved the weights
        for ours, theirs in zip(others, found[0], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)
