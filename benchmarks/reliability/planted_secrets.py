"""F12: real trainings and sweeps with secrets in environment and configuration. In how many files, outputs and command lines does one appear?

`PYTHONPATH=. python benchmarks/reliability/planted_secrets.py --trials 8 --out benchmarks/results/reliability/planted_secrets.jsonl`.
Two secrets: a key of a known shape, and a value without shape that a key reads as ${oc.env:...}. A reward function of the user's prints both in
every rank, and in half of the trials raises an error whose text is them. While the run lives, the command lines of all its processes are read all the
time; after it, what the terminal showed and every file below its folder: journal, logs, data cache and checkpoints too. Held: neither is found
anywhere. --broken masks nothing.
"""

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.reliability.live_runs import TRIAL, clean_up, environment, folder_for_trial, words_of
from benchmarks.reliability.trials import arguments, files_of, run
from conf.exit_codes import DONE
from conf.run_dir import RunDir

REWARDS = """
import os
def tells(completions, **_):
    text = f"asked with {os.environ['SERVICE_KEY']} for {os.environ['THING']}"
    print(text, flush=True)
    if os.environ["ENDS"] == "error":
        raise RuntimeError(text)
    return [0.0] * len(completions)
"""
BROKEN = """
from conf import secrets
secrets.masked = lambda text: text
"""
SMALL = (
    *("model=demo", "data=demo", "data.max_samples=16", "data.validation_share=0", "node=cpu", "cluster.ranks_per_node=1", "sharding=ddp"),
    *("stage=grpo", "stage.reward_packages=[telling]", "stage.rewards=[telling:tells]", "stage.response_length=4", "training.precision=fp32"),
    *("training.gradient_checkpointing=false", "training.micro_batch=8", "training.max_steps=2", "checkpoint.interval=1", "evaluation.interval=0"),
    *("model.architecture.hidden_size=32", "model.architecture.intermediate_size=64", "tracking.entity=${oc.env:THING}"),
)
SWEEP = ("-m", "optim.lr=0.01,0.001")
LOOK = 0.05  # seconds between two looks at the command lines


def command_lines(folder: Path) -> dict[int, str]:
    """Of every process of the trial: all inherit its name, whoever started them."""
    mark = f"{TRIAL}={folder}"
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return {pid: " ".join(words_of(pid, "cmdline")) for pid in pids if mark in words_of(pid, "environ")}


def trial(number: int, seed: int, broken: bool) -> dict[str, Any]:
    chance = random.Random(f"{seed}:{number}")
    letters = "".join(chance.choice("abcdefghijkmnpqrstuvwxyz23456789") for _ in range(36))
    planted = {"SERVICE_KEY": f"sk-proj-{letters}", "THING": f"value{letters[:12]}"}
    sweep, ends = number % 4 == 3, "error" if number % 2 else "well"
    with folder_for_trial() as made:
        folder = Path(made)
        site = folder.parent / f"{folder.name}-site"  # what is the user's own holds secrets by right, and is not looked at
        site.mkdir()
        (site / "telling.py").write_text(REWARDS)
        if broken:
            (site / "sitecustomize.py").write_text(BROKEN)
        words = (*(SWEEP if sweep else ()), *SMALL)
        with (folder / "said").open("wb") as said:
            argv = [sys.executable, "-m", "launcher", "train", *words]
            process = subprocess.Popen(argv, cwd=folder, env=environment(folder, site, ENDS=ends, **planted), stdout=said, stderr=said)
        try:
            found: set[str] = set()
            seen: set[int] = set()
            while process.poll() is None:
                lines = command_lines(folder)
                seen |= set(lines)
                found |= {f"command line: {line[:80]}" for line in lines.values() if any(secret in line for secret in planted.values())}
                time.sleep(LOOK)
            found |= {str(path.relative_to(folder)) for path in files_of(folder) if holds(path, planted)}
            told = [path for path in folder.glob("outputs/*/**/log/rank-0.txt") if "asked with" in path.read_text(errors="replace")]
            code = process.returncode
        finally:
            clean_up(RunDir(folder / "outputs" / "run" / "once"), process)
            (site / "telling.py").unlink()
    landed = bool(told) and len(seen) > 2
    kind = "a sweep" if sweep else "a run"
    why = f"{kind} that ended {ends}: exit code {code}, {len(found)} places hold a secret: {sorted(found)[:4]}"
    held = not found and (code == DONE) == (ends == "well")
    return {"kind": kind, "ends": ends, "code": code, "processes": len(seen), "places": sorted(found), "landed": landed, "held": held, "why": why}


def holds(path: Path, planted: dict[str, str]) -> bool:
    content = path.read_bytes()
    return any(secret.encode() in content for secret in planted.values())


def main() -> int:
    options = arguments(__doc__ or "").parse_args()
    return run(options, "F12 secrets", lambda number, seed: trial(number, seed, options.broken))


if __name__ == "__main__":
    sys.exit(main())
