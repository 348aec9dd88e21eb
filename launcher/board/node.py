"""The page of this machine: who uses which GPU, what waits in the queue and why, and what Slurm says of the runs that are its jobs."""

import os
import pwd
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from conf.run_dir import RunDir
from conf.signs import read_sign
from launcher.board import actions
from launcher.board.board import Act, Board, Read, page, result
from launcher.board.index import id_of, odd_files
from launcher.errors import ConfigError
from launcher.facts.gpu_load import Load, gpu_loads
from launcher.facts.host_memory import host_memory
from launcher.facts.node import Gpu, visible_gpus
from launcher.launch.places import places
from launcher.launch.status import ACTIVE, RunStatus, shortest
from launcher.queue.entries import Entry, queue_dir
from launcher.words import age, gib

QUEUE_ACTIONS = ("remove", "first")
LONGEST_NUMBER = 9  # digits


@dataclass(frozen=True)
class Rank:
    """A living process of a run of this board, on this machine."""

    run: str  # the run's id
    name: str
    number: int
    pid: int
    phase: str  # one of conf.signs.PHASES
    gpus: tuple[int, ...] = ()  # on which the driver sees it


@dataclass(frozen=True)
class User:
    """A process that holds memory of a GPU."""

    text: str  # as the driver has it
    whose: str  # the user; empty where this process cannot see it
    rank: Rank | None


@dataclass(frozen=True)
class GpuRow:
    name: str
    used: str
    total: str
    percent: int
    load: Load
    users: tuple[User, ...]


@dataclass(frozen=True)
class QueueRow:
    number: int
    state: str
    first: bool
    gpus: str
    run: str
    id: str  # of its run; empty while it has none here
    age: str
    why: str
    actions: tuple[tuple[str, str], ...]  # name and command


def node(board: Board, request: Request) -> Response:
    return page(request, "node.html.j2", **now_of(board))


def node_now(board: Board, request: Request) -> Response:
    return page(request, "node_now.html.j2", **now_of(board))


def now_of(board: Board) -> dict[str, Any]:
    statuses = board.index.statuses(board.index.all())
    running = [now for now in statuses if now.state in ACTIVE and not odd_files(now.run_dir)]
    gpus, notes = seen_gpus()
    ranks = [rank for now in running for rank in ranks_of(now.run_dir, gpus)]
    loads, by_pid = (gpu_loads() if gpus else {}), {rank.pid: rank for rank in ranks}
    return {
        "node": board.node,
        "gpus": [gpu_row(gpu, loads.get(gpu.index, Load(None, None, None)), by_pid) for gpu in gpus],
        "notes": notes,
        "ranks": ranks,
        "disks": disks(board.output),
        "host_memory": gib(host_memory(Path("/"))[0]),
        "jobs": [job_row(now) for now in statuses if now.job is not None],
        **queue_now({now.run_dir.path.absolute() for now in statuses}),
    }


def seen_gpus() -> tuple[Sequence[Gpu], Sequence[str]]:
    """The GPUs that this process sees, and what the driver says besides."""
    try:
        return visible_gpus()
    except ConfigError as error:
        return (), [str(error)]


def ranks_of(run_dir: RunDir, gpus: Sequence[Gpu]) -> list[Rank]:
    """Those whose sign of life is that of a process of this machine."""
    files = [path for path in run_dir.signs.glob("rank-*.json") if path.stem.removeprefix("rank-").isdecimal()]
    signs = {int(path.stem.removeprefix("rank-")): read_sign(path) for path in files}
    name = f"{run_dir.path.parent.name}/{run_dir.path.name}"
    return [
        Rank(id_of(run_dir), name, number, sign.pid, sign.phase, tuple(gpu.index for gpu in gpus if sign.pid in gpu.pids))
        for number, sign in sorted(signs.items(), key=lambda pair: pair[0])
        if sign is not None and sign.process.lives()
    ]


def gpu_row(gpu: Gpu, load: Load, by_pid: Mapping[int, Rank]) -> GpuRow:
    users = [User(text, owner_of(pid), by_pid.get(pid)) for text, pid in zip(gpu.users, gpu.pids, strict=True)]
    used = gpu.total - gpu.free
    return GpuRow(f"{gpu.index} · {gpu.name}", gib(used), gib(gpu.total), round(100 * used / gpu.total), load, tuple(users))


def owner_of(pid: int) -> str:
    try:
        return pwd.getpwuid(Path(f"/proc/{pid}").stat().st_uid).pw_name
    except (OSError, KeyError):
        return ""


def disks(output: Path | None) -> list[tuple[str, str, str]]:
    """Folder, free and total of each place that runs are in."""
    found = [(place, shutil.disk_usage(place)) for place in places(output) if place.is_dir()]
    return [(shortest(place.absolute()), gib(usage.free), gib(usage.total)) for place, usage in found]


def job_row(now: RunStatus) -> dict[str, str]:
    name = f"{now.run_dir.path.parent.name}/{now.run_dir.path.name}"
    return {"id": id_of(now.run_dir), "name": name, "state": now.state, "words": now.message}


def queue_now(known: set[Path]) -> dict[str, Any]:
    from launcher.queue.standing import standing  # Hydra comes with it, and the first page is faster without

    now = standing(queue_dir(os.environ))
    running = [entry for entry in now.entries if entry.state == "running"]
    over = [entry for entry in now.entries if entry.state not in ("waiting", "running")]
    ordered = [*running, *now.waiting, *reversed(over)]
    serve = actions.command_of(["queue"]) if now.neglected else ""
    return {"queue": [queue_row(entry, now.words(entry), known) for entry in ordered], "serve": serve}


def queue_row(entry: Entry, why: str, known: set[Path]) -> QueueRow:
    run_dir = entry.run_dir
    shown = run_dir is not None and run_dir.path in known
    words = {name: ["queue", name, str(entry.number)] for name in QUEUE_ACTIONS if entry.state == "waiting" and not (name == "first" and entry.first)}
    return QueueRow(
        entry.number,
        entry.state,
        entry.first,
        ", ".join(entry.on) if entry.state == "running" and entry.on else str(entry.gpus or "CPU"),
        " ".join(entry.overrides) if run_dir is None else shortest(run_dir.path),
        id_of(run_dir) if run_dir is not None and shown else "",
        age(time.time() - entry.changed),
        why,
        tuple((name, actions.command_of(each)) for name, each in words.items()),
    )


def act_on_queue(board: Board, request: Request, _: dict[str, Any]) -> Response:
    """The command decides whether the entry waits still."""
    action, number = request.path_params["action"], request.path_params["number"]
    if action not in QUEUE_ACTIONS or not (number.isascii() and number.isdecimal() and len(number) <= LONGEST_NUMBER):
        raise HTTPException(404, "There is no such action.")
    return result(actions.run(["queue", action, number], board.folder))


def serve_queue(board: Board, _: Request, __: dict[str, Any]) -> Response:
    """`regimen queue`, which starts a scheduler where none is at work."""
    return result(actions.run(["queue"], board.folder))


READS: dict[str, Read] = {"/node": node, "/node/now": node_now}
ACTS: dict[str, Act] = {"/queue/serve": serve_queue, "/queue/{number}/{action}": act_on_queue}
