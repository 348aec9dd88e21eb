"""The verb board: take an address, say how to reach it, and answer until the user ends it."""

import getpass
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from launcher.board import address
from launcher.board.address import Proxy
from launcher.errors import ConfigError

MOST_AT_ONCE = 64  # requests
IDLE_HOURS = 12.0
IDLE_LOOK_SECONDS = 1


@dataclass(frozen=True)
class Options:
    """As they were given."""

    output: Path | None = None
    roots: tuple[Path, ...] = ()
    port: int | None = None
    socket: Path | None = None
    proxy: str | None = None
    idle: float = IDLE_HOURS
    new_token: bool = False


def serve(options: Options) -> int:
    """Answer on this machine alone, until Ctrl-C or until nobody has asked for long. What the board has started goes on without it."""
    proxy = checked(options)
    place = address.made_private(address.private_place(os.environ))
    token = address.token_of(place, options.new_token)
    listener = address.listening(address.address_for(os.environ, options.port, options.socket))
    name = listener.getsockname()
    signal.signal(signal.SIGTERM, end)
    try:
        idle = answer(listener, token, options, proxy)
    except (KeyboardInterrupt, SystemExit):
        idle = False
    finally:
        if isinstance(name, str):
            Path(name).unlink(missing_ok=True)
    why = f": nobody asked it for anything for {options.idle:g} hours" if idle else ""
    print(f"The board has ended{why}. Runs that it started go on.", flush=True)
    return 0


def checked(options: Options) -> Proxy | None:
    """
    Raises:
        ConfigError: for what cannot be meant.
        Unsafe: for a socket that others could replace.
    """
    for root in options.roots:
        if not root.is_dir():
            raise ConfigError(f"--root {root} is not a folder. Name one that is there.")
    if options.port is not None and options.socket is not None:
        raise ConfigError("--port and --socket are two places to listen at. Give one of them.")
    if not 0 <= options.idle < float("inf"):
        raise ConfigError(f"--idle {options.idle:g} is not a number of hours. Give 0 or more; 0 never ends the board.")
    if options.proxy is not None and options.port is None and options.socket is None:
        raise ConfigError("--behind-proxy needs the place that your proxy forwards to. Give it with --port PORT or --socket FILE.")
    if options.socket is not None:
        address.refuse_open_folder(options.socket.absolute())
    return address.proxy_at(options.proxy)


def end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def answer(listener: socket.socket, token: str, options: Options, proxy: Proxy | None) -> bool:
    """Until the board ends, which a signal may do by KeyboardInterrupt or SystemExit. Whether it ended by itself because it was idle.

    A board in the background of a script was started with SIGINT ignored; uvicorn hears it all the same, and then returns as if by itself.
    """
    idle = False
    import uvicorn

    from launcher.board.app import application
    from launcher.board.board import Board

    host = socket.gethostname()
    board = Board(Path.cwd(), options.output, host, options.roots)
    app = application(board, token, proxy)

    async def end_when_idle() -> None:
        nonlocal idle
        if options.idle and app.idle() >= options.idle * 3600 and not server.should_exit:
            server.should_exit = idle = True

    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_AT_ONCE,
        callback_notify=end_when_idle,
        timeout_notify=IDLE_LOOK_SECONDS,
    )
    server = uvicorn.Server(config)
    print("\n".join(address.how_to_reach(listener, token, getpass.getuser(), host, proxy)), flush=True)
    ends = f" Without a request for {options.idle:g} hours it ends by itself (--idle HOURS)." if options.idle else ""
    print(f"Whoever has this address acts as you. Ctrl-C ends the board; runs go on.{ends}", flush=True)
    try:
        server.run(sockets=[listener])
    finally:
        board.judge.end()
        board.advisor.end()
    return idle
