"""A server of Weights & Biases that refuses, fails or never answers: real HTTP, the real library, and a run that does not notice."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conf.run_dir import RunDir
from tests.waiting import PATIENCE
from trainers.callbacks.tracking import tracked_id

pytest.importorskip("wandb", reason="wandb is an extra")

# Starts of a run, one after another, against a server that behaves as named; prints for each what a user would see and what the server was asked.
START = """
import json, os, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

behaviour, folder, starts, answer_seconds, finish_seconds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5])
asked, ending = [], threading.Event()
answers = behaviour.endswith(" at the end")  # until then it takes what it is sent
PROJECT = {"id": "cA==", "name": "p", "entity": {"id": "ZQ==", "name": "e"}}
RUN = {"id": "cg==", "name": "run", "displayName": "run", "config": "{}", "sweepName": "", "project": PROJECT, "historyLineCount": 0}


class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        asked.append(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode(errors="replace"))
        if answers and not ending.is_set() and "CreateRunFiles" not in asked[-1]:  # it keeps no files of a run
            return self.answer({"data": {"upsertBucket": {"bucket": RUN, "inserted": True}, "viewer": {"id": "dQ==", "entity": "e", "flags": "{}"}}})
        if behaviour.startswith("hangs"):
            threading.Event().wait()
        self.send_response(401 if behaviour == "refuses" else 500)
        self.end_headers()

    def answer(self, values):
        text = json.dumps(values).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
port = server.server_address[1]
if behaviour == "is gone":
    server.server_close()
else:
    threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ.update(WANDB_BASE_URL=f"http://127.0.0.1:{port}", WANDB_API_KEY="0" * 40, WANDB_ERROR_REPORTING="false")

from transformers import TrainerControl, TrainerState
from conf.run_dir import RunDir
from tests.described import described
from trainers.callbacks.tracking import Wandb

run_dir = RunDir(folder)
run = described("model=demo", "data=demo", "node=cpu", "tracking=wandb")
for start in range(starts):
    if start:
        time.sleep(1.5)  # the library names a folder by the second in which it began
    asked.clear()
    tracker = Wandb(run, run_dir, answer_seconds=answer_seconds, finish_seconds=finish_seconds)
    tracker.on_train_begin(None, TrainerState(), TrainerControl())
    for step in range(200):
        tracker.on_log(None, TrainerState(global_step=step), TrainerControl(), {"loss": 1.0})
    waiting = tracker.work.qsize()  # the library has taken none yet, or some: the training did not wait for it
    if answers:
        tracker.begun.wait()
    ending.set()
    tracker.on_train_end(None, TrainerState(), TrainerControl())
    print(json.dumps({"asked": asked, "waiting": waiting, "alive": tracker.thread.is_alive()}), flush=True)
os._exit(0)
"""


def started(behaviour: str, folder: Path, answer_seconds: float, starts: int = 1, finish_seconds: float = PATIENCE) -> list[dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    argv = [sys.executable, "-c", START, behaviour, str(folder), str(starts), str(answer_seconds), str(finish_seconds)]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(answers) == starts, done.stdout
    return answers


def told(folder: Path) -> list[str]:
    return RunDir(folder).notes.read_text().splitlines()


def test_a_server_that_refuses_is_said_once_and_the_metrics_are_kept(tmp_path: Path) -> None:
    """It refuses, which is known as soon as it answers. The second start is a resume: it asks for the same run."""
    first, second = started("refuses", tmp_path, PATIENCE, starts=2)
    for start in (first, second):
        assert not start["alive"]
        assert start["waiting"] > 0
    warnings = told(tmp_path)
    assert len(warnings) == 2
    assert all(line.startswith("WARNING: tracking=wandb: ") and "The metrics are kept on disk." in line for line in warnings)
    known = RunDir(tmp_path).tracked("wandb").read_text().strip()
    assert [any(known in question for question in start["asked"]) for start in (first, second)] == [True, True]
    kept = list((tmp_path / "wandb").glob(f"offline-run-*-{known}/run-{known}.wandb"))
    assert len(kept) == 2
    assert all(b"train/loss" in path.read_bytes() for path in kept)


@pytest.mark.long
@pytest.mark.parametrize("behaviour", ["is gone", "fails", "hangs"])
def test_whatever_the_server_does_the_run_ends_well(behaviour: str, tmp_path: Path) -> None:
    """It counts as absent after two seconds, in which it may or may not have been asked."""
    [start] = started(behaviour, tmp_path, 2.0)
    assert not start["alive"]
    assert told(tmp_path)[0].startswith("WARNING: tracking=wandb: ")


@pytest.mark.long
@pytest.mark.parametrize("behaviour", ["fails at the end", "hangs at the end"])
def test_a_server_that_is_lost_at_the_end_is_not_waited_for(behaviour: str, tmp_path: Path) -> None:
    """It has taken the run and its metrics until then. What it did not take is on disk."""
    [start] = started(behaviour, tmp_path, PATIENCE, finish_seconds=3.0)
    assert any("UpsertBucket" in question for question in start["asked"])
    [warning] = told(tmp_path)
    assert "the server did not take everything within 3 s after the training. Send them later with: wandb sync" in warning
    assert list((tmp_path / "wandb").glob("run-*/run-*.wandb"))


def test_a_missing_key_is_told_before_training(tmp_path: Path) -> None:
    script = "from tests.described import described\nfrom conf.run_dir import RunDir\nfrom pathlib import Path\nimport sys\n"
    script += "from trainers.callbacks.tracking import Wandb\nfrom trainers.ranks.causes import cause_of\n"
    script += "try:\n    Wandb(described('model=demo', 'data=demo', 'node=cpu', 'tracking=wandb'), RunDir(Path(sys.argv[1])))\n"
    script += "except Exception as error:\n    print(*cause_of(error))\n"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout.splitlines()[-1].startswith("2 tracking=wandb: No API key configured. Set WANDB_API_KEY, or WANDB_MODE=offline")


def test_the_id_stays_with_the_run_and_the_users_own_comes_first(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run")
    run_dir.path.mkdir()
    made = tracked_id(run_dir, {})
    assert tracked_id(run_dir, {}) == made
    moved = run_dir.path.rename(tmp_path / "elsewhere")
    assert tracked_id(RunDir(moved), {}) == made
    assert tracked_id(RunDir(moved), {"WANDB_RUN_ID": "mine"}) == "mine"
