import pytest

from conf.metrics import HIGHER_IS_BETTER
from conf.schema import Run
from conf.stages import STAGES
from launcher.composition.compose import compose
from launcher.errors import ConfigError
from launcher.rules.evaluation import refuse_other_evaluation


def composed(*overrides: str) -> Run:
    return compose(["model=demo", "data=demo", *overrides])


def test_patience_needs_evaluations_and_data_for_them() -> None:
    refuse_other_evaluation(composed("evaluation.patience=2"))
    with pytest.raises(ConfigError, match=r"evaluation\.patience=2 counts evaluations, and evaluation\.interval=0 makes none"):
        refuse_other_evaluation(composed("evaluation.patience=2", "evaluation.interval=0"))
    with pytest.raises(ConfigError, match=r"evaluation\.patience=2 needs evaluation data\. Set data\.validation_share"):
        refuse_other_evaluation(composed("evaluation.patience=2", "data.validation_share=0"))


def test_a_metric_belongs_to_its_stage() -> None:
    refuse_other_evaluation(composed("stage=dpo", "evaluation.metric=eval_rewards/accuracies"))
    with pytest.raises(ConfigError, match=r"eval_rewards/accuracies is not measured by stage=sft\. Choose one of eval_loss\."):
        refuse_other_evaluation(composed("evaluation.metric=eval_rewards/accuracies"))


def test_every_metric_has_a_direction() -> None:
    assert {metric for row in STAGES.values() for metric in row.metrics} | {"eval_loss"} == set(HIGHER_IS_BETTER)
