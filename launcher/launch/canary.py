"""gate.canary: where the limit lies within the estimate's uncertainty, two steps of the same job decide, on this machine, with real ranks.

The canary trains on made-up samples that are all as long as data.cutoff, in a temporary folder of its own. Only `regimen train` starts
one, and only for local runs: a Slurm job is judged by its estimate, since the node that will run it is not here.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from conf.exit_codes import DONE, OUT_OF_MEMORY, RANKS_FAILED
from conf.run_dir import write_text_atomically
from conf.schema import Run
from conf.stages import STAGES, Kind, stage_row
from launcher.errors import BY_EXIT_CODE, ConfigError, RegimenError
from launcher.gate.judge import Judged, judge_recorded
from launcher.gate.verdict import Check
from launcher.launch import execute, lock
from launcher.launch.outcome import Outcome
from launcher.launch.plan import LaunchPlan, plan_for

STEPS = 2  # the first makes the optimizer's states, the second is the highest
WORDS = "canary "  # at least one token each, with any tokenizer
# The samples that can be made up without knowing the data, by what a stage reads.
MADE_UP: dict[Kind, Callable[[str], dict[str, str]]] = {
    "text": lambda text: {"text": text},
    "answers": lambda text: {"instruction": "Sing.", "output": text},
}


def after_canary(decided: Judged) -> Judged:
    """The same run, its verdict decided by a canary where it is too close for the estimate; otherwise unchanged.

    Raises:
        ConfigError: for a stage whose samples cannot be made up.
        RegimenError: when the canary failed for another reason than memory.
    """
    if not is_needed(decided):
        return decided
    if stage_row(decided.run.stage.name).reads not in MADE_UP:
        stages = " and ".join(f"stage={stage}" for stage, row in STAGES.items() if row.reads in MADE_UP)
        raise ConfigError(f"gate.canary=true can make up samples only for {stages}, not for stage={decided.run.stage.name}. Set gate.canary=false.")
    print(f"verdict: too close for the estimate. {decided.verdict.close}. A canary of {STEPS} steps decides.", flush=True)
    return with_outcome(decided, tried(decided.run))


def is_needed(decided: Judged) -> bool:
    """A canary does not decide a check that is not about the device's memory."""
    run, verdict = decided.run, decided.verdict
    device = "GPU_PEAK" if run.node.gpus else "HOST_RAM"
    others = all(check.passed or not check.binding for check in verdict.checks if check.rule != device)
    return run.gate.canary and run.gate.mode == "enforce" and run.cluster.name == "local" and bool(verdict.close) and others


def tried(run: Run) -> Outcome:
    """Run the canary to its end, and remove all that it left."""
    output = Path(run.output).absolute()
    output.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".canary-", dir=output))
    try:
        samples = folder / "samples.json"
        write_text_atomically(samples, made_up_samples(run))
        canary = judge_recorded(canary_run(run, folder, samples))
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
    data = replace(run.data, sets=[str(samples)], folder=str(folder), max_samples=None, validation_share=0.0, evaluation_sets=[], probabilities=None)
    return replace(
        run,
        name="canary",
        output=str(folder),
        data=replace(data, cache=str(folder / "data"), streaming=False, mask_prompt=False, on_long="truncate"),
        training=replace(run.training, max_steps=STEPS, fit="off"),
        checkpoint=replace(run.checkpoint, interval=0),
        evaluation=replace(run.evaluation, interval=0, at_start=False, at_end=False, best_at_end=False, generate=None, answers=0),
        tracking=replace(run.tracking, name="none"),
        gate=replace(run.gate, mode="off", canary=False),
    )


def made_up_samples(run: Run) -> str:
    """Enough for every step, each longer than the cutoff."""
    sample = MADE_UP[stage_row(run.stage.name).reads](WORDS * run.data.cutoff)
    return json.dumps([sample] * (STEPS * run.training.effective_batch))


def with_outcome(decided: Judged, outcome: Outcome) -> Judged:
    """The verdict after the canary: permitted where it ran, refused where memory ran out."""
    # RANKS_FAILED: they were ended from outside, on a CPU node most often for memory
    if outcome.exit_code not in (DONE, OUT_OF_MEMORY, RANKS_FAILED):
        raise BY_EXIT_CODE.get(outcome.exit_code, RegimenError)(f"The canary failed: {outcome.message}")
    ran = outcome.exit_code == DONE
    device = next(check for check in decided.verdict.checks if check.rule in (("GPU_PEAK",) if decided.run.node.gpus else ("HOST_RAM",)))
    found = f"a canary of {STEPS} steps ran" if ran else f"a canary of {STEPS} steps failed: {outcome.message}"
    check = Check("CANARY", device.need, device.have, ran, True, f"{found}; this counts instead of the prediction.")
    checks = tuple(replace(each, binding=False) if each is device else each for each in decided.verdict.checks)
    return replace(decided, verdict=replace(decided.verdict, permitted=ran, checks=(*checks, check), close=""))
