"""The signs of life of a rank: what it does, how far it is, and a count that goes on as long as the process can run at all.

Each rank rewrites its own record in place (trainers/ranks/life.py); its supervisor reads them (launcher/launch/hang.py).
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from conf.processes import Identity
from conf.records import is_whole

BEAT_SECONDS = 0.5  # from one writing of a record to the next
RECORD_BYTES = 256  # each writing replaces all of the one before

# What a rank may be doing: the keys of the group hang, each of which says how long that may stay without a sign.
STARTING = "starting"  # until its libraries are loaded
DATA = "data"
LOADING = "loading"
COMPILING = "compiling"  # the first step, which compiles kernels and makes the optimizer's states
TRAINING = "training"
EVALUATION = "evaluation"
GENERATION = "generation"
SAVING = "saving"
PHASES = (STARTING, DATA, LOADING, COMPILING, TRAINING, EVALUATION, GENERATION, SAVING)


@dataclass(frozen=True)
class Sign:
    pid: int
    start: int  # of the process, as in conf.processes.Identity
    phase: str
    step: int  # the last one that was finished
    moves: int  # steps, parts of steps and batches of evaluations so far: the rank gets on
    beats: int  # the process runs
    place: int = 0  # of the call in which its main thread waits for other ranks; 0: it does something else

    @property
    def process(self) -> Identity:
        return Identity(self.pid, self.start)


def as_record(sign: Sign) -> bytes:
    return json.dumps(asdict(sign)).encode().ljust(RECORD_BYTES)


def read_sign(path: Path) -> Sign | None:
    """What a rank wrote last; None where there is nothing whole yet."""
    try:
        sign = Sign(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    numbers = (sign.pid, sign.start, sign.step, sign.moves, sign.beats, sign.place)
    return sign if all(map(is_whole, numbers)) and sign.phase in PHASES else None
