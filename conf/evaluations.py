"""When a run is evaluated, and which of its evaluations is that of the final model."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from conf.data_sets import evaluates
from conf.metrics import HIGHER_IS_BETTER
from conf.schema import Composed, Evaluation


def with_ends(evaluation: Evaluation) -> Evaluation:
    """With nothing left open: without a key of their own, the first and the last evaluation follow the interval."""
    between = evaluation.interval > 0
    start, end = (between if given is None else given for given in (evaluation.at_start, evaluation.at_end))
    return replace(evaluation, at_start=start, at_end=end)


def is_evaluated(run: Composed) -> bool:
    """Whether any evaluation is made."""
    evaluation = with_ends(run.evaluation)
    return evaluates(run.data) and bool(evaluation.interval or evaluation.at_start or evaluation.at_end)


def of_final_model(evaluations: Sequence[dict[str, Any]], evaluation: Evaluation) -> dict[str, Any] | None:
    """Of the entries of progress.jsonl that evaluations left, the one that measured the final model; None: nothing did.

    best_at_end keeps the first of the best ones after a step, as transformers does (trainer.py 5.23, _determine_best_metric).
    """
    if not evaluation.best_at_end:
        return evaluations[-1] if evaluations else None
    measured = [entry for entry in evaluations if entry["step"] > 0 and evaluation.metric in entry]
    sign = -1 if HIGHER_IS_BETTER[evaluation.metric] else 1
    return min(measured, key=lambda entry: sign * entry[evaluation.metric], default=None)
