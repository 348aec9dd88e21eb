"""Means since the last log."""

import torch

from trainers.reinforcement.measures import Measures


def test_means_are_over_everything_noted_and_begin_anew_once_taken() -> None:
    measures = Measures()
    measures.note("reward", torch.tensor([1.0, 2.0]))
    measures.note("reward", torch.tensor([6.0]))
    measures.note("kl", torch.tensor([[1.0, 2.0, 50.0]]), torch.tensor([[1, 1, 0]]))
    assert measures.take() == {"reward": 3.0, "kl": 1.5}
    assert measures.take() == {}
