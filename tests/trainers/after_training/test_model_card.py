from dataclasses import replace

import pytest

from tests.described import composed
from trainers.after_training.model_card import losses

HISTORY = [
    {"step": 0, "eval_loss": 3.0},
    {"step": 10, "loss": 2.5},
    {"step": 10, "eval_loss": 1.5},
    {"step": 20, "loss": 1.25},
    {"step": 20, "eval_loss": 1.75},
]


@pytest.mark.parametrize(
    ("best", "step", "told"),
    [
        (False, None, "3.0000 at the start, 1.7500 at the end"),
        (True, None, "3.0000 at the start, 1.5000 at step 10, which was kept"),
        (True, 20, "3.0000 at the start, 1.7500 at the end"),  # the card of that checkpoint
    ],
)
def test_a_card_has_the_evaluation_of_the_weights_that_it_is_of(best: bool, step: int | None, told: str) -> None:
    evaluation = replace(composed("model=demo", "data=demo").evaluation, best_at_end=best)
    assert losses(HISTORY, evaluation, step) == {"training loss": "2.5000 at the start, 1.2500 at the end", "evaluation loss": told}
