"""gate.canary: where the limit lies within the estimate's uncertainty, a few steps of the same job decide, on this machine, with all of its ranks.

The canary trains on made-up samples that are all as long as data.cutoff, in a temporary folder of its own. Answers that the model writes itself
(ppo, grpo) end where it ends them, so they may be shorter than stage.response_length. Only `regimen train` starts a canary, and only for local
runs: a Slurm job is judged by its estimate, since the node that will run it is not here.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from conf.exit_codes import DONE, OUT_OF_MEMORY, RANKS_FAILED
from conf.hub import is_of_hub
from conf.request import MakeUp
from conf.run_dir import write_text_atomically
from conf.schema import Ppo, Run
from conf.stages import Kind, stage_row
from launcher.errors import BY_EXIT_CODE, RegimenError
from launcher.gate.judge import Judged, judge_recorded
from launcher.gate.verdict import Check
from launcher.launch import execute, lock
from launcher.launch.outcome import Outcome
from launcher.launch.plan import LaunchPlan, plan_for
from launcher.launch.verb_process import run_verb
from launcher.words import plural

# Words of at least one token each, with any tokenizer; the second text differs from the first in each of them.
WORDS, OTHERS = "canary ", "miner "
# The samples that are cut at data.cutoff, by what a stage reads: made of a text, another one, and a number. A prompt is dropped where it is too
# long, so only a tokenizer can tell how many words it may have: trainers/verbs/make_up.py.
MADE_UP: dict[Kind, Callable[[str, str, int], dict[str, object]]] = {
    "text": lambda text, other, number: {"text": text},
    "answers": lambda text, other, number: {"instruction": "Sing.", "output": text},
    "pairs": lambda text, other, number: {"prompt": "Sing.", "chosen": text, "rejected": other},
    "labelled": lambda text, other, number: {"prompt": "Sing.", "completion": text if number % 2 else other, "label": number % 2 == 1},
}


def after_canary(decided: Judged) -> Judged:
    """The same run, its verdict decided by a canary where it is too close for the estimate; otherwise unchanged.

    Raises:
        RegimenError: when the canary failed for another reason than memory.
    """
    if not is_needed(decided):
        return decided
    print(f"verdict: {decided.verdict.close}. A canary of {steps_of(decided.run)} steps decides.", flush=True)
    return with_outcome(decided, tried(decided.run))


def is_needed(decided: Judged) -> bool:
    """A canary does not decide a check that is not about the device's memory."""
    run, verdict = decided.run, decided.verdict
    device = "GPU_PEAK" if run.node.gpus else "HOST_RAM"
    others = all(check.passed or not check.binding for check in verdict.checks if check.rule != device)
    return run.gate.canary and run.gate.mode == "enforce" and run.cluster.name == "local" and bool(verdict.close) and others


def steps_of(run: Run) -> int:
    """The first step makes the optimizer's states, the next is the highest; of ppo the next that begins with new answers."""
    return 1 + (run.stage.mini_batches * run.stage.epochs if isinstance(run.stage, Ppo) else 1)


def tried(run: Run) -> Outcome:
    """Run the canary to its end, and remove all that it left."""
    output = Path(run.output).absolute()
    output.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".canary-", dir=output))
    try:
        samples = folder / "samples.json"
        trial = canary_run(run, folder, samples)
        write_samples(trial, samples)
        canary = judge_recorded(trial)
        return supervised(plan_for(canary, execute.start_fresh(canary, listed=False)))
    finally:
        shutil.rmtree(folder)


def supervised(plan: LaunchPlan) -> Outcome:
    from launcher.launch.supervise import supervise

    execute.write_plan(plan, os.environ)
    owner: lock.Owner = execute.own(plan.run_dir)
    return supervise(plan.run_dir, plan.command, os.environ, owner)


def canary_run(run: Run, folder: Path, samples: Path) -> Run:
    """Only the contents of the data differ in what needs memory; what is slow or leaves traces is off."""
    masked = run.data.mask_prompt and stage_row(run.stage.name).reads != "answers"  # where prompts can be learned, every token is
    data = replace(run.data, sets=[str(samples)], folder=str(folder), max_samples=None, validation_share=0.0, evaluation_sets=[], probabilities=None)
    return replace(
        run,
        name="canary",
        output=str(folder),
        data=replace(data, cache=str(folder / "data"), streaming=False, mask_prompt=masked, on_long="truncate"),
        training=replace(run.training, max_steps=steps_of(run), fit="off"),
        checkpoint=replace(run.checkpoint, interval=0),
        evaluation=replace(run.evaluation, interval=0, at_start=False, at_end=False, best_at_end=False, generate=None, answers=0),
        tracking=replace(run.tracking, name="none", also=[]),
        gate=replace(run.gate, mode="off", canary=False),
    )


def write_samples(run: Run, file: Path) -> None:
    """Enough for every step, each longer than the cutoff; prompts as long as it. `run`: the canary's own."""
    count = steps_of(run) * run.training.effective_batch
    if stage_row(run.stage.name).reads == "prompts":
        of_hub = is_of_hub(run.model)
        run_verb("make_up", run, MakeUp(str(file), count), os.environ, needs_hub=of_hub, hides_gpus=True, from_hub=of_hub)
    else:
        write_text_atomically(file, made_up_samples(run, count))


def made_up_samples(run: Run, count: int) -> str:
    made = MADE_UP[stage_row(run.stage.name).reads]
    return json.dumps([made(WORDS * run.data.cutoff, OTHERS * run.data.cutoff, number) for number in range(count)])


def with_outcome(decided: Judged, outcome: Outcome) -> Judged:
    """The verdict after the canary: permitted where it ran, refused where memory ran out."""
    # RANKS_FAILED: they were ended from outside, on a CPU node most often for memory
    if outcome.exit_code not in (DONE, OUT_OF_MEMORY, RANKS_FAILED):
        raise BY_EXIT_CODE.get(outcome.exit_code, RegimenError)(f"The canary failed: {outcome.message}")
    ran = outcome.exit_code == DONE
    device = next(check for check in decided.verdict.checks if check.rule in (("GPU_PEAK",) if decided.run.node.gpus else ("HOST_RAM",)))
    tried_steps = plural(steps_of(decided.run), "step")
    found = f"a canary of {tried_steps} ran" if ran else f"a canary of {tried_steps} failed: {outcome.message}"
    check = Check("CANARY", device.need, device.have, ran, True, f"{found}; this counts instead of the prediction.")
    checks = tuple(replace(each, binding=False) if each is device else each for each in decided.verdict.checks)
    return replace(decided, verdict=replace(decided.verdict, permitted=ran, checks=(*checks, check), close=""))
