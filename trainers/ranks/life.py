"""Signs of life of this rank. It only sets fields; a thread writes them, and counts: as long as the process can run, the count goes on."""

import faulthandler
import os
import signal
import sys
import threading
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from conf.processes import identity_of
from conf.run_dir import RunDir
from conf.signs import BEAT_SECONDS, STARTING, Sign, as_record
from trainers.ranks.place import Place


@dataclass
class Life:
    """What the rank is doing; one for each process, and written down only once `begin` was called."""

    phase: str = STARTING
    step: int = 0
    moves: int = 0
    beats: int = 0
    interruptible: bool = False  # a request to stop may end the rank at once, since there is nothing to save yet
    kept: list[object] = field(default_factory=list)  # what must live as long as the process

    def enter(self, phase: str) -> None:
        """From now on the rank does this."""
        self.phase = phase
        self.moves += 1

    def move(self) -> None:
        """The rank has got on: a part of a step, a batch of an evaluation."""
        self.moves += 1

    def finish_step(self, step: int) -> None:
        self.step = step
        self.moves += 1


LIFE = Life()

# Where Python stands while a rank waits for others: (end of the file's path or folder in it, function or None for all of them).
WAITS = (
    ("/torch/distributed/distributed_c10d.py", None),
    ("/torch/distributed/_functional_collectives.py", None),
    ("/torch/distributed/fsdp/", None),
    ("/deepspeed/comm/", None),
    ("/torch/autograd/graph.py", "_engine_run_backward"),  # DDP adds up the gradients inside of the backward pass
    ("/trainers/ranks/agreement.py", "total"),  # a GPU is waited for where its sum is read
)


def begin(run_dir: RunDir, place: Place) -> None:
    """Answer the supervisor from now on: with signs of life, and with the stacks of all threads at SIGUSR2, whatever the rank is busy with."""
    stacks = run_dir.stacks(place.rank).open("w", encoding="utf-8")
    faulthandler.register(signal.SIGUSR2, file=stacks, all_threads=True)
    LIFE.kept.append(stacks)
    path = run_dir.sign(place.rank)
    path.parent.mkdir(exist_ok=True)
    threading.Thread(target=beat, args=(path, run_dir.stop), name="signs of life", daemon=True).start()


def beat(path: Path, stop: Path) -> None:
    """Also looks for a request to stop before the first step, when nobody else does."""
    me, main = identity_of(os.getpid()), threading.main_thread().ident
    record = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    pause = threading.Event()
    while True:
        LIFE.beats += 1
        place = place_of(sys._current_frames().get(main or 0))
        os.pwrite(record, as_record(Sign(me.pid, me.start, LIFE.phase, LIFE.step, LIFE.moves, LIFE.beats, place)), 0)
        if LIFE.interruptible and stop.exists():
            LIFE.interruptible = False
            os.kill(me.pid, signal.SIGUSR1)  # trainers/callbacks/stopping.py; SIGTERM is ignored in a Slurm job
        pause.wait(BEAT_SECONDS)


def place_of(frame: FrameType | None) -> int:
    """A number for the call in which a thread waits for other ranks, the same as long as it stays in that very call; 0 where it does not wait."""
    if frame is None or not any(part in frame.f_code.co_filename and function in (None, frame.f_code.co_name) for part, function in WAITS):
        return 0
    place = 1
    while frame is not None:
        place = zlib.crc32(f"{frame.f_code.co_filename}:{frame.f_lasti}".encode(), place)
        frame = frame.f_back
    return place
