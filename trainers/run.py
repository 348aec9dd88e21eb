"""The order of a run inside a rank: arguments, data, model, trainer, training, what is left behind."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase, Trainer

from conf.exit_codes import DONE, SAVED
from conf.relaying import bound_to_layout
from conf.run_dir import RunDir
from conf.schema import Run, Zero
from conf.signs import DATA, LOADING, SAVING
from trainers.arguments import keep_output_dtype
from trainers.building import build
from trainers.callbacks.committing import best_of
from trainers.callbacks.stopping import Stopping, owes_evaluation, save_step
from trainers.checkpoints.commit import clear_leftovers, commit_model
from trainers.checkpoints.keeping import choose, prune
from trainers.checkpoints.length import end_at_last_step
from trainers.checkpoints.pickles import admit, load_only_weights
from trainers.checkpoints.relaid import load_any_layout
from trainers.checkpoints.room import refuse_full_disk, weight_bytes
from trainers.data import PreparedData, load_prepared
from trainers.data.inspect.agreement import disagreements, special_tokens
from trainers.data.prepare.folder import prepare, remove_prepared
from trainers.data.prepare.streaming import streamed_rows
from trainers.errors import NOTHING_TO_SAVE, DataError
from trainers.measures.comparison import write_memory
from trainers.measures.exhausted import LastBatch, telling_out_of_memory
from trainers.measures.host import HostPeaks
from trainers.measures.layout import write_peak
from trainers.measures.phases import ELSEWHERE, Peaks, Phases, cuda_meter
from trainers.measures.plots import draw_loss, draw_memory
from trainers.model.conversation import save_ends
from trainers.model.tokenizer import load_tokenizer
from trainers.ranks.agreement import broadcast, on_rank_zero
from trainers.ranks.determinism import choose_kernels
from trainers.ranks.doing import say_doing
from trainers.ranks.extensions import guard_deepspeed
from trainers.ranks.free_memory import ask_torch
from trainers.ranks.libraries import import_uncompiled
from trainers.ranks.life import LIFE
from trainers.ranks.notes import tell
from trainers.ranks.packages import look_once_for_packages
from trainers.ranks.place import Place
from trainers.regimes.pissa import save_as_plain_adapter
from trainers.stages import stage_module

WAIT_SECONDS = 0.2


def train(run: Run, run_dir: RunDir, place: Place) -> tuple[int, str]:
    """Train one run to its end or to a requested stop; (exit code, message)."""
    load_only_weights()
    look_once_for_packages()
    stopping = Stopping(run_dir)
    peaks, host = Peaks(cuda_meter) if run.node.gpus else None, HostPeaks()
    host.watch()
    set_device(run, place)
    choose_kernels(run)
    if place.attempt:
        join_again(run, place)
    say_doing(run_dir, place, "reading data")
    LIFE.enter(DATA)
    tokenizer = load_tokenizer(run)
    data = shared_data(run, tokenizer, run_dir, place)
    say_doing(run_dir, place, "joining the ranks")
    LIFE.enter(LOADING)
    if isinstance(run.sharding, Zero):
        guard_deepspeed(run_dir, place)
    stage = stage_module(run)
    arguments = stage.build_arguments(run, run_dir, data.evaluation is not None)
    keep_output_dtype(arguments, run)
    join_ranks(run, place)
    checkpoint = checkpoint_to_resume(run_dir)
    wanted = bool(run.evaluation.at_start) if checkpoint is None else owes_evaluation(checkpoint)
    arguments.eval_on_start = data.evaluation is not None and wanted
    watching = [*([Phases(peaks)] if peaks else []), stopping]  # before those that generate: their memory does not belong to a phase of a step
    say_doing(run_dir, place, "loading weights")
    trainer = build(stage, run, run_dir, place, arguments, tokenizer, data, watching)
    host.end("load")
    if not bound_to_layout(run):
        load_any_layout(trainer, run, place.world)
    if checkpoint is not None:
        end_at_last_step(trainer, checkpoint)
        trainer.begins_at = checkpoint
    say_doing(run_dir, place, "preparing the training")
    with telling_out_of_memory(LastBatch(trainer), run, run_dir, tokenizer), finishing(trainer):
        resumed = str(checkpoint) if checkpoint else None
        stopping.until_asked(lambda: trainer.train(resume_from_checkpoint=resumed), lambda: save_step(trainer), trainer)
    host.end("training")
    if stopping.stopped:
        write_peak(run_dir, place, peaks, host)
        step = trainer.state.global_step
        return SAVED, f"stopped at step {step}, saved" if step else NOTHING_TO_SAVE
    say_doing(run_dir, place, "saving the model")
    LIFE.enter(SAVING)
    save_measured(trainer, tokenizer, run_dir, peaks)
    host.end("save")
    write_peak(run_dir, place, peaks, host)
    say_doing(run_dir, place, "drawing the pictures")
    on_rank_zero(lambda: prune(run_dir, run.checkpoint.keep, best_of(trainer.state), at_least=1), "removing old checkpoints")
    on_rank_zero(lambda: close(run_dir), "drawing the plots")
    return DONE, "finished"


@contextmanager
def finishing(trainer: Trainer) -> Iterator[None]:
    """However training ends, a checkpoint that is still being written is committed."""
    try:
        yield
    finally:
        if trainer.background is not None:
            LIFE.enter(SAVING)
            trainer.background.close()


def set_device(run: Run, place: Place) -> None:
    """Every CUDA context of this rank on its own GPU, before any library makes one on GPU 0."""
    if run.node.gpus:
        if torch.cuda.device_count() <= place.local_rank:
            found = torch.cuda.device_count()
            raise ValueError(f"cluster.ranks_per_node: rank {place.local_rank} of this node finds {found} GPUs. Start fewer ranks.")
        torch.cuda.set_device(place.local_rank)


def join_again(run: Run, place: Place) -> None:
    """The process group of restarted ranks, under keys of its own.

    The agent keeps its store over restarts (pytorch#135712; 2.13 still does): a rank that comes early would find addresses of the dead in it.
    """
    store, rank, world = next(torch.distributed.rendezvous("env://"))
    fresh = torch.distributed.PrefixStore(f"attempt-{place.attempt}", store)
    torch.distributed.init_process_group("nccl" if run.node.gpus else "gloo", store=fresh, rank=rank, world_size=world)


def join_ranks(run: Run, place: Place) -> None:
    """Under ZeRO on CPUs, from_pretrained partitions weights before the Trainer would have made the process group."""
    if not isinstance(run.sharding, Zero):
        return
    import deepspeed

    import_uncompiled("deepspeed.runtime.zero.muon.muon_optimizer")  # which deepspeed.initialize imports
    if run.node.gpus:
        ask_torch(deepspeed.accelerator.get_accelerator(), place.visible)
    else:
        deepspeed.init_distributed("gloo")


def shared_data(run: Run, tokenizer: PreTrainedTokenizerBase, run_dir: RunDir, place: Place) -> PreparedData:
    if not run.data.streaming:
        return prepared_once(run, tokenizer, run_dir, place)
    if run.data.evaluation_sets:
        held_out = prepared_once(run, tokenizer, run_dir, place).evaluation
    else:
        held_out = None
        if place.leads:
            tell(run_dir, [warning(line) for line in special_tokens(run.model, tokenizer)])
    return PreparedData(streamed_rows(run, tokenizer), held_out, None)


def prepared_once(run: Run, tokenizer: PreTrainedTokenizerBase, run_dir: RunDir, place: Place) -> PreparedData:
    """Tokenised once, by rank 0; the others wait for its folder, not in a collective that could time out."""
    if place.leads and not run_dir.prepared.exists():
        made = prepare(run, tokenizer, run_dir.prepared, run_dir.data_key)
        rows = made.evaluation if run.data.streaming else made.train
        tell(run_dir, [f"data: {made.report.sentence()}", *(warning(line) for line in disagreements(run, tokenizer, rows))])
    wait_for(run_dir.prepared.exists, run_dir.exit_file(0))
    data = load_prepared(run_dir.prepared)
    if not run.data.streaming and len(data.train) < run.training.micro_batch * place.world:
        raise DataError(
            f"{len(data.train)} training samples are fewer than one batch of training.micro_batch={run.training.micro_batch} on each of "
            f"{place.world} ranks. Lower training.micro_batch, or give more data."
        )
    return data


def warning(disagreement: str) -> str:
    """As `regimen data validate` words it."""
    return f"WARNING: tokenizer against model: {disagreement}"


def wait_for(ready: Callable[[], bool], failure: Path) -> None:
    while not ready():
        if failure.exists():
            raise RuntimeError(f"rank 0 ended before it had prepared the data: {failure}")
        time.sleep(WAIT_SECONDS)


def checkpoint_to_resume(run_dir: RunDir) -> Path | None:
    """The newest whole checkpoint, verified by rank 0 and sent to the others; None where there is none yet.

    Raises:
        ValueError: on rank 0, where all checkpoints are damaged.
    """

    def find() -> Path | None:
        run_dir.checkpoints.mkdir(exist_ok=True)
        clear_leftovers(run_dir)
        chosen = choose(run_dir)
        if chosen is None and run_dir.progress.exists():
            tell(run_dir, ["The run has no checkpoint yet, so it begins at step 1 again."])
        if chosen is not None:
            admit(chosen)
        return chosen

    checkpoint = broadcast(on_rank_zero(find, "choosing the checkpoint"))
    if checkpoint is not None:
        admit(checkpoint)  # what it needs is allowed in each process
    return checkpoint


def save_measured(trainer: Trainer, tokenizer: PreTrainedTokenizerBase, run_dir: RunDir, peaks: Peaks | None) -> None:
    """A run without checkpoints saves only here."""
    if peaks:
        peaks.end(ELSEWHERE)
    save_model(trainer, tokenizer, run_dir)
    if peaks:
        peaks.end("save")


def save_model(trainer: Trainer, tokenizer: PreTrainedTokenizerBase, run_dir: RunDir) -> None:
    """Final weights or adapter, and the tokenizer, whole or not at all."""
    making = run_dir.model.with_name(".making-model")
    on_rank_zero(lambda: shutil.rmtree(making, ignore_errors=True), "clearing an unfinished model")
    on_rank_zero(lambda: refuse_full_disk(run_dir, weight_bytes(trainer), "the final model"), "looking for room on the disk")
    trainer.save_model(str(making))
    if run_dir.initial_adapter.exists():
        save_as_plain_adapter(trainer, making, run_dir.initial_adapter)

    def complete() -> None:
        tokenizer.save_pretrained(making)
        for folder in (making, *([run_dir.base] if run_dir.base.is_dir() else [])):
            save_ends(trainer.model, folder)
        (making / "training_args.bin").unlink(missing_ok=True)  # a pickle; run.yaml says it all
        commit_model(making, run_dir, trainer.state.global_step, trainer.args.world_size)

    on_rank_zero(complete, "saving the model")


def close(run_dir: RunDir) -> None:
    draw_loss(run_dir)
    write_memory(run_dir)
    draw_memory(run_dir)
    remove_prepared(run_dir.prepared, run_dir.data_key)
