"""Stands for a node's agent and its one rank, with their protocol: it says where it runs, obeys the stop file, saves, and ends as asked.

    python stand_in.py BEHAVIOUR --node-rank=N --master-addr=HEAD --master-port=PORT RUN_FOLDER

finish: ends at once. fail: node 1 runs out of memory while the others train. train:SECONDS: trains until it is asked to stop, and takes that long to
save; started again, it finishes. As with ranks that average gradients, nobody saves without the others.
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

behaviour, node_rank, head, port, folder = sys.argv[1], *(word.partition("=")[2] for word in sys.argv[2:5]), Path(sys.argv[5])
behaviour, _, seconds = behaviour.partition(":")
ignored = signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
found = {"host": socket.gethostname(), "head": head, "port": port, "pid": os.getpid(), "ignores_sigterm": ignored, "variables": sorted(os.environ)}
(folder / f"node-{node_rank}.json").write_text(json.dumps(found))


def leave(code: int) -> None:
    (folder / "exit").mkdir(exist_ok=True)
    (folder / f"exit/rank-{node_rank}.json").write_text(json.dumps({"rank": int(node_rank), "code": code, "message": "as told", "time": time.time()}))


def begins() -> bool:
    return (folder / "journal.jsonl").read_text().count('"start"') == 1


def train() -> None:
    (folder / f"trains-{node_rank}").write_text(str(os.getpid()))
    while not (folder / "stop").exists():
        time.sleep(0.1)
    if any(lost(peer) for peer in folder.glob("trains-*")):
        leave(76)
        raise SystemExit(1)


def lost(peer: Path) -> bool:
    left = (folder / f"exit/rank-{peer.name.removeprefix('trains-')}.json").exists()
    return not Path(f"/proc/{peer.read_text()}").exists() and not left


def save() -> None:
    """As trainers/checkpoints/commit.py journals it: rank 0, and once."""
    time.sleep(float(seconds))
    if node_rank == "0":
        with (folder / "journal.jsonl").open("a") as journal:
            journal.write(json.dumps({"time": time.time(), "event": "commit", "step": 5, "size": 1, "seconds": 0.1}) + "\n")


if behaviour == "fail" and node_rank == "1":
    leave(80)
    raise SystemExit(1)
if behaviour == "fail" or (behaviour == "train" and begins()):
    train()
    save()
    leave(75)
else:
    leave(0)
