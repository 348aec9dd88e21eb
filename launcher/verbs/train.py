"""The verbs that act: train, stop, and what follows a run. They decide with the pure modules and act through execute."""

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from conf import journal
from conf.environment import open_keys
from conf.evaluations import of_final_model
from conf.exit_codes import DONE, NEVER, OUT_OF_MEMORY, SAVED
from conf.metrics import SHOWN, shown_of
from conf.processes import die_with_parent, identity_of
from conf.records import is_step, read_lines, read_object
from conf.run_dir import RunDir
from conf.schema import Hosts
from conf.words import BETWEEN
from launcher.command import Command
from launcher.composition import recorded
from launcher.composition.reshaping import reshaping_lines
from launcher.errors import BY_EXIT_CODE, ConfigError, RegimenError
from launcher.gate.judge import Judged, judge_recorded
from launcher.launch import batch_job, execute, heartbeat, lengthen, lock, measured_times, places, restart, rewind, status, torchrun_door
from launcher.launch.after import with_run_folder
from launcher.launch.again import take_again
from launcher.launch.backends import refuse_several_local_nodes
from launcher.launch.canary import after_canary
from launcher.launch.foreign import NO_TRUST, Trust, refuse_foreign
from launcher.launch.hosts import supervised_command
from launcher.launch.outcome import Outcome, outcome_of, read_exits
from launcher.launch.plan import LaunchPlan, plan_for
from launcher.launch.progress import measures
from launcher.verbs.generated import generated_lines
from launcher.verbs.plan import judged, recommendations
from launcher.verbs.plan_text import expectation_lines, fit_lines, machine_lines, note_lines, run_sentence, verdict_lines
from launcher.words import red_alarms, wrapped


def train(overrides: Sequence[str], config_dirs: Sequence[Path], detached: bool, trust: Trust = NO_TRUST, wait: bool = False) -> int:
    """Start a run, or go on with one: from the command line, or as one rank of a job that the user started with torchrun.

    Args:
        wait: a submitted job is followed to its end.
    """
    rank = torchrun_door.started_by_torchrun(os.environ)
    if rank is not None:
        return join_torchrun(rank, overrides, config_dirs, trust)
    name, others = recorded.split_resume(overrides)
    if name is not None:
        return go_on(status.named_run(name, recorded.output_of(others)), others, detached, trust, wait)
    decided = decide_fresh(overrides, config_dirs)
    refuse_several_local_nodes(decided.run)
    if decided.run.cluster.name == "slurm":
        return submitted(batch_job.submit_fresh(decided), wait)
    refuse_wait(wait)
    plan, held = take_fresh(decided)
    print(f"run folder: {plan.run_dir.path}", flush=True)
    say_what_to_start(plan)
    return detach(plan, held) if detached else supervised(plan.run_dir, plan.command, held, restart.budget(plan.run, journal.SUPERVISOR))


# The steps to a run folder that is ours and holds its plan. The command line and torchrun both use them.


def decide_fresh(overrides: Sequence[str], config_dirs: Sequence[Path]) -> Judged:
    decided = after_canary(judged(overrides, config_dirs))
    announce(decided, overrides)
    return decided


def take_fresh(decided: Judged) -> tuple[LaunchPlan, lock.Owner]:
    """Make the folder of a permitted run, own it, and write its plan."""
    run_dir = execute.start_fresh(decided)
    held = execute.own(run_dir)
    plan = plan_for(decided, run_dir)
    execute.write_plan(plan, os.environ)
    return plan, held


