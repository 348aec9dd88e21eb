"""Where the board listens, and the secret that its pages need: a Unix socket under ssh, loopback elsewhere, a token always."""

import os
import secrets
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from launcher.errors import ConfigError, Unsafe
from launcher.launch.places import state_folder

LOOPBACK = "127.0.0.1"
TOKEN_BYTES = 32
SOCKET, TOKEN = "board.sock", "board-token"
LONGEST_SOCKET = 107  # bytes of a path: sun_path of unix(7)
OTHERS = stat.S_IRWXG | stat.S_IRWXO
FORWARDED = 8899  # the port on the user's own machine in the line that the board prints


@dataclass(frozen=True)
class Loopback:
    port: int  # 0: any free one


@dataclass(frozen=True)
class UnixSocket:
    path: Path


Address = Loopback | UnixSocket


@dataclass(frozen=True)
class Proxy:
    """Where a browser finds the board behind a proxy: what Host and Origin are there, and what stands before each path."""

    origin: str  # https://hub.example.org
    path: str  # /user/me/proxy/8899, without a slash at its end

    @property
    def host(self) -> str:
        return self.origin.partition("://")[2]


def proxy_at(url: str | None) -> Proxy | None:
    """The proxy of --behind-proxy.

    Raises:
        ConfigError: for what is not the address of a page.
    """
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigError(f"--behind-proxy {url} is not the address of a page. Write it as the browser has it: https://HOST/user/NAME/proxy/8899/")
    return Proxy(f"{parts.scheme}://{parts.netloc.lower()}", parts.path.rstrip("/"))


def address_for(site: Mapping[str, str], port: int | None, path: Path | None) -> Address:
    """What was asked for; else a socket under ssh, whose node has other users, and a free port of this machine elsewhere.

    Raises:
        ConfigError: for a port that does not exist, and for a socket whose path is too long.
    """
    if port is not None:
        if not 0 < port < 2**16:
            raise ConfigError(f"--port {port} is no port. Give a number from 1 to {2**16 - 1}.")
        return Loopback(port)
    if path is None and "SSH_CONNECTION" not in site:
        return Loopback(0)
    chosen = (path or private_place(site) / SOCKET).absolute()
    if len(os.fsencode(chosen)) > LONGEST_SOCKET:
        raise ConfigError(f"{chosen} is too long for a socket, which may have {LONGEST_SOCKET} bytes. Give a shorter one: --socket FILE")
    return UnixSocket(chosen)


def private_place(site: Mapping[str, str]) -> Path:
    """As the XDG base directory specification has it: a folder of the session that its user alone can enter, else one of the user's state."""
    session = site.get("XDG_RUNTIME_DIR")
    return Path(session) / "regimen" if session else state_folder(site) / "board"


def made_private(folder: Path) -> Path:
    """The folder, made where it is not there.

    Raises:
        Unsafe: where somebody else owns it or can enter it.
        ConfigError: where it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror}. Set XDG_RUNTIME_DIR to a folder of yours.") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & OTHERS:
        raise Unsafe(f"{folder} is not a folder that you alone can enter. Remove it, or write: chmod 700 {folder}")
    return folder


def token_of(folder: Path, new: bool) -> str:
    """The token of this user's boards, from its file; made where there is none, or where a new one is wanted.

    Raises:
        Unsafe: where the file can be read by others.
    """
    path = folder / TOKEN
    if new:
        path.unlink(missing_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return read_token(path)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(token)
    return token


def read_token(path: Path) -> str:
    found = path.lstat()
    text = path.read_text(encoding="ascii", errors="replace").strip() if stat.S_ISREG(found.st_mode) else ""
    if found.st_uid != os.geteuid() or found.st_mode & OTHERS or len(text) < TOKEN_BYTES:
        raise Unsafe(f"{path} is not a token that you alone can read. Write: regimen board --new-token")
    return text


def listening(address: Address) -> socket.socket:
    """A socket that takes connections from now on.

    Raises:
        ConfigError: where the address is in use or may not be used.
    """
    if isinstance(address, UnixSocket):
        return listening_at(address.path)
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((LOOPBACK, address.port))
    except OSError as error:
        made.close()
        raise ConfigError(f"Port {address.port} cannot be used: {error.strerror}. Give another --port, or none for a free one.") from error
    made.listen()
    return made


def refuse_open_folder(path: Path) -> None:
    """Raises Unsafe where somebody else could put a socket of theirs in the place of this one: the token would go to them."""
    for folder in path.resolve().parents:
        try:
            found = folder.stat()
        except OSError:  # which making the socket will tell
            continue
        if found.st_uid not in (os.geteuid(), 0):
            raise Unsafe(f"{folder} belongs to another user, who could replace {path}. Name a socket in a folder of yours: --socket FILE")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX:
            raise Unsafe(f"{folder} can be written by others, who could replace {path}. Name a socket elsewhere, or write: chmod go-w {folder}")


def listening_at(path: Path) -> socket.socket:
    """The file of the socket is its owner's alone from its first moment; one that a killed board has left is replaced."""
    if path.is_socket() and path.lstat().st_uid != os.geteuid():
        raise Unsafe(f"{path} is a socket of another user. Name another one: --socket FILE")
    if answers(path):
        raise ConfigError(f"A board listens on {path} already. Use it, end it, or give this one --socket FILE.")
    if path.is_socket():
        path.unlink()
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        made.bind(str(path))
    except OSError as error:
        made.close()
        raise ConfigError(f"{path} cannot be made: {error.strerror}. Give another place: --socket FILE") from error
    finally:
        os.umask(before)
    made.listen()
    return made


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        try:
            caller.connect(str(path))
        except OSError:  # nothing is there, or nobody listens any more
            return False
    return True


def how_to_reach(listener: socket.socket, token: str, user: str, host: str, proxy: Proxy | None = None) -> list[str]:
    """What the user does next. The token stands behind #, which no browser sends to anybody."""
    name = listener.getsockname()
    if proxy is not None:
        return ["The board is, through your proxy, at", f"  {proxy.origin}{proxy.path}/#token={token}"]
    if listener.family == socket.AF_UNIX:
        return [
            f"The board listens on {name}. On your own machine, in a terminal that stays open:",
            f"  ssh -N -L {FORWARDED}:{name} {user}@{host}",
            "Then open in a browser there:",
            f"  http://localhost:{FORWARDED}/#token={token}",
        ]
    return ["The board is at", f"  http://{LOOPBACK}:{name[1]}/#token={token}"]
