"""What the losses over whole logits take and free, line by line."""

import pytest

from conf.stages import Loss
from launcher.memory.allocator.scripts import FORWARD, FREED, GRADIENT, LOGITS, Script, Sizes, backward

# Four rows of 2 bytes a logit, of which the last token foretells nothing: 100 logits of 112.
SIZES = Sizes(product=224, whole=448, read=400, row=100, chunk=50)


def played(script: Script, held: dict[str, int]) -> int:
    """The most that was held at once; what stays is left in `held`."""
    most = sum(held.values())
    for name, size in script:
        assert (name in held) == (size == FREED), name
        if size == FREED:
            held.pop(name)
        else:
            held[name] = size
        most = max(most, sum(held.values()))
    return most


@pytest.mark.parametrize("loss", FORWARD, ids=lambda loss: loss.value)
def test_a_loss_leaves_its_logits_to_the_backward_pass_and_that_their_gradient_to_the_head(loss: Loss) -> None:
    held: dict[str, int] = {}
    played(FORWARD[loss](SIZES), held)
    assert set(held) - {"soft"} == {LOGITS}
    held.pop("soft", None)  # of a next-token loss, which chosen_backward frees
    played(backward(loss, SIZES, ()), held)
    assert held == {GRADIENT: 224}


def test_the_rows_their_stack_and_the_logits_are_the_most() -> None:
    held = {LOGITS: 448}
    assert played(backward(Loss.DPO, SIZES, ()), held) == 448 + 400 + 400
