"""Odds-ratio preference optimisation (arXiv:2403.07691) through TRL: chosen answers are learned and preferred by one loss, without a reference."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Trainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer
from trl.experimental.orpo.orpo_trainer import log1mexp

from conf.run_dir import RunDir
from conf.schema import Orpo, Run
from trainers.regimes import PreparedModel, with_adapter
from trainers.stages.shared.comparing import LOGGED, LearningTokens, pairs_in
from trainers.stages.shared.evaluation import Fraction, each, means_of, of_pairs
from trainers.stages.shared.material import Material
from trainers.stages.shared.pairs import Tokenised, pairs_collator
from trainers.stages.shared.preferences import AsPrepared, ready, settled, trl_arguments
from trainers.stages.shared.texts import TEXTS, means_of_pairs

MODEL_CLASS = AutoModelForCausalLM
LOGGED_ODDS = {**LOGGED, "log_odds_ratio": "log_odds_ratio"}


class OddsRatio(AsPrepared, LearningTokens, ORPOTrainer):
    logged = LOGGED_ODDS

    def concatenated_forward(self, model: nn.Module, batch: dict[str, Any]) -> Any:
        return means_of_pairs(model, batch, learns=True) if TEXTS in batch else super().concatenated_forward(model, batch)

    def measure(self, model: nn.Module, batch: dict[str, Any]) -> dict[str, Fraction]:
        chosen, rejected, _, _, nll = self.concatenated_forward(model, batch)[:5]
        losses, chosen_rewards, rejected_rewards, *_ = self.odds_ratio_loss(chosen, rejected)
        learned = torch.as_tensor(self.learned_in(batch), device=chosen.device)
        return {
            "odds_ratio_loss": each(-losses),
            "nll_loss": Fraction(nll.double() * learned, learned),
            **of_pairs(chosen_rewards, rejected_rewards),
            "logp_chosen": each(chosen),
            "logp_rejected": each(rejected),
            "log_odds": each((chosen - log1mexp(chosen)) - (rejected - log1mexp(rejected))),
        }

    def learned_in(self, batch: dict[str, Any]) -> Tensor | int:
        """Those of prompts too."""
        return sum(batch["counts"][: pairs_in(batch)]) if TEXTS in batch else batch["chosen_attention_mask"][:, 1:].sum()

    def means(self, parts: dict[str, Fraction]) -> tuple[Fraction, Fraction]:
        return parts["odds_ratio_loss"], parts["nll_loss"]

    def note(self, parts: dict[str, Fraction]) -> None:
        losses, counts = parts["odds_ratio_loss"]
        super().note({**parts, "log_odds_ratio": Fraction(-losses / self.beta, counts)})

    def conclude(self, parts: dict[str, Fraction]) -> dict[str, float]:
        """A mean over the tokens of chosen texts, and one over pairs."""
        means = means_of(parts)
        preference = means.pop("odds_ratio_loss")
        return {**means, "loss": means["nll_loss"] + preference}


def build_arguments(run: Run, run_dir: RunDir, has_evaluation: bool) -> ORPOConfig:
    assert isinstance(run.stage, Orpo)
    return ORPOConfig(**trl_arguments(run, run_dir, has_evaluation), beta=run.stage.beta)


def build_trainer(run: Run, arguments: ORPOConfig, prepared: PreparedModel, material: Material) -> Trainer:
    ready(prepared.model, run)
    trainer = OddsRatio(
        model=with_adapter(prepared, run),  # wrapping it itself, TRL would make embeddings, norms and head of a quantised base fp32
        args=arguments,
        train_dataset=Tokenised(material.train),
        eval_dataset=Tokenised(material.evaluation) if material.evaluation is not None else None,
        data_collator=pairs_collator(run, material.tokenizer, prompts=True),
        processing_class=material.tokenizer,
        callbacks=material.callbacks,
    )
    trainer.use_dpo_data_collator = True  # ours makes the same columns; False warns at each evaluated batch
    return settled(trainer, run)
