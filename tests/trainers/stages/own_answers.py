"""What the tests of both stages share that learn from their own answers."""

from collections.abc import Callable

from transformers import Trainer

from conf.schema import Run

RunOf = Callable[..., Run]
TrainerOf = Callable[..., Trainer]
Logged = Callable[[Trainer, str], list[float]]
REGIMES = {
    "full": ("regime=full",),
    "full in bf16_amp": ("regime=full", "training.precision=bf16_amp", "training.gradient_checkpointing=true"),
    "freeze": ("regime=freeze", "regime.layers=1"),
    "lora": ("regime=lora", "regime.rank=4"),
    "qlora8": ("regime=qlora", "regime.bits=8", "regime.rank=4"),
    "qlora4": ("regime=qlora", "regime.bits=4", "regime.rank=4"),
    "qlora2": ("regime=qlora", "regime.bits=2", "regime.rank=4", "training.gradient_checkpointing=true"),
}