def decide_again(run_dir: RunDir, overrides: Sequence[str], trust: Trust = NO_TRUST) -> Judged | None:
    """Judge a recorded run again; None for a finished one that is not made longer. Nothing in its folder is touched.

    Raises:
        RunLocked: while somebody works in the folder.
        GateRefused: where it does not fit any more.
        ConfigError: for a key that differs from the record, for a checkpoint that cannot be used, and for a length that is not possible.
    """
    refuse_foreign(run_dir, trust)
    run = with_run_folder(recorded.resumed_run(run_dir, overrides))
    longer = lengthen.changed_length(recorded.recorded_run(run_dir), run)
    if status.status_of(run_dir).state == "finished" and not longer:
        rewind.refuse_finished(run_dir, run.checkpoint.resume)
        print(finished_text(run_dir, recorded.changed_in_vain(run_dir, overrides)), flush=True)
        return None
    batch_job.refuse_active(run_dir)
    lock.refuse_live_owner(run_dir, trust.take_over)
    rewind.refuse_unusable(run_dir, run.checkpoint.resume)
    measured_times.refuse_by_times(run, run_dir)
    length = lengthen.lengthening(run_dir, recorded.recorded_run(run_dir), run)
    decided = after_canary(judge_recorded(run))
    if not decided.verdict.permitted:
        announce(decided, [f"{recorded.PREFIX}{run_dir.path}", *overrides])
        raise execute.gate_refusal(decided)
    reshaped = reshaping_lines(recorded.recorded_run(run_dir), decided.run, saved=lengthen.standing(run_dir, run) > 0)
    for text in [*(lengthen.lengthening_lines(length, decided.run) if length else []), *reshaped]:
        print("\n".join(wrapped(text)), flush=True)
    return decided


def finished_text(run_dir: RunDir, in_vain: Sequence[str]) -> str:
    nothing = f"{run_dir.path} is finished. Nothing is left to do."
    if not in_vain:
        return nothing
    listed = "\n  ".join(in_vain)
    return f"{nothing} These have no effect:\n  {listed}\nTo train it further with them, give more training.max_steps or training.epochs too."


def announce(decided: Judged, given: Sequence[str]) -> None:
    """Say what is about to happen; for a refused run, also what would fit."""
    lines = [*wrapped(run_sentence(decided)), *fit_lines(decided), *verdict_lines(decided.verdict), *expectation_lines(decided), *note_lines(decided)]
    print(red_alarms("\n".join(lines), sys.stdout), flush=True)
    if not decided.verdict.permitted:
        print("\n".join(recommendations(decided, given)), flush=True)


def say_what_to_start(plan: LaunchPlan) -> None:
    """With cluster.start=print a person starts the ranks of each machine."""
    if not isinstance(plan.run.cluster, Hosts) or plan.run.cluster.start != "print":
        return
    print("\n".join(["Start this on each machine; the run begins when all have started:", *machine_lines(plan)]), flush=True)


def detach(plan: LaunchPlan, held: lock.Owner) -> int:
    """Hand the folder to a supervisor that outlives this terminal."""
    run_dir = plan.run_dir
    pid = execute.detach(run_dir, held, os.environ)
    print(f"detached as process {pid}. Follow it: regimen status --follow {run_dir.path}", flush=True)
    return 0


def supervised(run_dir: RunDir, command: Command, owner: lock.Owner, restarts: int) -> int:
    """Train in the foreground. Where a run refused its input, this prints why, and leaves no folder."""
    from launcher.launch.supervise import supervise

    outcome = supervise(run_dir, command, os.environ, owner, restarts)
    logs = execute.discard_unbegun(run_dir, outcome)
    return ended(run_dir, outcome if logs is None else replace(outcome, message=outcome.message.replace(str(run_dir.logs), str(logs))))


def ended(run_dir: RunDir, outcome: Outcome) -> int:
    """Print how a run ended: what it left for a finished one, the cause for another; where memory ran out, what needs less."""
    if outcome.exit_code == 0:
        print("\n".join(leftovers(run_dir)), flush=True)
        return 0
    if outcome.exit_code == OUT_OF_MEMORY:
        from launcher.verbs.smaller import smaller_lines

        print("\n".join(smaller_lines(run_dir)), flush=True)
    raise as_error(outcome)


def as_error(outcome: Outcome) -> RegimenError:
    return BY_EXIT_CODE.get(outcome.exit_code, RegimenError)(outcome.message)


def leftovers(run_dir: RunDir) -> list[str]:
    lines = [f"finished. {summary}" for summary in [closing_summary(run_dir)] if summary]
    lines += [*generated_lines(run_dir), f"model: {run_dir.model}", f"loss: {run_dir.loss_plot}"]
    return [*lines, *([f"memory: {run_dir.memory_plot}"] if run_dir.memory_plot.exists() else [])]


