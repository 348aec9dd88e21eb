"""In which bytes an element is kept: one table over the engines that train and the precisions."""

from dataclasses import dataclass

from conf.regimes import regime_row
from conf.schema import Run
from conf.shardings import Engine, sharding_row


@dataclass(frozen=True)
class Storage:
    """Bytes per trained element; AdamW holds two states."""

    weight: int
    gradient: int
    master: int  # DeepSpeed's own copy of the weights, which the optimizer updates
    state: int
    compute: int  # of an element in a matrix product
    autocast: bool  # fp32 weights are cast to 16 bits where they are used, and the casts are kept until the forward pass ends

    @property
    def per_parameter(self) -> int:
        """Weights, gradients and AdamW's states together, before anything is split over ranks."""
        return self.weight + self.gradient + self.master + 2 * self.state

    @property
    def frozen(self) -> int:
        """Bytes of a weight that does not learn."""
        return self.compute


# What regime=full means: (engine, precision) -> bytes per parameter. Adapters and the unfrozen layers of regime=freeze are kept alike.
# Masters of 16 bits: DeepSpeed's bf16_master_weights_and_grads with bf16_optimizer_states; it clones the weights for every dtype
# (runtime/zero/stage_1_and_2.py, single_partition_of_fp32_groups).
FULL_MEANING: dict[tuple[Engine, str], Storage] = {
    ("torch", "bf16_amp"): Storage(4, 4, 0, 4, compute=2, autocast=True),
    ("torch", "fp16_amp"): Storage(4, 4, 0, 4, compute=2, autocast=True),
    ("torch", "bf16"): Storage(2, 2, 0, 2, compute=2, autocast=False),
    ("torch", "fp32"): Storage(4, 4, 0, 4, compute=4, autocast=False),
    ("deepspeed", "bf16_amp"): Storage(2, 2, 4, 4, compute=2, autocast=False),
    ("deepspeed", "fp16_amp"): Storage(2, 2, 4, 4, compute=2, autocast=False),
    ("deepspeed", "bf16"): Storage(2, 2, 2, 2, compute=2, autocast=False),
    ("deepspeed", "fp32"): Storage(4, 4, 4, 4, compute=4, autocast=False),
    ("fsdp2", "bf16_amp"): Storage(4, 4, 0, 4, compute=2, autocast=False),
    ("fsdp2", "fp16_amp"): Storage(4, 4, 0, 4, compute=2, autocast=False),
    ("fsdp2", "bf16"): Storage(2, 2, 0, 2, compute=2, autocast=False),
    ("fsdp2", "fp32"): Storage(4, 4, 0, 4, compute=4, autocast=False),
}


def storage_of(run: Run) -> Storage:
    return FULL_MEANING[sharding_row(run.sharding.name).engine, run.training.precision]


def loaded_element(run: Run) -> int:
    """Bytes of a weight as it is loaded: what learns is loaded in fp32 unless all is to be 16 bits; DeepSpeed's engine casts it afterwards."""
    amp = run.training.precision in ("bf16_amp", "fp16_amp")
    return 4 if run.training.precision == "fp32" or (amp and regime_row(run.regime.name).learns == "every weight") else 2
