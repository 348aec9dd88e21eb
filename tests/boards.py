"""A real board as a process, and requests to it as any program can make them."""

import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.waiting import PATIENCE

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str


@dataclass(frozen=True)
class Running:
    """A board that listens on a port of this machine."""

    process: "subprocess.Popen[str]"
    address: str
    token: str
    folder: Path
    options: tuple[str, ...] = ()

    def at(self, port: int) -> "Running":
        """The same board, asked directly where its address is that of a proxy."""
        return replace(self, address=f"http://127.0.0.1:{port}")

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1].rstrip("/"))

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str | None) -> Answer:
        """One request with the token; a header that is None is left out, and one that is given replaces the usual one."""
        usual = {"Host": f"127.0.0.1:{self.port}", "Authorization": f"Bearer {self.token}"}
        sent = {**usual, **{name.replace("_", "-"): value for name, value in headers.items()}}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in sent.items():
            if value is not None:
                connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", errors="replace")
        connection.close()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, text)

    def get(self, path: str, **headers: str | None) -> Answer:
        return self.send("GET", path, **headers)

    def post(self, path: str, values: Any = None, **headers: str | None) -> Answer:
        return self.send("POST", path, json.dumps(values or {}).encode(), **{"Content_Type": "application/json", **headers})


def without_free_disk(plan: str) -> str:
    """A plan without what the disk has free, which others change between two plans; its sentence may break there."""
    return re.sub(r"[\d.]+\s+[GM]iB\s+is\s+free", "FREE", plan)


def environment(folder: Path, **site: str) -> dict[str, str]:
    """Of a board whose socket and token are its test's own; not that of a session over ssh."""
    kept = {name: value for name, value in os.environ.items() if name != "SSH_CONNECTION"}
    paths = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    return {**kept, "XDG_RUNTIME_DIR": str(folder), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **site}


def call_beside(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """The command line in the folder and the environment of a board."""
    argv, site = (sys.executable, "-m", "launcher", *words), environment(folder / ".runtime")
    return subprocess.run(argv, cwd=folder, env=site, capture_output=True, text=True, timeout=PATIENCE, check=False)


@contextmanager
def board(folder: Path, *options: str, **site: str) -> Iterator[Running]:
    """`regimen board` in a working folder; asked to end afterwards."""
    runtime = folder / ".runtime"
    runtime.mkdir(mode=0o700, exist_ok=True)
    argv = (sys.executable, "-m", "launcher", "board", *options)
    errors = (runtime / "errors.txt").open("w+", encoding="utf-8")  # a pipe that nobody reads would stop who writes into it
    site_of_board = environment(runtime, **site)
    with errors, subprocess.Popen(argv, cwd=folder, env=site_of_board, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline().strip() for _ in range(2)]
            assert process.poll() is None, (runtime / "errors.txt").read_text()
            address, _, token = lines[1].partition("#token=")
            yield Running(process, address.rstrip("/"), token, folder, options)
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)
            print((runtime / "errors.txt").read_text(), file=sys.stderr)  # shown by pytest where the test has failed
