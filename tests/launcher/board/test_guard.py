"""What the board trusts of a proxy that it stands behind, and how it ends when nobody asks it for anything."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from starlette.datastructures import Headers

from launcher.board.address import Proxy, proxy_at, refuse_open_folder
from launcher.board.guard import refusal, without_prefix
from launcher.board.serve import IDLE_LOOK_SECONDS
from launcher.errors import ConfigError, Unsafe
from tests.boards import board, environment
from tests.waiting import PATIENCE

URL = "https://hub.example.org/user/me/proxy/8899/"
HUB = Proxy("https://hub.example.org", "/user/me/proxy/8899")


def status(proxy: Proxy | None, **headers: str) -> int:
    """Of a GET with the token; 200 where it is let through."""
    given = {"host": "localhost:8899", "authorization": "Bearer T", **headers}
    found = refusal("GET", "/runs", Headers(given), "T", ("/",), proxy)
    return 200 if found is None else found.status


def test_a_proxy_is_the_address_of_a_page() -> None:
    assert proxy_at(URL) == HUB
    assert proxy_at("http://node7:8000") == Proxy("http://node7:8000", "")
    assert proxy_at(None) is None
    for url in (
        "hub.example.org/x",
        "/user/me",
        "ftp://hub/x",
        "https://",
        "https://me:pw@hub/",
        "https://hub/?token=1",
        "https://hub:x/",
        "https://[/",
    ):
        with pytest.raises(ConfigError, match="is not the address of a page"):
            proxy_at(url)


def test_behind_a_proxy_its_host_and_its_origin_are_taken_and_no_others() -> None:
    assert [status(proxy, host="hub.example.org") for proxy in (None, HUB)] == [403, 200]
    assert [status(proxy, origin="https://hub.example.org") for proxy in (None, HUB)] == [403, 200]
    assert status(HUB, host="hub.example.org", origin="https://hub.example.org") == 200
    for host in ("evil.example", "hub.example.org.evil.example", "hub.example.org:444", "xhub.example.org"):
        assert status(HUB, host=host) == 403
    for origin in ("null", "http://hub.example.org", "https://hub.example.org:444", "https://evil.example", "https://hub.example.org.evil.example"):
        assert status(HUB, host="hub.example.org", origin=origin) == 403
    assert status(HUB, host="hub.example.org", authorization="Bearer X") == 401


def test_a_proxy_may_leave_its_prefix_before_a_path_or_remove_it() -> None:
    paths = ("/user/me/proxy/8899/runs", "/runs", "/user/me/proxy/8899x/runs", "/user/me/proxy/8899/")
    assert [without_prefix({"path": path}, HUB.path)["path"] for path in paths] == ["/runs", "/runs", "/user/me/proxy/8899x/runs", "/"]
    assert without_prefix({"path": "/runs"}, "")["path"] == "/runs"


def test_a_board_behind_a_proxy_answers_under_its_prefix_and_says_the_address_there(tmp_path: Path) -> None:
    with board(tmp_path, "--behind-proxy", URL, "--port", str(free_port())) as running:
        assert running.address == URL.rstrip("/")
        port = int(running.options[-1])
        for path in ("/user/me/proxy/8899/runs", "/runs"):
            assert running.at(port).get(path, Host="hub.example.org", Origin="https://hub.example.org").status == 200
        assert running.at(port).get("/user/me/proxy/8899/runs", Host="hub.example.org", Authorization=None).status == 401
        assert running.at(port).get("/user/me/proxy/8899/", Host="hub.example.org", Authorization=None).status == 200
        assert running.at(port).get("/runs", Host="evil.example").status == 403
        forwarded = running.at(port).get("/runs", Host="evil.example", X_Forwarded_Host="localhost", X_Forwarded_For="127.0.0.1")
        assert forwarded.status == 403


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_a_board_that_nobody_asks_ends_by_itself(tmp_path: Path) -> None:
    argv = (sys.executable, "-m", "launcher", "board", "--port", str(free_port()), "--idle", "0.0001")
    done = subprocess.run(argv, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert "Without a request for 0.0001 hours it ends by itself (--idle HOURS)." in done.stdout
    assert "The board has ended: nobody asked it for anything for 0.0001 hours. Runs that it started go on." in done.stdout


def test_a_board_that_is_asked_to_end_ends_whenever_it_is_asked(tmp_path: Path) -> None:
    """Was: the look for idleness took the wish back, where it came between the signal and the end."""
    with board(tmp_path) as running:
        assert running.get("/runs").status == 200
        running.process.send_signal(signal.SIGSTOP)  # for longer than from one look to the next, so that a look and the signal come together
        time.sleep(2 * IDLE_LOOK_SECONDS)
        running.process.terminate()
        running.process.send_signal(signal.SIGCONT)
        assert running.process.wait(PATIENCE) == 0


def test_a_board_that_was_started_with_sigint_ignored_does_not_say_that_nobody_asked_it(tmp_path: Path) -> None:
    """As `regimen board &` in a script is; was: it named twelve hours that had not passed."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the process of the board inherits
    try:
        with board(tmp_path) as running:
            assert running.get("/runs").status == 200
            running.process.send_signal(signal.SIGINT)
            said, _ = running.process.communicate(timeout=PATIENCE)
    finally:
        signal.signal(signal.SIGINT, before)
    assert running.process.returncode == 0
    assert said.splitlines()[-1] == "The board has ended. Runs that it started go on."


def test_what_cannot_be_meant_is_refused_in_a_sentence(tmp_path: Path) -> None:
    def said(*options: str) -> tuple[int, str]:
        argv = (sys.executable, "-m", "launcher", "board", *options)
        done = subprocess.run(argv, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=PATIENCE, check=False)
        return done.returncode, done.stderr

    assert said("--idle", "-1") == (2, "regimen: --idle -1 is not a number of hours. Give 0 or more; 0 never ends the board.\n")
    assert said("--behind-proxy", URL)[1].endswith("Give it with --port PORT or --socket FILE.\n")


@pytest.mark.parametrize(("mode", "refused"), [(0o777, True), (0o770, True), (0o1777, False), (0o755, False)])
def test_a_socket_where_others_could_replace_it_is_refused(tmp_path: Path, mode: int, refused: bool) -> None:
    """The folder of the socket, and those above it: who can rename a folder has replaced all that is in it."""
    place = tmp_path / "place"
    (place / "mine").mkdir(parents=True, mode=0o700)
    place.chmod(mode)
    for path in (place / "board.sock", place / "mine" / "board.sock"):
        if refused:
            with pytest.raises(Unsafe, match=f"{place} can be written by others"):
                refuse_open_folder(path)
        else:
            refuse_open_folder(path)
