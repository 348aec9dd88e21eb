"""Keys of the evaluation that need others: the best checkpoint needs one at each evaluation, patience needs evaluations, a metric its stage."""

from conf.data_sets import evaluates
from conf.metrics import FORMER_NAMES, metrics_of
from conf.schema import Composed
from launcher.errors import ConfigError


def refuse_other_evaluation(run: Composed) -> None:
    """Refuse keys of the evaluation that contradict each other or the data.

    Raises:
        ConfigError: naming the keys and what to set.
    """
    evaluation, known = run.evaluation, metrics_of(run.stage.name)
    if evaluation.best_at_end and not (0 < evaluation.interval == run.checkpoint.interval):
        raise ConfigError(
            f"evaluation.best_at_end=true compares checkpoints by their evaluation. evaluation.interval ({evaluation.interval}) and "
            f"checkpoint.interval ({run.checkpoint.interval}) must be equal and above 0."
        )
    if evaluation.patience is not None and evaluation.interval == 0:
        raise ConfigError(
            f"evaluation.patience={evaluation.patience} counts evaluations, and evaluation.interval=0 makes none. Set evaluation.interval."
        )
    if (evaluation.best_at_end or evaluation.patience is not None) and not evaluates(run.data):
        key = "best_at_end=true" if evaluation.best_at_end else f"patience={evaluation.patience}"
        raise ConfigError(f"evaluation.{key} needs evaluation data. Set data.validation_share above 0, or name data.evaluation_sets.")
    if evaluation.metric in FORMER_NAMES:
        raise ConfigError(f"evaluation.metric={evaluation.metric} is an old name. Set evaluation.metric={FORMER_NAMES[evaluation.metric]}.")
    if evaluation.metric not in known:
        raise ConfigError(f"evaluation.metric={evaluation.metric} is not measured by stage={run.stage.name}. Choose one of {', '.join(known)}.")
