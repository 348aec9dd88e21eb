"""Runs `-m trainers.verbs.<verb>` on a request: its folder, its environment, its end."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from conf.exit_codes import INTERRUPTED
from conf.hub import cache_alone, hub_silence
from conf.request import Chat, Evaluate, Export, MakeUp, Predict, Prepare, Validate, save_request
from conf.run_dir import RunDir, save_run
from conf.schema import Composed
from launcher.command import HUB_SECRETS, SECRETS, TRACKER_SECRETS, UTF8, Command
from launcher.errors import BY_EXIT_CODE, RanksFailed, RegimenError
from launcher.launch.execute import end_with_this_process

Request = Export | Predict | Evaluate | Chat | Validate | Prepare | MakeUp

# Libraries' hints are for programmers; regimen's own messages say what a user must know.
QUIET = (("TRANSFORMERS_VERBOSITY", "error"), ("PYTHONWARNINGS", "ignore"), ("TOKENIZERS_PARALLELISM", "false"))


ON_CPU = (("CUDA_VISIBLE_DEVICES", ""), ("DS_ACCELERATOR", "cpu"))
FROM_CACHE = (("HF_HUB_OFFLINE", "1"),)  # the libraries look into their caches at once, where they would first ask for half a minute


def verb_command(verb: str, folder: Path, *, needs_hub: bool, hides_gpus: bool, offline: bool = False) -> Command:
    forced = (("PYTHONSAFEPATH", "1"), UTF8, *(ON_CPU if hides_gpus else ()), *(FROM_CACHE if offline else ()))
    secrets = (*SECRETS, *TRACKER_SECRETS, *(() if needs_hub else HUB_SECRETS))
    return Command((sys.executable, "-m", f"trainers.verbs.{verb}", str(folder)), QUIET, forced, secrets)


def run_verb(
    verb: str, run: Composed, request: Request, site: Mapping[str, str], *, needs_hub: bool, hides_gpus: bool = False, from_hub: bool = False
) -> int:
    """Run the verb to its end on this terminal.

    Args:
        needs_hub: whether the verb may see the secrets of the hub.
        from_hub: whether the run names something that only the hub or its cache has; where the hub is silent, the cache alone is read.

    Raises:
        RegimenError: of the class that its exit code stands for.
        KeyboardInterrupt: when Ctrl-C ended it.
    """
    silence = hub_silence() if from_hub else None
    if silence is not None:
        print(cache_alone(silence), file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix=f"regimen-{verb}-") as name:
        folder = RunDir(Path(name))
        save_run(run, folder)
        save_request(request, folder.path)
        command = verb_command(verb, folder.path, needs_hub=needs_hub, hides_gpus=hides_gpus, offline=silence is not None)
        code = wait_for(subprocess.Popen(command.argv, env=command.environment(site), preexec_fn=end_with_this_process()))
        return ended(verb, folder, code)


def wait_for(process: "subprocess.Popen[bytes]") -> int:
    """Ctrl-C reaches the process itself, which knows what to do with it: a chat goes on. SIGTERM and SIGUSR1 are passed on to it as SIGTERM."""
    passed_on = False

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal passed_on
        passed_on = True
        process.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGUSR1)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return INTERRUPTED if passed_on and code == -signal.SIGTERM else code


def ended(verb: str, folder: RunDir, code: int) -> int:
    if code == 0:
        return 0
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if not folder.exit_file(0).exists():
        cause = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code} and left no message"
        raise RanksFailed(f"{verb} {cause}. A process that is killed from outside leaves no message, often because host memory ran out.")
    entry = json.loads(folder.exit_file(0).read_text(encoding="utf-8"))
    raise BY_EXIT_CODE.get(entry["code"], RegimenError)(entry["message"])


def working_commit() -> str | None:
    """The git commit of the working folder, where it is one of a repository."""
    try:
        done = subprocess.run(("git", "rev-parse", "HEAD"), capture_output=True, text=True, check=False, cwd=os.getcwd())
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
