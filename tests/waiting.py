"""How long tests wait, and for what: many times the usual, so that on a slow or busy machine only what never comes fails."""

import subprocess
import time
from collections.abc import Callable
from typing import Any, TypeVar

# Seconds. On two idle cores nothing here takes a minute: a job of Slurm 10 s, a run until its first checkpoint 20 s, a script on a page 50 s.
PATIENCE = 1200.0
PAUSE = 0.05
LONG_PAUSE = 0.5  # where asking is dear, as by a command of Slurm, and nothing is done to what still runs
Answer = TypeVar("Answer")


def wait_until(holds: Callable[[], Answer], what: str, process: "subprocess.Popen[Any] | None" = None, pause: float = PAUSE) -> Answer:
    """The first true answer of `holds`, which is asked every `pause` seconds.

    Raises:
        AssertionError: naming what did not come: after PATIENCE, or as soon as the process that was to bring it about has ended.
    """
    end = time.monotonic() + PATIENCE
    while True:
        ended = process is not None and process.poll() is not None  # asked first: what it did last may be what is waited for
        answer = holds()
        if answer:
            return answer
        assert not ended, f"there is no {what}: the process that was to bring it about ended with exit code {process and process.returncode}"
        assert time.monotonic() < end, f"within {PATIENCE:.0f} s there was no {what}"
        time.sleep(pause)
