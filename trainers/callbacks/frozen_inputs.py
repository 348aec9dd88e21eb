"""With frozen lower layers, keeps the backward pass out of them."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class FrozenInputs(TrainerCallback):
    """transformers makes the embeddings' output require gradients whenever it checkpoints, as its reentrant kind needs.

    Ours is not reentrant; without this, every frozen layer is run backward and its input kept: 0.22 GiB for Llama-3.2-1B at 4 x 1024 tokens.
    """

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any) -> None:
        model.disable_input_require_grads()
