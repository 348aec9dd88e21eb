"""Simple preference optimisation (arXiv:2405.14734) by TRL's CPO trainer: an answer's mean log-probability is its reward; no reference."""

from transformers import AutoModelForCausalLM, Trainer
from trl.experimental.cpo import CPOConfig, CPOTrainer

from conf.run_dir import RunDir
from conf.schema import Run, Simpo
from trainers.regimes import PreparedModel, with_adapter
from trainers.stages.shared.material import Material
from trainers.stages.shared.pairs import Tokenised, pairs_collator
from trainers.stages.shared.preferences import AsPrepared, settled, trl_arguments, with_float_logits

MODEL_CLASS = AutoModelForCausalLM


class MeanLikelihood(AsPrepared, CPOTrainer):
    pass


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
