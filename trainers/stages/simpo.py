"""Simple preference optimisation (arXiv:2405.14734) by TRL's CPO trainer: an answer's mean log-probability is its reward; no reference."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Trainer
from trl.experimental.cpo import CPOConfig, CPOTrainer

from conf.run_dir import RunDir
from conf.schema import Run, Simpo
from trainers.data.rows.tokens import MASKED
from trainers.regimes import PreparedModel, with_adapter
from trainers.stages.shared.comparing import LearningTokens, pairs_in
from trainers.stages.shared.evaluation import Fraction, each, means_of, of_pairs
from trainers.stages.shared.material import Material
from trainers.stages.shared.pairs import Tokenised, pairs_collator
from trainers.stages.shared.preferences import AsPrepared, ready, settled, trl_arguments
from trainers.stages.shared.texts import TEXTS, means_of_pairs

MODEL_CLASS = AutoModelForCausalLM


class MeanLikelihood(AsPrepared, LearningTokens, CPOTrainer):
    def concatenated_forward(self, model: nn.Module, batch: dict[str, Any]) -> Any:
        return means_of_pairs(model, batch, learns=self.cpo_alpha > 0) if TEXTS in batch else super().concatenated_forward(model, batch)

    def measure(self, model: nn.Module, batch: dict[str, Any]) -> dict[str, Fraction]:
        chosen, rejected, _, _, nll = self.concatenated_forward(model, batch)[:5]
        losses, chosen_rewards, rejected_rewards = self.cpo_loss(chosen, rejected)
        learned = torch.as_tensor(self.learned_in(batch), device=chosen.device)
        parts = {
            "loss": each(losses),
            **of_pairs(chosen_rewards, rejected_rewards),
            "logp_chosen": each(chosen),
            "logp_rejected": each(rejected),
        }
        return {**parts, "nll_loss": Fraction(nll.double() * learned, learned)} if self.cpo_alpha else parts

    def learned_in(self, batch: dict[str, Any]) -> Tensor | int:
        """Those of answers alone."""
        return sum(batch["counts"][: pairs_in(batch)]) if TEXTS in batch else (batch["chosen_labels"][:, 1:] != MASKED).sum()

    def means(self, parts: dict[str, Fraction]) -> tuple[Fraction, Fraction]:
        pairs = parts["loss"]
        totals, counts = parts.get("nll_loss", Fraction(torch.zeros_like(pairs.totals), pairs.counts))
        return pairs, Fraction(self.cpo_alpha * totals, counts)

    def conclude(self, parts: dict[str, Fraction]) -> dict[str, float]:
        """As in stages/dpo.py."""
        means = means_of(parts)
        return {**means, "loss": means["loss"] + self.cpo_alpha * means.get("nll_loss", 0.0)}


def build_arguments(run: Run, run_dir: RunDir, has_evaluation: bool) -> CPOConfig:
    assert isinstance(run.stage, Simpo)
    return CPOConfig(
        **trl_arguments(run, run_dir, has_evaluation),
        loss_type="simpo",
        beta=run.stage.beta,
        simpo_gamma=run.stage.margin,
        cpo_alpha=run.stage.sft_weight,
    )


def build_trainer(run: Run, arguments: CPOConfig, prepared: PreparedModel, material: Material) -> Trainer:
    ready(prepared.model, run)
    trainer = MeanLikelihood(
        model=with_adapter(prepared, run),  # as in stages/orpo.py
        args=arguments,
        train_dataset=Tokenised(material.train),
        eval_dataset=Tokenised(material.evaluation) if material.evaluation is not None else None,
        data_collator=pairs_collator(run, material.tokenizer),
        processing_class=material.tokenizer,
        callbacks=material.callbacks,
    )
    return settled(trainer, run)
