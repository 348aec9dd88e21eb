"""The verb board: take an address, say how to reach it, and answer until the user ends it."""

import getpass
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from launcher.board import address
from launcher.errors import ConfigError

MOST_AT_ONCE = 64  # requests


def serve(output: Path | None, roots: Sequence[Path], port: int | None, path: Path | None, new_token: bool) -> int:
    """Answer on this machine alone, until Ctrl-C. What the board has started goes on without it."""
    for root in roots:
        if not root.is_dir():
            raise ConfigError(f"--root {root} is not a folder. Name one that is there.")
    if port is not None and path is not None:
        raise ConfigError("--port and --socket are two places to listen at. Give one of them.")
    place = address.made_private(address.private_place(os.environ))
    token = address.token_of(place, new_token)
    listener = address.listening(address.address_for(os.environ, port, path))
    name = listener.getsockname()
    signal.signal(signal.SIGTERM, end)
    try:
        answer(listener, token, output, roots)
    except (KeyboardInterrupt, SystemExit):
        print("The board has ended. Runs that it started go on.", flush=True)
    finally:
        if isinstance(name, str):
            Path(name).unlink(missing_ok=True)
    return 0


def end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def answer(listener: socket.socket, token: str, output: Path | None, roots: Sequence[Path]) -> None:
    import uvicorn

    from launcher.board.app import application
    from launcher.board.board import Board

    host = socket.gethostname()
    board = Board(Path.cwd(), output, host, tuple(roots))
    app = application(board, token)
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_AT_ONCE,
    )
    print("\n".join(address.how_to_reach(listener, token, getpass.getuser(), host)), flush=True)
    print("Whoever has this address acts as you. Ctrl-C ends the board; runs go on.", flush=True)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        board.judge.end()