def closing_summary(run_dir: RunDir) -> str:
    known = f"{early_end(run_dir)}{what_was_reached(run_dir)}"
    if not run_dir.memory.exists():
        return known
    memory = read_object(run_dir.memory, lambda entry: isinstance(entry.get("sentence"), str))
    return f"{known}{memory['sentence'] if memory else f'{run_dir.memory} is damaged.'}"


def what_was_reached(run_dir: RunDir) -> str:
    """What the stage is about, from the first evaluation to that of the final model; of a run without two of them, as the last step left it."""
    entries = read_lines(run_dir.progress, is_step).entries
    run = recorded.recorded_run(run_dir)
    shown = shown_of(run.stage.name)
    evaluations = [entry for entry in entries if "eval_loss" in entry]
    final = of_final_model(evaluations, run.evaluation)
    if final is not None and final is not evaluations[0]:
        first = evaluations[0]
        changes = [
            f"evaluation {SHOWN[name].change(first[key], final[key])}. " for name in shown if (key := f"eval_{name}") in final and key in first
        ]
        return "".join(changes) + (f"kept: step {final['step']}, the best by {run.evaluation.metric}. " if run.evaluation.best_at_end else "")
    trained = next((entry for entry in reversed(entries) if "loss" in entry), None)
    if trained is None:
        return ""
    newest = {name: value for entry in entries for name, value in entry.items() if name in shown}  # ppo measures its reward once for several steps
    return f"step {trained['step']}: {BETWEEN.join(measures(newest, shown))}. "


def early_end(run_dir: RunDir) -> str:
    """Of a finished run that evaluation.patience ended before its last step; such a run evaluates at its end, so its last line is of that step."""
    evaluation, steps = recorded.recorded_run(run_dir).evaluation, read_lines(run_dir.progress, is_step).entries
    if evaluation.patience is None or not steps or steps[-1]["step"] == steps[-1]["of"]:
        return ""
    last, patience = steps[-1], evaluation.patience
    return f"ended at step {last['step']} of {last['of']}: no better {evaluation.metric} in {patience} evaluations (evaluation.patience). "


def go_on(run_dir: RunDir, overrides: Sequence[str], detached: bool, trust: Trust, wait: bool = False) -> int:
    """Resume a run in its own folder."""
    decided = decide_again(run_dir, overrides, trust)
    if decided is None:
        return 0
    if decided.run.cluster.name != "slurm":
        refuse_wait(wait)
    plan, held = take_again(decided, run_dir, os.environ, trust)
    for line in open_keys(decided.run):
        print(f"note: {line} is read from the environment again.")
    if decided.run.cluster.name == "slurm":
        return submitted(batch_job.submit_again(plan, held), wait)
    say_what_to_start(plan)
    if detached:
        return detach(plan, held)
    print(f"going on in {run_dir.path}", flush=True)
    return supervised(run_dir, plan.command, held, restart.budget(plan.run, journal.SUPERVISOR))


def submitted(run_dir: RunDir, wait: bool) -> int:
    """After a submission: at once, or with `--wait` when the run has ended, and then with its exit code."""
    if not wait:
        return 0
    from launcher.verbs.watch import follow

    print("Ctrl-C ends this view alone, and the job goes on.", flush=True)
    return follow(str(run_dir.path), None)


def refuse_wait(wait: bool) -> None:
    if wait:
        raise ConfigError("--wait follows a job that is submitted by cluster=slurm. Other runs are followed by `regimen train` anyway. Leave it out.")


def supervise_folder(path: Path, nonce: str | None = None) -> int:
    """The body of a detached launch and of a point of a sweep: what was judged and planned is in the folder already.

    Nobody may be there to read how it ends, so its folder always stays, and `regimen status` tells.
    """
    from launcher.launch.supervise import supervise

    run_dir = RunDir(path.absolute())
    run = recorded.recorded_run(run_dir)
    restarts = restart.budget(run, journal.SUPERVISOR)
    return ended(run_dir, supervise(run_dir, supervised_command(run, run_dir), os.environ, execute.own(run_dir, nonce), restarts))


