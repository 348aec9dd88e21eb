"""A number as training.gradient_checkpointing: which layers are computed again, and that nothing else changes."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from tests.described import composed
from trainers.regimes import prepare_model, with_adapter
from trainers.regimes.layers import decoder_layers, recompute_lowest

TOKENS = torch.arange(3, 35).reshape(2, 16)
SHAPE = ("model.architecture.hidden_size=64", "model.architecture.intermediate_size=128", "model.architecture.num_hidden_layers=4")


def learned(layers: str, folder: Path, *overrides: str) -> tuple[list[int], float, dict[str, torch.Tensor]]:
    """How often each layer computed in a step, the loss, and the gradients."""
    run = composed("model=demo", "data=demo", *SHAPE, "training.precision=fp32", f"training.gradient_checkpointing={layers}", *overrides)
    prepared = prepare_model(run, AutoModelForCausalLM, folder / "base")
    calls: Counter[int] = Counter()
    stack = decoder_layers(prepared.model)[1]
    for number, layer in enumerate(stack):
        layer.mlp.register_forward_pre_hook(lambda *_, number=number: calls.update([number]))
    model = with_adapter(prepared, run)
    if layers != "false":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    loss = model(input_ids=TOKENS, labels=TOKENS).loss
    loss.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return [calls[number] for number in range(len(stack))], loss.item(), found


@pytest.mark.parametrize(
    ("regime", "again"),
    [(("regime=full",), [2, 2, 2, 1]), (("regime=lora",), [2, 2, 2, 1]), (("regime=freeze", "regime.layers=-2"), [2, 2, 2, 1])],
)
def test_the_lowest_layers_alone_compute_twice_and_nothing_else_changes(regime: tuple[str, ...], again: list[int], tmp_path: Path) -> None:
    plain, loss, kept = learned("false", tmp_path, *regime)
    calls, same, gradients = learned("3", tmp_path, *regime)

    assert plain == [1, 1, 1, 1]
    assert calls == again
    assert same == pytest.approx(loss, rel=1e-6)
    assert gradients.keys() == kept.keys() != set()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, kept[name], rtol=1e-6, atol=1e-6)


def test_below_the_lowest_layer_that_learns_none_is_counted(tmp_path: Path) -> None:
    calls, _, _ = learned("1", tmp_path, "regime=freeze", "regime.layers=2")

    assert calls == [1, 1, 2, 1]


def test_switched_off_for_answers_no_layer_is_computed_again(tmp_path: Path) -> None:
    run = composed("model=demo", "data=demo", *SHAPE, "training.gradient_checkpointing=2")
    model = prepare_model(run, AutoModelForCausalLM, tmp_path / "base").model
    layers = decoder_layers(model)[1]
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert [layer.gradient_checkpointing for layer in layers] == [True, True, False, False]

    model.gradient_checkpointing_disable()
    assert [layer.gradient_checkpointing for layer in layers] == [False] * 4


class Whole(PreTrainedModel):
    """Layers that transformers cannot checkpoint one by one."""

    config_class = PreTrainedConfig

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))


def test_a_model_that_does_not_checkpoint_layer_by_layer_is_refused() -> None:
    run = composed("model=demo", "data=demo", *SHAPE, "training.gradient_checkpointing=2")

    with pytest.raises(ValueError, match=r"^training\.gradient_checkpointing=2: Whole cannot compute a part .* Set it to true or false\.$"):
        recompute_lowest(Whole(PreTrainedConfig()), run)
