"""The same job started directly as `torchrun ... -m launcher train ...`: the one reader of torchrun's variables.

Rank 0 composes, judges and publishes the run folder or the refusal through files in the output folder; every rank then becomes a trainer.
"""

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from conf.exit_codes import BUG
from conf.processes import process_start
from conf.run_dir import RunDir, write_text_atomically
from launcher.errors import BY_EXIT_CODE, ConfigError, RanksFailed, RegimenError

WAIT_SECONDS = 600.0  # rank 0 composes within a second; a file system between nodes may need long to show a file
POLL_SECONDS = 0.05
NOTHING_TO_DO = ""  # in place of a run folder: the run was refused, or is finished


@dataclass(frozen=True)
class Rank:
    rank: int
    world: int
    ranks_per_node: int
    job: str  # the same on all ranks of a job and on its restarts
    restart: int
    unique: bool  # whether `job` was given by the user or made by torchrun, and so names only this job
    agent: str  # identity of the agent process of this rank

    @property
    def nodes(self) -> int:
        return self.world // self.ranks_per_node


MARKS = ("TORCHELASTIC_RUN_ID", "LOCAL_RANK")  # Slurm and MPI set RANK and WORLD_SIZE too, and torchrun alone sets both of these
TEXTS = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT")
NUMBERS = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1, "TORCHELASTIC_RESTART_COUNT": 0}  # and the least that each can be


def started_by_torchrun(environment: Mapping[str, str]) -> Rank | None:
    """This process's place in a job that a user started; None for an ordinary start.

    Raises:
        ConfigError: where some of torchrun's variables are missing, or are not what torchrun sets.
    """
    if not all(mark in environment for mark in MARKS):
        return None
    refuse_half_set(environment)
    run_id = environment["TORCHELASTIC_RUN_ID"]
    address = f"{environment['MASTER_ADDR']}-{environment['MASTER_PORT']}"
    unique = run_id != "none"
    agent = os.getppid()
    return Rank(
        rank=int(environment["RANK"]),
        world=int(environment["WORLD_SIZE"]),
        ranks_per_node=int(environment["LOCAL_WORLD_SIZE"]),
        job="".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in (run_id if unique else address)),
        restart=int(environment["TORCHELASTIC_RESTART_COUNT"]),
        unique=unique,
        agent=f"{socket.gethostname()}:{agent}:{process_start(agent)}",
    )


def refuse_half_set(environment: Mapping[str, str]) -> None:
    missing = [name for name in (*TEXTS, *NUMBERS) if not environment.get(name)]
    odd = [f"{name}={environment[name]}" for name, least in NUMBERS.items() if name not in missing and not is_count(environment[name], least)]
    if not missing and not odd:
        counts = {name: int(environment[name]) for name in NUMBERS}
        pairs = (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
        odd = [f"{rank}={counts[rank]} with {ranks}={counts[ranks]}" for rank, ranks in pairs if counts[rank] >= counts[ranks]]
        if counts["WORLD_SIZE"] % counts["LOCAL_WORLD_SIZE"]:
            odd.append(f"WORLD_SIZE={counts['WORLD_SIZE']} with LOCAL_WORLD_SIZE={counts['LOCAL_WORLD_SIZE']}")
    if missing or odd:
        wrong = [
            *([f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set"] if missing else []),
            *(f"{text} is wrong" for text in odd),
        ]
        raise ConfigError(
            f"{' and '.join(MARKS)} are set in the environment, as torchrun sets them for a rank, but {'; '.join(wrong)}. "
            f"For an ordinary start remove these variables: unset {' '.join(MARKS)}. For a rank of your own job, start it with torchrun."
        )


def is_count(text: str, least: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= least


def meeting_place(output: Path, job: str) -> Path:
    return output / ".torchrun" / job


@dataclass(frozen=True)
class Answer:
    """What rank 0 sends to the others; `asked` are the questions that it answers, so that an old answer never counts as a new one."""

    run_folder: str
    exit_code: int
    asked: tuple[str, ...]


def earlier_run(rank: Rank, place: Path) -> Path | None:
    """The folder of the same job before an elastic restart; None for a first start, also under the id of a job that has finished.

    torchrun's restart count stays 0 when only the membership changed, so the agent's identity counts too.
    """
    record = place / "run.json"
    if not record.is_file():
        return None
    before = json.loads(record.read_text(encoding="utf-8"))
    same = rank.unique or before["agent"] == rank.agent or rank.restart > 0
    folder = Path(before["run_folder"])
    return folder if same and folder.is_dir() and not RunDir(folder).model.exists() else None


def remember(rank: Rank, place: Path, run_folder: Path) -> None:
    write_text_atomically(place / "run.json", json.dumps({"run_folder": str(run_folder), "agent": rank.agent}))


def publish(rank: Rank, place: Path, run_folder: str, exit_code: int) -> None:
    """Rank 0: answer every other rank, and leave once each has acknowledged.

    Raises:
        RanksFailed: when a rank never asks.
    """
    for stale in [*place.glob("got-*"), place / "answer.json"]:  # nobody can have acknowledged yet: a crashed job left these
        stale.unlink(missing_ok=True)
    deadline = time.monotonic() + WAIT_SECONDS
    acknowledged: set[int] = set()
    published: tuple[str, ...] | None = None
    while len(acknowledged) < rank.world - 1:
        asked = {other: read(place / f"ask-{other}") for other in range(1, rank.world)}
        questions = tuple(question for question in asked.values() if question)
        if questions != published:
            published = questions
            write_text_atomically(place / "answer.json", json.dumps(asdict(Answer(run_folder, exit_code, questions))))
        acknowledged = {other for other, question in asked.items() if question and read(place / f"got-{other}") == question}
        if time.monotonic() > deadline:
            missing = sorted(set(range(1, rank.world)) - acknowledged)
            raise RanksFailed(
                f"Ranks {missing} did not come to {place} within {WAIT_SECONDS:.0f} s. Set output= to a folder on a file system that all nodes share."
            )
        time.sleep(POLL_SECONDS)
    for leftover in [*place.glob("ask-*"), *place.glob("got-*"), place / "answer.json"]:
        leftover.unlink(missing_ok=True)


def ask(rank: Rank, place: Path) -> Answer:
    """Any other rank: ask, and wait for the answer to this question.

    Raises:
        RanksFailed: when rank 0 does not answer.
    """
    place.mkdir(parents=True, exist_ok=True)
    question = os.urandom(8).hex()
    write_text_atomically(place / f"ask-{rank.rank}", question)
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        text = read(place / "answer.json")
        if text:
            answer = Answer(**json.loads(text))
            if question in answer.asked:
                write_text_atomically(place / f"got-{rank.rank}", question)
                return answer
        time.sleep(POLL_SECONDS)
    raise RanksFailed(
        f"Rank 0 published no run folder in {place} within {WAIT_SECONDS:.0f} s. Set output= to a folder on a file system that all nodes share."
    )


def read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


class RefusedByRankZero(RegimenError):
    """Rank 0 has printed why; the others end with the same code and print nothing."""


def raise_refusal(exit_code: int) -> NoReturn:
    error = RefusedByRankZero("")
    error.exit_code = exit_code if exit_code in BY_EXIT_CODE else BUG
    raise error
