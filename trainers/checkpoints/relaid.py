"""A run goes on from a checkpoint of another sharding, or under ZeRO of another number of ranks.

The libraries load only what they have written under the same layout. Of any other, every rank copies what it holds under its own.
"""

from pathlib import Path
from typing import Any

import torch
import transformers.trainer
from peft import PeftModel, get_peft_model_state_dict
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer
from transformers.trainer import SCHEDULER_NAME

from conf.committed import step_of
from conf.schema import Run, Zero
from conf.shardings import sharding_row
from trainers.checkpoints.held import fill, held_by_zero2, held_by_zero3, held_plainly
from trainers.checkpoints.pickles import admit
from trainers.checkpoints.saved import Layout, layout_of, mapped, read_saved


def layout_of_run(run: Run, world: int) -> Layout:
    engine = sharding_row(run.sharding.name).engine
    if not isinstance(run.sharding, Zero):
        return Layout(engine)
    return Layout(engine, run.sharding.stage, world, run.sharding.offload_optimizer)


class Names:
    """What learns, in the order of the optimizer's groups before an engine has made others of them; and, once it is asked for, its names in files."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.saved_as: dict[str, str] = {}

    def note(self, model: Any, optimizer: Optimizer) -> None:
        name_of = {id(parameter): name for name, parameter in model.named_parameters()}
        self.order = [name_of[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]

    def ask(self, model: Any) -> None:
        """PEFT leaves the name of the adapter out of the names in its files."""
        if isinstance(model, PeftModel):
            numbers = {name: torch.tensor(number) for number, name in enumerate(self.order)}
            renamed = get_peft_model_state_dict(model, numbers, save_embedding_layers=False)
            self.saved_as = {self.order[int(number)]: name for name, number in renamed.items()}


def load_any_layout(trainer: Trainer, run: Run, world: int) -> None:
    """Have `trainer` go on from a checkpoint of any layout, and take the best one of any at its end. To be called before it has an optimizer."""
    own, names = layout_of_run(run, world), Names()
    create, prepare, weights = trainer.create_optimizer, trainer._prepare_for_training, trainer._load_from_checkpoint
    states, best = trainer._load_optimizer_and_scheduler, trainer._load_best_model

    def foreign(checkpoint: str | None) -> bool:
        return checkpoint is not None and layout_of(Path(checkpoint)) != own

    def create_and_note(model: Any = None) -> Optimizer:
        made_before = trainer.optimizer is not None
        optimizer: Optimizer = create(model)
        if not made_before:
            names.note(trainer.model if model is None else model, optimizer)
        return optimizer

    def prepare_any(max_steps: int, loader: Any, checkpoint: str | None) -> Any:
        load = transformers.trainer.deepspeed_load_checkpoint  # DeepSpeed's, which would refuse what is not its own
        if foreign(checkpoint):
            transformers.trainer.deepspeed_load_checkpoint = lambda *_, **__: None
        try:
            return prepare(max_steps, loader, checkpoint)
        finally:
            transformers.trainer.deepspeed_load_checkpoint = load

    def load_weights(checkpoint: str, model: Any = None) -> None:
        if not foreign(checkpoint):
            weights(checkpoint, model)  # otherwise they come with the states, when the engine has been made

    def load_states(checkpoint: str | None) -> None:
        if checkpoint is None or not foreign(checkpoint):
            states(checkpoint)
            return
        load_across(trainer, Path(checkpoint), names)
        take_schedule(trainer.lr_scheduler, mapped(Path(checkpoint) / SCHEDULER_NAME))

    def load_best() -> None:
        checkpoint = str(trainer.state.best_model_checkpoint)
        admit(Path(checkpoint))
        if not foreign(checkpoint):
            best()
            return
        load_across(trainer, Path(checkpoint), names)

    trainer.create_optimizer, trainer._prepare_for_training, trainer._load_from_checkpoint = create_and_note, prepare_any, load_weights
    trainer._load_optimizer_and_scheduler, trainer._load_best_model = load_states, load_best


def load_across(trainer: Trainer, checkpoint: Path, names: Names) -> None:
    """Weights and states of `trainer` become those of the checkpoint. A collective act.

    Raises:
        ValueError: for a parameter that the checkpoint does not hold.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    names.ask(model)
    try:
        saved = read_saved(checkpoint, names.order, names.saved_as)
    except KeyError as error:
        raise ValueError(f"{checkpoint} holds no {error.args[0]}. Resume with the sharding under which it was saved.") from error
    if not trainer.is_deepspeed_enabled:
        fill(held_plainly(model), saved, innermost(trainer.optimizer))
        return
    engine = trainer.model_wrapped
    zero = engine.optimizer
    if engine.zero_optimization_partition_weights():
        zero.checkpoint_event_prologue()
        fill(held_by_zero3(engine), saved, zero.optimizer)
        own = zero.state_dict()
        zero.load_state_dict([own] * engine.dp_world_size)  # the weights that are computed with become those that were filled
        zero.checkpoint_event_epilogue()
    else:
        fill(held_by_zero2(engine), saved, zero.optimizer)
        zero.update_lp_params()
    engine.global_steps = step_of(checkpoint)


def take_schedule(scheduler: LambdaLR, saved: dict[str, Any]) -> None:
    """Where the schedule stands, and how often it was halved (trainers/callbacks/schedule.py).

    Not group by group: DeepSpeed leaves out a group without parameters, as the second of an adapter, which has no biases and norms.
    """
    share = saved["base_lrs"][0] / scheduler.base_lrs[0]
    scheduler.base_lrs = [base * share for base in scheduler.base_lrs]
    scheduler.last_epoch, scheduler._step_count = saved["last_epoch"], saved["_step_count"]


def innermost(optimizer: Any) -> Optimizer:
    """Without accelerate's wrapper."""
    found: Optimizer = getattr(optimizer, "optimizer", optimizer)
    return found