def join_torchrun(rank: torchrun_door.Rank, overrides: Sequence[str], config_dirs: Sequence[Path], trust: Trust = NO_TRUST) -> int:
    """Every rank of a job that the user started with torchrun: meet, then become a trainer."""
    die_with_parent(os.getppid())
    place = torchrun_door.meeting_place(meeting_output(overrides), rank.job)
    if rank.rank != 0:
        answer = torchrun_door.ask(rank, place)
        if answer.exit_code:
            torchrun_door.raise_refusal(answer.exit_code)
        if answer.run_folder == torchrun_door.NOTHING_TO_DO:
            return 0
        execute.become_trainer(Path(answer.run_folder), os.environ)
    place.mkdir(parents=True, exist_ok=True)
    try:
        run_dir = folder_for_torchrun(rank, place, overrides, config_dirs, trust)
    except RegimenError as error:
        print(f"regimen: {error}", file=sys.stderr, flush=True)  # before the others end: torchrun then ends this process too
        torchrun_door.publish(rank, place, torchrun_door.NOTHING_TO_DO, error.exit_code)
        torchrun_door.raise_refusal(error.exit_code)
    if run_dir is None:
        torchrun_door.publish(rank, place, torchrun_door.NOTHING_TO_DO, 0)
        return 0
    torchrun_door.remember(rank, place, run_dir.path)
    torchrun_door.publish(rank, place, str(run_dir.path), 0)
    return execute.become_trainer(run_dir.path, os.environ)


def meeting_output(overrides: Sequence[str]) -> Path:
    """The same on every rank without composing; where `output=` cannot be read, rank 0 says so for all."""
    try:
        return recorded.output_of(overrides) or places.DEFAULT
    except ConfigError:
        return places.DEFAULT


def folder_for_torchrun(
    rank: torchrun_door.Rank, place: Path, overrides: Sequence[str], config_dirs: Sequence[Path], trust: Trust = NO_TRUST
) -> RunDir | None:
    """Rank 0: the folder of this job, made now, resumed, or found again after an elastic restart; None for a finished run.

    The pid that owns the folder stays the same when this process becomes the trainer.
    """
    layout = [f"cluster.nodes={rank.nodes}", f"cluster.ranks_per_node={rank.ranks_per_node}"]
    before = torchrun_door.earlier_run(rank, place)
    name, others = recorded.split_resume(overrides)
    by = journal.TORCHRUN if before is not None and (name is None or rank.restart) else journal.USER
    if before is None and name is None:
        plan, held = take_fresh(decide_fresh([*overrides, *layout], config_dirs))
    else:
        run_dir = RunDir(before) if before is not None else status.named_run(str(name), recorded.output_of(others))
        if by == journal.TORCHRUN:
            refuse_restart(run_dir, rank)
        decided = decide_again(run_dir, [*(others if before is None else []), *layout], trust)
        if decided is None:
            return None
        plan, held = take_again(decided, run_dir, os.environ, trust)
    journal.record(plan.run_dir, journal.Started(socket.gethostname(), by, argv=tuple(sys.argv)))
    heartbeat.start(plan.run_dir, held.nonce, identity_of(os.getpid()), os.environ)  # this process becomes the trainer of rank 0
    return plan.run_dir


def refuse_restart(run_dir: RunDir, rank: torchrun_door.Rank) -> None:
    """Before torchrun's own restart.

    Raises:
        RegimenError: the cause of the attempt before, where starting again cannot help.
        NoProgress: where the budget is used up.
    """
    before = outcome_of(run_dir, 0)
    if rank.restart and read_exits(run_dir) and before.exit_code not in (DONE, SAVED) and restart.again(before.exit_code) == NEVER:
        raise as_error(before)
    restart.refuse_used_up(journal.events(run_dir), restart.budget(recorded.recorded_run(run_dir), journal.TORCHRUN), run_dir)
