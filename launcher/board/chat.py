"""Questions to the model of a run: `regimen chat RUN` as a process, whose answers reach the page while they are written."""

import codecs
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from conf.run_dir import RunDir
from conf.secrets import masked
from launcher.board import actions
from launcher.board.board import Act, Board
from launcher.board.files import visible
from launcher.board.index import odd_files
from launcher.errors import ConfigError

LONGEST = 10_000  # characters of all questions of one conversation
PART = 4096  # bytes of an answer that are read at once


def words_of_chat(run_dir: RunDir) -> list[str]:
    return ["chat", str(run_dir.path.absolute())]


def chat(board: Board, request: Request, values: dict[str, Any]) -> Response:
    """One conversation, a question a line; a page that is closed ends it."""
    run_dir = board.index.run(request.path_params["id"])
    if odd_files(run_dir):
        raise ConfigError(odd_files(run_dir))
    lines = values.get("lines")
    if not isinstance(lines, str) or not lines.strip() or len(lines) > LONGEST:
        raise ConfigError(f"Write from one to {LONGEST:,} characters; each line is a question.")
    board.starts.count()
    words = words_of_chat(run_dir)
    print(actions.command_of(words), flush=True)
    process = actions.started(words, board.folder, subprocess.PIPE, subprocess.STDOUT, subprocess.PIPE)
    return StreamingResponse(answers(process, lines), media_type="text/plain; charset=utf-8")


def answers(process: "subprocess.Popen[str]", lines: str) -> Iterator[str]:
    """What the process says as it comes, and its exit code where that is not 0."""
    assert process.stdin is not None
    assert process.stdout is not None
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    try:
        process.stdin.write(lines.rstrip("\n") + "\n")
        process.stdin.close()
        while part := os.read(process.stdout.fileno(), PART):
            yield masked(visible(decoder.decode(part)))
        code = process.wait()
        if code:
            yield f"\n(exit code {code})"
    except BrokenPipeError:  # it has ended before it read a question
        yield f"(exit code {process.wait()})"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
        process.stdout.close()


ACTS: dict[str, Act] = {"/runs/{id}/chat": chat}
