"""Questions to the process that composes and judges (launcher/board/worker.py): one at a time, each with a limit of time."""

import json
import os
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from launcher.board.actions import entry
from launcher.errors import ConfigError, RegimenError

SECONDS = 180.0  # a family without a table is traced at its first plan


class WorkerEnded(RegimenError):
    """A bug: the process says why on the board's terminal."""


@dataclass
class Judge:
    folder: Path  # in which the overrides are read
    roots: tuple[Path, ...]
    seconds: float = SECONDS
    process: "subprocess.Popen[bytes] | None" = None
    lock: Lock = field(default_factory=Lock)

    def ask(self, what: str, **question: Any) -> dict[str, Any]:
        """The answer to one question.

        Raises:
            ConfigError: where it takes too long; the process is ended, and the next question starts another.
            WorkerEnded: where the process has ended without an answer.
        """
        line = json.dumps({"ask": what, "roots": [str(root) for root in self.roots], **question}).encode() + b"\n"
        with self.lock:
            process = self.living()
            assert process.stdin is not None
            try:
                process.stdin.write(line)
                process.stdin.flush()
                said = self.read_line(process)
            except BrokenPipeError:
                said = b""
            if not said:
                self.end()
                raise WorkerEnded("This is a bug in regimen. The board's terminal has the traceback. Please report it.")
        found: dict[str, Any] = json.loads(said)
        return found

    def living(self) -> "subprocess.Popen[bytes]":
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                entry("launcher.board.worker"), cwd=self.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
        return self.process

    def read_line(self, process: "subprocess.Popen[bytes]") -> bytes:
        assert process.stdout is not None
        until, said = time.monotonic() + self.seconds, b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not said.endswith(b"\n"):
                if not selector.select(max(0.0, until - time.monotonic())):
                    self.end()
                    raise ConfigError(f"The plan took longer than {self.seconds:g} s. Run `regimen plan` on the command line, which waits for it.")
                part = os.read(process.stdout.fileno(), 2**16)
                if not part:
                    return b""
                said += part
        return said

    def end(self) -> None:
        """With what the process has started, such as a trace of layers: they are a session of their own."""
        if self.process is not None:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()
            self.process = None
