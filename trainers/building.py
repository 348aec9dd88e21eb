"""The trainer of a run: its weights, its optimizer, and what happens at each step."""

from collections.abc import Callable, Sequence
from types import ModuleType

import torch
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments

from conf import journal
from conf.journal import roll_backs
from conf.regimes import regime_row
from conf.run_dir import RunDir
from conf.schema import Badam, Ddp, Fsdp, Run
from trainers.arguments import choose_buckets
from trainers.callbacks.committing import Committing
from trainers.callbacks.doing import Doing
from trainers.callbacks.early_stopping import EarlyStopping
from trainers.callbacks.engine_steps import EngineSteps
from trainers.callbacks.finite import Finite
from trainers.callbacks.frozen_inputs import FrozenInputs
from trainers.callbacks.generating import Generating, questions_to_ask
from trainers.callbacks.integrations import trackers_of
from trainers.callbacks.last_evaluation import LastEvaluation
from trainers.callbacks.layout import Layout
from trainers.callbacks.living import Living
from trainers.callbacks.progress import Progress
from trainers.callbacks.rows import Rows
from trainers.callbacks.schedule import Schedule
from trainers.callbacks.skipping import Skipping
from trainers.callbacks.workspaces import Workspaces
from trainers.checkpoints.background import Background
from trainers.checkpoints.room import checkpoint_bytes
from trainers.checkpoints.shards import save_in_shards
from trainers.checkpoints.streamed import write_file_by_file
from trainers.data import PreparedData, build_collator
from trainers.data.rows.numbers import numbered
from trainers.model.conversation import end_answers
from trainers.model.shares import read_shares
from trainers.model.vocabulary import grown
from trainers.optimizers.build import choose_optimizer
from trainers.ranks.notes import tell
from trainers.ranks.place import Place
from trainers.regimes import prepare_model, save_adapter_alone
from trainers.regimes.continued import load_adapter
from trainers.regimes.pissa import keep_initial_adapter, starts_from_base
from trainers.stages.shared.material import Material


def build(
    stage: ModuleType,
    run: Run,
    run_dir: RunDir,
    place: Place,
    arguments: TrainingArguments,
    tokenizer: PreTrainedTokenizerBase,
    data: PreparedData,
    watching: Sequence[TrainerCallback],
) -> Trainer:
    """The trainer of a run, as it begins: weights are loaded, and nothing has learned yet. `watching` are callbacks that come before all others."""
    prepared = grown(prepare_model(run, stage.MODEL_CLASS, run_dir.base), run, tokenizer)
    contradictions = end_answers(prepared.model, tokenizer)
    if place.leads:
        tell(run_dir, contradictions)
    if run.node.gpus:
        torch.cuda.empty_cache()  # weights that were quantised passed through the GPU; nothing else returns that cache
    background = Background(pinned=run.node.gpus > 0) if run.checkpoint.background else None
    callbacks = [
        *watching,
        *callbacks_of_steps(run, run_dir, place, background, lambda: checkpoint_bytes(trainer, run, run_dir)),
        *callbacks_of_evaluation(run, run_dir, place, tokenizer, data),
        Living(),  # it sees what the others have decided
    ]
    material = Material(tokenizer, numbered(data.train), data.evaluation, build_collator(run, tokenizer), callbacks)
    trainer: Trainer = stage.build_trainer(run, arguments, prepared, material)
    trainer.keeps_rows = True
    trainer.background = background
    read_shares(trainer)
    if not isinstance(run.sharding, Ddp):
        write_file_by_file(trainer)
    if isinstance(run.sharding, Fsdp):
        save_in_shards()
    for callback in callbacks:
        if isinstance(callback, Finite | Rows | Skipping):
            callback.trainer = trainer
    choose_optimizer(trainer, run)
    choose_buckets(trainer, run)
    load_adapter(trainer, run)
    save_adapter_alone(trainer.model)
    if starts_from_base(run):
        keep_initial_adapter(trainer, run_dir.initial_adapter)
    trainer.add_callback(EngineSteps(lambda: trainer))
    trainer.add_callback(Layout(lambda: trainer, run_dir, place))
    return trainer


def callbacks_of_steps(
    run: Run, run_dir: RunDir, place: Place, background: Background | None, bytes_to_save: Callable[[], int]
) -> list[TrainerCallback]:
    """What happens at each step of training. The order counts: each sees what those before it have done."""
    finite, rows = Finite(scaled=run.training.precision == "fp16_amp"), Rows(run_dir, place)

    def before_commit(step: int) -> None:
        finite.refuse(step)
        rows.keep()

    return [
        Workspaces(both_threads=run.training.kernels != "fused"),  # after Phases, which ends the loading
        Doing(run_dir, place),
        *([Skipping(run_dir, place)] if run.training.on_nan == "skip" else []),
        finite,
        rows,
        Schedule(lambda step: roll_backs(journal.events(run_dir), step)),
        Committing(run_dir, run.checkpoint.keep, place.world, before_commit, bytes_to_save, background),
        Progress(run_dir, place.leads, finite.history),  # after it, since the time of a commit is no time of a step
        *([FrozenInputs()] if regime_row(run.regime.name).learns == "some weights" or isinstance(run.optim, Badam) else []),
    ]


def callbacks_of_evaluation(run: Run, run_dir: RunDir, place: Place, tokenizer: PreTrainedTokenizerBase, data: PreparedData) -> list[TrainerCallback]:
    """What happens where the run is evaluated, and where its metrics go."""
    callbacks: list[TrainerCallback] = []
    if data.evaluation is not None:
        callbacks.append(LastEvaluation(run.evaluation))
    if run.evaluation.patience is not None:
        callbacks.append(EarlyStopping(run.evaluation.metric, run.evaluation.patience))
    if place.leads:
        callbacks.extend(trackers_of(run, run_dir))
    questions, why_none = questions_to_ask(run, data.evaluation or [], tokenizer)
    if place.leads and why_none is not None:
        tell(run_dir, [why_none])
    if run.evaluation.generate is not None or questions:
        callbacks.append(Generating(run_dir, run.evaluation.generate, questions, run.evaluation.micro_batch, tokenizer, place.leads))
    return callbacks
