"""Stands for a node's agent: says where it runs, then ends as it is told to."""

import json
import os
import socket
import sys
import time
from pathlib import Path

behaviour, node_rank, head, port, folder = sys.argv[1], *(word.partition("=")[2] for word in sys.argv[2:5]), Path(sys.argv[5])
restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
said = {"host": socket.gethostname(), "head": head, "port": port, "pid": os.getpid()}
(folder / f"node-{node_rank}-{restarts}.json").write_text(json.dumps(said))
print(f"agent {node_rank} start {restarts}", flush=True)


def leave(code: int) -> None:
    (folder / "exit").mkdir(exist_ok=True)
    (folder / f"exit/rank-{node_rank}.json").write_text(json.dumps({"rank": int(node_rank), "code": code, "message": "as told", "time": time.time()}))


if behaviour == "save" and restarts == 0:
    while not (folder / "stop").exists():
        time.sleep(0.05)
    leave(75)
    time.sleep(1)  # both nodes have left their files before the first agent ends
    raise SystemExit(1)  # as torchrun does, whatever its workers' code
if behaviour == "fail" and node_rank == "1":
    leave(80)
    raise SystemExit(6)
if behaviour == "fail":
    time.sleep(600)
leave(0)
