import pytest

from conf.evaluations import is_evaluated, with_ends
from conf.metrics import FORMER_NAMES, HIGHER_IS_BETTER
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
    refuse_other_evaluation(composed("stage=dpo", "evaluation.metric=eval_reward_accuracy"))
    for metric in ("eval_reward_accuracy", "loss", ""):
        with pytest.raises(ConfigError, match=rf"evaluation\.metric={metric} is not measured by stage=sft\. Choose one of eval_loss\."):
            refuse_other_evaluation(composed(f"evaluation.metric={metric}"))


@pytest.mark.parametrize(("former", "name"), FORMER_NAMES.items())
def test_a_former_name_of_a_metric_is_answered_with_the_new_one(former: str, name: str) -> None:
    assert name in HIGHER_IS_BETTER
    with pytest.raises(ConfigError) as refused:
        refuse_other_evaluation(composed("stage=rm", f"evaluation.metric={former}"))
    assert str(refused.value) == f"evaluation.metric={former} is an old name. Set evaluation.metric={name}."


@pytest.mark.parametrize(
    ("keys", "start", "end"),
    [
        ("evaluation.interval=100", True, True),
        ("evaluation.interval=0", False, False),
        ("evaluation.interval=0 evaluation.at_end=true", False, True),
        ("evaluation.interval=0 evaluation.at_start=true", True, False),
        ("evaluation.interval=5 evaluation.at_start=false evaluation.at_end=false", False, False),
    ],
)
def test_the_first_and_the_last_evaluation_follow_the_interval_or_a_key_of_their_own(keys: str, start: bool, end: bool) -> None:
    run = composed(*keys.split())
    ends = with_ends(run.evaluation)
    assert (ends.at_start, ends.at_end) == (start, end)
    assert is_evaluated(run) == (start or end or "interval=5" in keys)
    assert not is_evaluated(composed(*keys.split(), "data.validation_share=0"))


def test_every_metric_has_a_direction() -> None:
    assert {metric for row in STAGES.values() for metric in row.metrics} | {"eval_loss"} == set(HIGHER_IS_BETTER)
