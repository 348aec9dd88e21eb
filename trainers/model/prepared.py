"""What every regime returns."""

from dataclasses import dataclass

from peft import LoraConfig
from transformers import PreTrainedModel


@dataclass(frozen=True)
class PreparedModel:
    model: PreTrainedModel  # plain: trainers that know PEFT wrap it themselves
    peft_config: LoraConfig | None  # None: the parameters of `model` that require gradients learn
