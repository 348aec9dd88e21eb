"""Every weight learns, held in the dtype of the precision."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from conf.schema import Run
from tests.described import composed
from trainers.model.prepared import PreparedModel
from trainers.regimes import prepare_model, with_adapter

# model=demo by hand: the embedding, which is the head too, is 264 x 128; a layer has q and o of 128 x 128, k and v of 64 x 128, three matrices of
# 352 x 128 and two norms of 128; after the layers comes one norm more
PARAMETERS = 264 * 128 + 2 * (2 * 128 * 128 + 2 * 64 * 128 + 3 * 352 * 128 + 2 * 128) + 128


def full(*overrides: str) -> Run:
    return composed("model=demo", "data=demo", "regime=full", "training.precision=fp32", *overrides)


def prepared(folder: Path, *overrides: str) -> PreparedModel:
    return prepare_model(full(*overrides), AutoModelForCausalLM, folder / "base")


def learning(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def test_every_parameter_learns_and_there_is_no_adapter(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    assert made.peft_config is None
    assert learning(made.model) == made.model.num_parameters() == PARAMETERS
    assert with_adapter(made, full()) is made.model


def test_every_parameter_gets_a_gradient(tmp_path: Path) -> None:
    model = prepared(tmp_path).model
    tokens = torch.tensor([[1, 2, 3, 4]])
    model(input_ids=tokens, labels=tokens).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()] == []


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16_amp", torch.float32), ("fp16_amp", torch.float32), ("bf16", torch.bfloat16)]
)
def test_weights_are_held_in_the_dtype_that_learns(precision: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = prepared(tmp_path, f"training.precision={precision}").model
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


def test_random_weights_follow_the_seed(tmp_path: Path) -> None:
    one, same, other = (prepared(tmp_path, f"training.seed={seed}").model.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_no_base_is_written_where_the_whole_model_is_the_result(tmp_path: Path) -> None:
    prepared(tmp_path)
    assert list(tmp_path.iterdir()) == []
