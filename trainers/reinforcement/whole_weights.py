"""ZeRO-3's weights, whole for as long as a model writes answers."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import Trainer
from transformers.integrations import is_deepspeed_zero3_enabled
from trl.models.utils import add_hooks, remove_hooks


@contextmanager
def whole_weights(trainer: Trainer) -> Iterator[None]:
    """Gathered once: the engine's hooks would gather every layer anew for every token of an answer, and free it again."""
    if not is_deepspeed_zero3_enabled():
        yield
        return
    import deepspeed

    engine = trainer.model_wrapped
    with deepspeed.zero.GatheredParameters(list(engine.parameters())):
        remove_hooks(engine)
        try:
            yield
        finally:
            add_hooks(engine)
