"""One rank: `python -m trainers RUN_FOLDER`. Its end, good or bad, is written to exit/rank-N.json."""

import json
import os
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

from conf.exit_codes import DISK, DONE, SAVED
from conf.hub import cache_alone, hub_silence, reads_hub
from conf.private import keep_private
from conf.processes import ForkedChildren, die_with_ancestors
from conf.reserve import EXIT_BYTES, FULL, reserve, write_in_reserve
from conf.run_dir import RunDir, load_run, write_text_atomically
from conf.schema import Run
from conf.secrets import Masking, masked
from trainers.ranks import life
from trainers.ranks.causes import cause_of
from trainers.ranks.doing import say_doing
from trainers.ranks.libraries import only_what_is_needed
from trainers.ranks.noise import leave_out_noise
from trainers.ranks.notes import tell
from trainers.ranks.place import Place
from trainers.ranks.turn import wait_for_turn


def place_of_this_rank() -> Place:
    """Where the starter of this process put it: read once, here."""
    environment = os.environ
    return Place(
        rank=int(environment.get("RANK", 0)),
        local_rank=int(environment.get("LOCAL_RANK", 0)),
        world=int(environment.get("WORLD_SIZE", 1)),
        attempt=int(environment.get("TORCHELASTIC_RESTART_COUNT", 0)),
        visible=environment.get("CUDA_VISIBLE_DEVICES", ""),
    )


def redirect_output(path: Path) -> None:
    """Everything that this process and its libraries print goes to the rank's log."""
    path.parent.mkdir(exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.stdout, sys.stderr = Masking(sys.stdout), Masking(sys.stderr)


def leave_out_bars() -> None:
    """Those of loading and writing weights are for terminals: in a file they are one endless line. Before transformers is imported."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def leave_silent_hub(run: Run, run_dir: RunDir, place: Place) -> None:
    """A hub that is out of reach is asked once, here. From then on the libraries read their caches alone. Before transformers is imported."""
    silence = hub_silence() if reads_hub(run) else None
    if silence is None:
        return
    from huggingface_hub import constants

    os.environ["HF_HUB_OFFLINE"] = "1"  # for processes that this one starts
    constants.HF_HUB_OFFLINE = True
    if place.leads:
        tell(run_dir, [cache_alone(silence)])


def main() -> int:
    """The code for the agent, which takes every one but 0 for a failure, ends the other ranks, and may start all again.

    It is 0 also where all ranks have stopped and saved together. A rank that stopped before the first step may have left others waiting for it.
    """
    die_with_ancestors(os.environ)  # torchrun leaves its workers running otherwise
    ForkedChildren()
    keep_private()
    run_dir = RunDir(Path(sys.argv[1]).absolute())
    place = place_of_this_rank()
    redirect_output(run_dir.rank_log(place.rank))
    life.begin(run_dir, place)
    leave_out_noise()
    leave_out_bars()
    try:
        say_doing(run_dir, place, "loading libraries")
        run_dir.exits.mkdir(exist_ok=True)
        reserve(run_dir.exit_reserve(place.rank), EXIT_BYTES)
        run = load_run(run_dir)
        leave_silent_hub(run, run_dir, place)
        with only_what_is_needed(run):
            from trainers.run import train
        wait_for_turn(run_dir, place)
        code, message = train(run, run_dir, place)
        together = True
    except BaseException as error:  # noqa: BLE001 - whatever ends a rank is recorded, and the agent reads the exit code
        print_traceback()
        code, message = cause_of(error)
        together = False
    write_exit(run_dir, place, code, message)
    if code == DISK:
        make_room(run_dir, place)
    return DONE if together and code == SAVED else code


def print_traceback() -> None:
    """Into the log; a full disk, which may be the cause itself, keeps it out of there and is said in the exit file."""
    try:
        traceback.print_exc()
    except OSError as error:
        if error.errno not in FULL:
            raise


def make_room(run_dir: RunDir, place: Place) -> None:
    """Remove what this attempt has not committed. The other ranks end with this one."""
    from trainers.checkpoints.commit import clear_leftovers

    if place.leads:
        clear_leftovers(run_dir)


def write_exit(run_dir: RunDir, place: Place, code: int, message: str) -> None:
    run_dir.exits.mkdir(exist_ok=True)
    text = exit_text(place, code, masked(message))
    reserved = run_dir.exit_reserve(place.rank)
    try:
        write_text_atomically(run_dir.exit_file(place.rank), text)
        reserved.unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in FULL:
            raise
        short = masked(message).encode()[: EXIT_BYTES // 2].decode(errors="ignore")  # what is beside it has room, and quotes that JSON escapes
        write_in_reserve(run_dir.exit_file(place.rank), reserved, exit_text(place, code, short))


def exit_text(place: Place, code: int, message: str) -> str:
    return json.dumps({"rank": place.rank, "code": code, "message": message, "time": time.time()}, ensure_ascii=False)


if __name__ == "__main__":
    code = main()
    with suppress(OSError):  # the log's disk is full: how this rank ended is in its exit file
        sys.stdout.flush()
        sys.stderr.flush()
    # Work is committed: a library's thread or process group must not keep a finished rank alive.
    os._exit(code)
