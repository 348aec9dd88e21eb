"""Simple preference optimisation (arXiv:2405.14734) by TRL's CPO trainer: an answer's mean log-probability is its reward; no reference."""

from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Trainer
from trl.experimental.cpo import CPOConfig, CPOTrainer

from conf.run_dir import RunDir
from conf.schema import Run, Simpo
from trainers.data.rows.tokens import MASKED
from trainers.regimes import PreparedModel, with_adapter
from trainers.stages.shared.evaluation import Evaluating, Fraction, each, means_of, of_pairs
from trainers.stages.shared.material import Material
from trainers.stages.shared.pairs import Tokenised, pairs_collator
from trainers.stages.shared.preferences import AsPrepared, settled, trl_arguments, with_float_logits

MODEL_CLASS = AutoModelForCausalLM


class MeanLikelihood(AsPrepared, Evaluating, CPOTrainer):
    def measure(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Fraction]:
        chosen, rejected, _, _, nll = self.concatenated_forward(model, batch)[:5]
        losses, chosen_rewards, rejected_rewards = self.cpo_loss(chosen, rejected)
        learned = (batch["chosen_labels"][:, 1:] != MASKED).sum()
        parts = {
            "loss": each(losses),
            **of_pairs(chosen_rewards, rejected_rewards),
            "logp_chosen": each(chosen),
            "logp_rejected": each(rejected),
        }
        return {**parts, "nll_loss": Fraction(nll.double() * learned, learned)} if self.cpo_alpha else parts

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
    with_float_logits(prepared.model)
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
