"""Stands for a node's agent: says where it runs, then ends as it is told to."""

import json
import socket
import sys
import time
from pathlib import Path

behaviour, node_rank, head, port, folder = sys.argv[1], *(word.partition("=")[2] for word in sys.argv[2:5]), Path(sys.argv[5])
(folder / f"node-{node_rank}.json").write_text(json.dumps({"host": socket.gethostname(), "head": head, "port": port}))


def leave(code: int) -> None:
    (folder / "exit").mkdir(exist_ok=True)
    (folder / f"exit/rank-{node_rank}.json").write_text(json.dumps({"rank": int(node_rank), "code": code, "message": "as told", "time": time.time()}))


if behaviour == "fail" and node_rank == "1":
    leave(80)
    raise SystemExit(6)
if behaviour == "fail":
    time.sleep(36000)
leave(0)
