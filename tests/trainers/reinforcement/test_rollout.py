"""How the answers of a rollout are dealt out to forward passes, and kept by a checkpoint."""

from pathlib import Path

import torch

from trainers.reinforcement.rollout import Rollout, batch_of, load_rollout, save_rollout, tokens_of_mini_batches

# 4 answers of 3, 1, 2 and 3 tokens, read in 2 epochs of 2 mini batches
MASK = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
ORDER = torch.tensor([[0, 1, 2, 3], [3, 0, 2, 1]])


def rollout() -> Rollout:
    per_token = torch.arange(12.0).reshape(4, 3)
    ids = torch.arange(20).reshape(4, 5)
    tokens = tokens_of_mini_batches(MASK, ORDER, 2)
    return Rollout(ids, torch.ones_like(ids), MASK, per_token, per_token + 1, per_token + 2, per_token + 3, ORDER, tokens)


def test_tokens_are_counted_of_each_mini_batch_of_each_epoch() -> None:
    assert tokens_of_mini_batches(MASK, ORDER, 2).tolist() == [[4, 5], [6, 3]]
    assert tokens_of_mini_batches(MASK, ORDER, 1).tolist() == [[9], [9]]


def test_forward_passes_read_every_answer_once_an_epoch_in_its_order() -> None:
    firsts = [batch_of(rollout(), number, 1).input_ids[0, 0].item() // 5 for number in range(8)]
    assert firsts == [0, 1, 2, 3, 3, 0, 2, 1]


def test_a_pass_is_divided_by_the_tokens_of_its_whole_mini_batch() -> None:
    assert [batch_of(rollout(), number, 1).tokens.item() for number in range(8)] == [4, 4, 5, 5, 6, 6, 3, 3]
    assert [batch_of(rollout(), number, 2).tokens.item() for number in range(4)] == [4, 5, 6, 3]


def test_a_batch_holds_rows_that_belong_together() -> None:
    batch = batch_of(rollout(), 2, 2)  # the first mini batch of the second epoch
    assert batch.input_ids[:, 0].tolist() == [15, 0]
    assert batch.logprobs[:, 0].tolist() == [9.0, 0.0]
    assert batch.returns[:, 0].tolist() == [12.0, 3.0]
    assert batch.answers.tolist() == [[17, 18, 19], [2, 3, 4]]


def test_a_checkpoint_gives_back_the_same_rollout(tmp_path: Path) -> None:
    save_rollout(rollout(), tmp_path / "rollout.safetensors")
    back = load_rollout(tmp_path / "rollout.safetensors", torch.device("cpu"))
    for name, tensor in vars(rollout()).items():
        assert torch.equal(vars(back)[name], tensor), name
        assert vars(back)[name].dtype == tensor.dtype
