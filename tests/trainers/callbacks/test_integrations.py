"""MLflow, SwanLab, Trackio and Comet with their real libraries: several at once, offline, through a resume, with a server that fails."""

import json
import os
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from conf.run_dir import RunDir
from conf.trackers import TRACKERS
from tests.waiting import PATIENCE

NEW = ("mlflow", "swanlab", "trackio", "comet")
ABSENT = [name for name in NEW if find_spec(TRACKERS[name].module) is None]
pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(ABSENT), reason=f"these are extras, and not installed: {', '.join(ABSENT)}")]

# One start of a run whose trackers are named: 5 steps from the given one on. Prints what is still at work at the end.
START = """
import json, os, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

folder, names, first, behaviour, seconds = Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3]), sys.argv[4], float(sys.argv[5])


class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        if behaviour == "hangs":
            threading.Event().wait()
        self.send_response(401 if behaviour == "refuses" else 500)
        self.end_headers()

    do_GET = do_PUT = do_POST

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
if behaviour != "is not asked":
    url = f"http://127.0.0.1:{server.server_address[1]}"
    os.environ.update(MLFLOW_TRACKING_URI=url, SWANLAB_API_HOST=url, SWANLAB_WEB_HOST=url, COMET_URL_OVERRIDE=url, TRACKIO_SERVER_URL=url)

from transformers import TrainerControl, TrainerState
from conf.run_dir import RunDir
from tests.described import described
from trainers.callbacks.integrations import trackers_of

folder.mkdir(parents=True, exist_ok=True)
also = [f"tracking.also=[{','.join(names[1:])}]"] if names[1:] else []
run = described("model=demo", "data=demo", "node=cpu", f"tracking={names[0]}", *also)
trackers = trackers_of(run, RunDir(folder))
for tracker in trackers:
    tracker.answer_seconds = tracker.finish_seconds = seconds
    tracker.on_train_begin(None, TrainerState(), TrainerControl())
for step in range(first, first + 5):
    for tracker in trackers:
        tracker.on_log(None, TrainerState(global_step=step), TrainerControl(), {"loss": 1.0 / (step + 1)})
for tracker in trackers:
    tracker.on_train_end(None, TrainerState(), TrainerControl())
print(json.dumps({"alive": [tracker.name for tracker in trackers if tracker.thread.is_alive()]}), flush=True)
os._exit(0)
"""
KEYS = {"SWANLAB_API_KEY": "k" * 21, "COMET_API_KEY": "k" * 25, "MLFLOW_TRACKING_TOKEN": "k" * 22}


def started(folder: Path, names: tuple[str, ...], first: int, behaviour: str, seconds: float, **environment: str) -> Mapping[str, Any]:
    site = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "SWANLAB", "TRACKIO", "COMET"))}
    argv = [sys.executable, "-c", START, str(folder), ",".join(names), str(first), behaviour, str(seconds)]
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}  # it finds what this test has found
    home = {"HOME": str(folder.parent), "COMET_CONFIG": str(folder.parent / "comet.config")}
    done = subprocess.run(
        argv, env={**site, **paths, **home, **environment}, capture_output=True, text=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"alive"')))
    return answer


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(database) as opened:
        return opened.execute(query).fetchall()


def in_comet(archive: Path) -> str:
    with zipfile.ZipFile(archive) as opened:
        return "\n".join(opened.read(name).decode("utf-8", "replace") for name in opened.namelist())


def test_four_at_once_keep_one_run_through_a_resume_and_need_no_network(tmp_path: Path) -> None:
    folder, offline = tmp_path / "runs" / "1", {"SWANLAB_MODE": "offline", "COMET_START_ONLINE": "0"}
    for first in (0, 5):
        assert started(folder, NEW, first, "is not asked", PATIENCE, **offline, **KEYS) == {"alive": []}
    kept, run_dir = RunDir(folder).tracking, RunDir(folder)
    assert not run_dir.notes.exists()  # nothing had to be said

    steps = rows(kept / "mlflow.db", "select run_uuid, step, value from metrics where key = 'loss' order by step")
    assert [(step, value) for _, step, value in steps] == [(step, 1 / (step + 1)) for step in range(10)]
    assert {run for run, _, _ in steps} == {run_dir.tracked("mlflow").read_text().strip()}
    assert ("optim.lr",) in rows(kept / "mlflow.db", "select key from params")

    [database] = (kept / "trackio").glob("*.db")
    logged = rows(database, "select run_id, metrics from metrics order by id")
    assert [json.loads(text)["train/global_step"] for _, text in logged] == list(range(10))
    assert len({run for run, _ in logged}) == 1

    swanlab = sorted((kept / "swanlab").glob("run-*"))
    known = run_dir.tracked("swanlab").read_text().strip()
    assert len(swanlab) == 2
    assert all(any(known.encode() in path.read_bytes() for path in run.rglob("*") if path.is_file()) for run in swanlab)
    assert all(any(b"train/loss" in path.read_bytes() for path in run.rglob("*") if path.is_file()) for run in swanlab)

    archives = sorted((kept / "comet").glob("*.zip"))
    known = run_dir.tracked("comet").read_text().strip()
    assert len(archives) == 2
    assert all(known in archive.name and "loss" in in_comet(archive) for archive in archives)
    assert not any("diff --git" in in_comet(archive) for archive in archives)  # nobody asked for the working folder

    everything = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file()) + "".join(map(in_comet, archives)).encode()
    assert not [name for name, key in KEYS.items() if key.encode() in everything]


@pytest.mark.parametrize("behaviour", ["refuses", "fails", "hangs"])
def test_whatever_a_server_does_the_run_ends_well(behaviour: str, tmp_path: Path) -> None:
    """Each is waited for four seconds at the end, and whoever has not answered by then is named."""
    folder, names = tmp_path / "runs" / "1", ("mlflow", "swanlab", "comet")
    started(folder, names, 0, behaviour, 2.0, **KEYS)
    told = RunDir(folder).notes.read_text()
    assert [name for name in names if f"WARNING: tracking={name}: " not in told] == []
    assert not [name for name, key in KEYS.items() if key in told]


def test_without_a_key_metrics_are_kept_on_disk_and_the_command_that_sends_them_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "1"
    assert started(folder, ("swanlab", "comet"), 0, "refuses", PATIENCE) == {"alive": []}
    told = RunDir(folder).notes.read_text()
    assert f"Send them later with: swanlab sync {RunDir(folder).tracking / 'swanlab'}/run-*" in told
    assert f"Send them later with: comet upload {RunDir(folder).tracking / 'comet'}/*.zip" in told
    assert list((RunDir(folder).tracking / "swanlab").glob("run-*"))
    assert list((RunDir(folder).tracking / "comet").glob("*.zip"))
