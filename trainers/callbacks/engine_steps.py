"""Makes DeepSpeed's engine and DDP's wrapper cost less time, as soon as the Trainer has made them."""

from collections.abc import Callable
from typing import Any

from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainers.kernels.engine_steps import go_on, goes_on


class EngineSteps(TrainerCallback):
    def __init__(self, trainer: Callable[[], Trainer]) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        trainer = self.trainer()
        wrapper, engine = trainer.model_wrapped, getattr(trainer.accelerator, "deepspeed_engine_wrapped", None)
        if engine is not None:
            engine.get_global_grad_norm = engine.engine.get_global_grad_norm  # accelerate's own reads its value
            if goes_on(engine.engine.optimizer):
                go_on(engine.engine.optimizer)
        elif isinstance(wrapper, DistributedDataParallel):
            # without it DDP divides the gradients one by one, each by a kernel of its own, before it reduces them; with it whole buckets
            wrapper.register_comm_hook(None, allreduce_hook)
