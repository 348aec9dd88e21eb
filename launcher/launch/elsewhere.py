"""Whether an owner that this machine cannot see still lives: its job of Slurm may have ended, or its heartbeat goes on.

Both are asked only where a start needs the folder, since the second takes a minute.
"""

import os
import sys
import time
from typing import TYPE_CHECKING, Literal

from conf.run_dir import RunDir
from launcher.errors import SubmissionError
from launcher.launch.heartbeat import BEAT_SECONDS, nonce_in

if TYPE_CHECKING:
    from launcher.launch.lock import Owner

# Without one beat: an owner on a machine that is very busy misses some, and a network file system may show one late.
SILENCE_SECONDS = 12 * BEAT_SECONDS
LOOK_SECONDS = 1.0


def standing(run_dir: RunDir, owner: "Owner", silence: float = SILENCE_SECONDS) -> Literal["alive", "dead", "unknown"]:
    """What is known of an owner on another machine.

    Args:
        silence: seconds without a beat after which the owner counts as dead, by this machine's clock alone.
    """
    if owner.slurm_job and job_has_ended(owner.slurm_job):
        return "dead"
    if nonce_in(run_dir.heartbeat) != owner.nonce:
        return "unknown"  # it was started by a version without heartbeats, or has not come to its first one
    print(
        f"note: {run_dir.path} belongs to process {owner.pid} on {owner.host}, which this machine cannot see. "
        f"Watching its heartbeat for up to {silence:.0f} s.",
        file=sys.stderr,
        flush=True,
    )
    return "alive" if beats(run_dir, silence) else "dead"


def beats(run_dir: RunDir, silence: float) -> bool:
    """Whether the heartbeat changes within this time. The file is opened at each look: network file systems then ask their server."""
    first, until = text_of(run_dir), time.monotonic() + silence
    while time.monotonic() < until:
        time.sleep(min(LOOK_SECONDS, silence / 4))
        if text_of(run_dir) != first:
            return True
    return False


def text_of(run_dir: RunDir) -> str:
    try:
        return run_dir.heartbeat.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def job_has_ended(job: str) -> bool:
    """As squeue knows it, and where that has forgotten the job the accounting. False where nobody knows."""
    from launcher.launch import slurm_commands  # most locks name no job

    try:
        queued = slurm_commands.queue([job], os.environ).get(job)
        return queued.ended if queued is not None else job in slurm_commands.accounted_ends([job], os.environ)
    except SubmissionError:
        return False
