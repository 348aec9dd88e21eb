"""Reward modelling: one score a text, higher for the chosen of two answers (Bradley-Terry, as in arXiv:2203.02155), through TRL."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from peft import TaskType
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel, Trainer
from trl import RewardConfig, RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference

from conf.constants import SCORE_HEAD
from conf.regimes import regime_row
from conf.run_dir import RunDir
from conf.schema import Run
from trainers.kernels.parts import fused
from trainers.model.build import trained_dtype
from trainers.regimes import PreparedModel, with_adapter
from trainers.regimes.freeze import train_too
from trainers.stages.shared.comparing import Comparing
from trainers.stages.shared.evaluation import Fraction, each, of_pairs
from trainers.stages.shared.material import Material
from trainers.stages.shared.pairs import sides
from trainers.stages.shared.preferences import AsPrepared, pad_multiple, ready, settled, trl_arguments
from trainers.stages.shared.texts import TEXTS, joined_ends


class RewardModel:
    """The body of a language model under a new head of one row, drawn from the seed where the files have none."""

    @staticmethod
    def from_pretrained(path: str, *, config: PreTrainedConfig, **keywords: object) -> PreTrainedModel:
        config.num_labels = 1
        return AutoModelForSequenceClassification.from_pretrained(path, config=config, **keywords)

    @staticmethod
    def from_config(config: PreTrainedConfig, **keywords: object) -> PreTrainedModel:
        config.num_labels = 1
        return AutoModelForSequenceClassification.from_config(config, **keywords)


MODEL_CLASS = RewardModel
LOGGED = {"reward": "mean_reward", "reward_margin": "margin", "reward_accuracy": "accuracy"}  # TRL's names in this stage


class WholeTexts(DataCollatorForPreference):
    """TRL scores whole texts, and our rows hold a prompt and two completions."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        texts = [{side: row["prompt_ids"] + row[side] for side in ("chosen_ids", "rejected_ids")} for row in examples]
        batch: dict[str, Tensor] = super().torch_call(texts)
        return batch


def whole_texts(run: Run, padding: int) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    if fused(run):
        return lambda rows: joined_ends(run, [*sides(rows, "chosen"), *sides(rows, "rejected")])
    return WholeTexts(pad_token_id=padding, pad_to_multiple_of=pad_multiple(run))


class Rm(AsPrepared, Comparing, RewardTrainer):
    logged = LOGGED

    def measure(self, model: nn.Module, batch: dict[str, Any]) -> dict[str, Fraction]:
        scores = model(**batch.get(TEXTS, {**batch, "use_cache": False})).logits.squeeze(-1)
        chosen, rejected = scores.chunk(2)
        told = of_pairs(chosen, rejected)
        return {
            "loss": each(-functional.logsigmoid(chosen - rejected)),
            "reward": each(scores),
            **{name: told[name] for name in ("reward_margin", "reward_accuracy")},
        }


def build_arguments(run: Run, run_dir: RunDir, has_evaluation: bool) -> RewardConfig:
    return RewardConfig(**trl_arguments(run, run_dir, has_evaluation))


def build_trainer(run: Run, arguments: RewardConfig, prepared: PreparedModel, material: Material) -> Trainer:
    ready(prepared.model, run, head=SCORE_HEAD)
    trainer = Rm(
        model=with_adapter(with_head(run, prepared), run),
        args=arguments,
        data_collator=whole_texts(run, material.tokenizer.pad_token_id),
        **material.keywords,
    )
    return settled(trainer, run)


def with_head(run: Run, prepared: PreparedModel) -> PreparedModel:
    """The head is new: it learns in every regime, and is saved with an adapter."""
    if prepared.peft_config is not None:
        return replace(prepared, peft_config=replace(prepared.peft_config, task_type=TaskType.SEQ_CLS, modules_to_save=[SCORE_HEAD]))
    if regime_row(run.regime.name).learns == "some weights":
        train_too(prepared.model, [SCORE_HEAD], trained_dtype(run))
    return prepared
