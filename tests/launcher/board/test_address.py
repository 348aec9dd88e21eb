"""Where the board listens and who can reach it."""

import errno
import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from launcher.board import address
from launcher.board.address import Loopback, UnixSocket, address_for
from launcher.errors import ConfigError, Unsafe
from tests.boards import environment
from tests.waiting import PATIENCE, wait_until

NOBODY = 65534
SSH = {"SSH_CONNECTION": "10.0.0.1 5 10.0.0.2 22"}


def test_over_ssh_it_is_a_socket_and_elsewhere_a_port_of_this_machine() -> None:
    assert address_for({}, None, None) == Loopback(0)
    assert address_for({**SSH, "XDG_RUNTIME_DIR": "/run/user/7"}, None, None) == UnixSocket(Path("/run/user/7/regimen/board.sock"))
    assert address_for({**SSH, "XDG_STATE_HOME": "/home/me/state"}, None, None) == UnixSocket(Path("/home/me/state/regimen/board/board.sock"))
    assert address_for(SSH, 8899, None) == Loopback(8899)
    assert address_for({}, None, Path("/tmp/mine.sock")) == UnixSocket(Path("/tmp/mine.sock"))


def test_no_such_port_and_a_path_that_is_too_long_are_refused() -> None:
    for port in (0, -1, 65536):
        with pytest.raises(ConfigError, match="is no port"):
            address_for({}, port, None)
    with pytest.raises(ConfigError, match="too long for a socket"):
        address_for({}, None, Path("/tmp", "x" * 110))


def test_the_token_stays_until_a_new_one_is_wanted(tmp_path: Path) -> None:
    first = address.token_of(tmp_path, new=False)
    assert len(first) >= 43  # 256 bits in base 64
    assert address.token_of(tmp_path, new=False) == first
    assert address.token_of(tmp_path, new=True) != first
    assert stat.S_IMODE((tmp_path / "board-token").stat().st_mode) == 0o600


def test_a_token_that_others_can_read_and_a_folder_that_others_can_enter_are_refused(tmp_path: Path) -> None:
    address.token_of(tmp_path, new=False)
    (tmp_path / "board-token").chmod(0o640)
    with pytest.raises(Unsafe, match="--new-token"):
        address.token_of(tmp_path, new=False)
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o755)
    with pytest.raises(Unsafe, match="chmod 700"):
        address.made_private(place)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(Unsafe, match="not a folder that you alone can enter"):
        address.made_private(link)


def test_a_socket_that_a_killed_board_left_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "board.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with address.listening_at(path) as living:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert address.how_to_reach(living, "T", "me", "node7")[1] == f"  ssh -N -L 8899:{path} me@node7"
        with pytest.raises(ConfigError, match="already"):
            address.listening_at(path)


def test_a_file_in_the_place_of_the_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "board.sock"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="cannot be made"):
        address.listening_at(path)
    assert path.read_text() == "mine"


def test_two_places_at_once_and_a_port_in_use_are_refused_in_a_sentence(tmp_path: Path) -> None:
    def said(*options: str) -> tuple[int, str]:
        argv = (sys.executable, "-m", "launcher", "board", *options)
        done = subprocess.run(argv, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=PATIENCE, check=False)
        return done.returncode, done.stderr

    assert said("--port", "1", "--socket", "x") == (2, "regimen: --port and --socket are two places to listen at. Give one of them.\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, text = said("--port", str(port))
    assert (code, f"Port {port} cannot be used: Address already in use." in text) == (2, True)


def through_ssh(path: Path, token: str) -> bytes:
    """What a browser gets whose port 8899 ssh -L forwards to the socket."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
        caller.sendall(f"GET /runs HTTP/1.1\r\nHost: localhost:8899\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n".encode())
        return caller.recv(2**16)


def connecting_as(user: int, path: Path) -> int:
    """The number of the error that another user gets; 0: that user is connected."""
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        with socket.socket(socket.AF_UNIX) as caller:
            os._exit(caller.connect_ex(str(path)))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_another_user_of_the_node_cannot_open_the_socket(tmp_path: Path) -> None:
    """The board over ssh, its socket in a folder that everybody can enter, and a process of the user nobody on the same machine."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        argv = (sys.executable, "-m", "launcher", "board", "--socket", str(place / "s"))
        with subprocess.Popen(argv, cwd=tmp_path, env=environment(tmp_path, **SSH), stdout=subprocess.PIPE, text=True) as process:
            try:
                wait_until((place / "s").exists, "socket", process)
                assert wait_until(lambda: address.answers(place / "s"), "answer of the board", process)
                assert connecting_as(NOBODY, place / "s") == errno.EACCES
                token = (tmp_path / "regimen" / "board-token").read_text()
                assert through_ssh(place / "s", token).startswith(b"HTTP/1.1 200")
                assert through_ssh(place / "s", "another").startswith(b"HTTP/1.1 401")
                with socket.create_server(str(place / "open"), family=socket.AF_UNIX):
                    (place / "open").chmod(0o777)
                    assert connecting_as(NOBODY, place / "open") == 0  # so it is the mode of the socket that keeps that user out
            finally:
                process.terminate()
                said, _ = process.communicate(timeout=PATIENCE)
        assert "The board has ended. Runs that it started go on." in said
        assert not (place / "s").exists()
