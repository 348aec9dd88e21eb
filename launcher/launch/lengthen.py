"""`resume=RUN training.max_steps=...` or `training.epochs=...`: a run is made longer or shorter, also one that is finished.

It goes on from its last checkpoint by the schedule of the new number of steps: from there on each step has the learning rate that it would have in a
run of that length. Nothing is decided by the ranks that is not said here first.
"""

from dataclasses import dataclass
from math import ceil
from pathlib import Path

from conf.committed import committed, step_of
from conf.records import is_step, read_lines, read_object
from conf.run_dir import RunDir
from conf.schedules import depends_on_total, rate, schedule_row, warmup_steps
from conf.schema import Composed, Run
from launcher.composition.recorded import LENGTH
from launcher.errors import ConfigError
from launcher.launch.rewind import NEWEST, START
from launcher.launch.status import status_of
from launcher.words import plural


@dataclass(frozen=True)
class Lengthening:
    """What changes, where the run stands, and how many steps it has before and after; a number of steps is None where nobody knows it yet."""

    keys: tuple[str, ...]  # "training.max_steps 100 -> 200"
    stands: int  # the step of the checkpoint from which it goes on; 0: there is none
    reached: int  # the last step that was made and logged
    finished: bool
    before: int | None
    after: int | None


def changed_length(before: Composed, after: Composed) -> tuple[str, ...]:
    """The keys of the length that differ, each with both values."""
    values = [(key, getattr(before.training, field), getattr(after.training, field)) for key in LENGTH for field in [key.removeprefix("training.")]]
    return tuple(f"{key} {said(old)} -> {said(new)}" for key, old, new in values if old != new)


def said(value: float | None) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def lengthening(run_dir: RunDir, before: Run, after: Composed) -> Lengthening | None:
    """What `after` changes in the length of the recorded run; None where that is nothing. The number of steps is known as far as it was counted.

    Raises:
        ConfigError: where no state of the run was kept, or where it is to end before the step at which it stands.
    """
    keys = changed_length(before, after)
    if not keys:
        return None
    steps = read_lines(run_dir.progress, is_step).entries
    reached, of = (int(steps[-1]["step"]), int(steps[-1]["of"])) if steps else (0, None)
    old = before.training.max_steps or of
    found = Lengthening(keys, standing(run_dir, after), reached, status_of(run_dir).state == "finished", old, steps_after(before, after, old))
    refuse_impossible(run_dir, before, after, found)
    return found


def standing(run_dir: RunDir, after: Composed) -> int:
    """The step from which the run goes on; 0 where it has no checkpoint."""
    wanted = after.checkpoint.resume
    if wanted == START:
        return 0
    there = committed(run_dir) if wanted == NEWEST else [run_dir.checkpoints / wanted]
    return step_of(there[0]) if there else 0


def steps_after(before: Composed, after: Composed, old: int | None) -> int | None:
    """The new number of steps, from training.max_steps or from the steps of the epochs that were recorded."""
    if after.training.max_steps is not None:
        return after.training.max_steps
    epochs = before.training.epochs
    if old is None or before.training.max_steps is not None or epochs != int(epochs):
        return None
    return ceil(after.training.epochs * (old / epochs))


def refuse_impossible(run_dir: RunDir, before: Composed, after: Composed, found: Lengthening) -> None:
    what = ", ".join(found.keys)
    if found.finished and not found.stands:
        raise ConfigError(f"{what}: {run_dir.path} is finished, and only its model was kept, no checkpoint. {from_its_weights(run_dir, before)}")
    floor = max(found.stands, found.reached if found.finished else 0)
    if found.after is not None and found.after <= floor:
        weights = f" For the weights of that step: regimen export {run_dir.path}@step-{found.stands}" if found.stands else ""
        how = "is finished with" if found.finished else "stands at"
        raise ConfigError(f"{what}: {run_dir.path} {how} step {floor}. Give more than {plural(floor, 'step')}, or start a new run.{weights}")
    epoch = epoch_of(run_dir.checkpoint(found.stands)) if found.after is None and found.stands else 0.0
    if found.after is None and after.training.max_steps is None and after.training.epochs <= epoch:
        raise ConfigError(f"{what}: {run_dir.path} stands at epoch {epoch:g}. Give more than training.epochs={epoch:g}, or start a new run.")


def from_its_weights(run_dir: RunDir, before: Composed) -> str:
    """What helps where the state of the optimizer is gone."""
    adapted = hasattr(before.regime, "adapter")
    weights = f"regime.adapter={run_dir.path}" if adapted else f"model=local model.path={run_dir.model}"
    interval = " (checkpoint.interval=0)" if before.checkpoint.interval == 0 else ""
    return (
        f"The states of its optimizer are gone{interval}, so it cannot go on as if it had not ended. "
        f"Start a new run from its weights, with a warmup of its own: {weights}. A run with a checkpoint.interval keeps its last state."
    )


def epoch_of(checkpoint: Path) -> float:
    """Of a checkpoint's trainer_state.json; 0 where that cannot be read, and the ranks find out."""
    state = checkpoint / "trainer_state.json"
    found = read_object(state, lambda entry: isinstance(entry.get("epoch"), int | float)) if state.is_file() else None
    return float(found["epoch"]) if found else 0.0


def lengthening_lines(found: Lengthening, run: Composed) -> list[str]:
    """What plan and train say of it before anything starts."""
    again = found.stands < found.reached
    repeated = f" Steps {found.stands + 1} to {found.reached} are made again, because no later state was kept." if again and found.finished else ""
    where = f"goes on from step {found.stands} with the states of its optimizer" if found.stands else "has no checkpoint yet, so it starts at step 1"
    model = " The model of the earlier end stays in model/ until the new one is whole." if found.finished else ""
    return [f"length: {', '.join(found.keys)}. The run {where}.{repeated}{model}", f"learning rate: {schedule_sentence(found, run)}"]


def schedule_sentence(found: Lengthening, run: Composed) -> str:
    optim, first = run.optim, found.stands + 1
    if not depends_on_total(optim):
        return f"optim.scheduler={optim.scheduler} does not depend on the number of steps and goes on unchanged."
    if found.after is None:
        return (
            f"optim.scheduler={optim.scheduler} from step {first} on as in a run of the new length from its start. "
            "The number of its steps is known when the data has been read."
        )
    text = (
        f"optim.scheduler={optim.scheduler} of {plural(found.after, 'step')} from step {first} on. "
        f"Step {first} is made at {rate(optim, first, found.after):.3g}, as in a run of that length from its start"
    )
    if found.before is not None and found.stands:
        text += f"; step {found.stands} was made at {rate(optim, found.stands, found.before):.3g} by the schedule of {plural(found.before, 'step')}"
    return f"{text}.{warmup_sentence(found, run)}"


def warmup_sentence(found: Lengthening, run: Composed) -> str:
    assert found.after is not None
    warmup = warmup_steps(run.optim, found.after)
    if not (schedule_row(run.optim.scheduler).warms_up and warmup > found.stands):
        return ""
    given = f"optim.warmup={run.optim.warmup:g} is {warmup} of these steps"
    return f" {given}, so the rate rises until step {warmup}. Runs that have learned rarely need that, and optim.warmup cannot change on a resume."
