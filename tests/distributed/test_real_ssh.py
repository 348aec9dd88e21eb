"""cluster=hosts through real ssh, between two machines that share this one's files: each has a host name, processes and a network of its own."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sites import LONG, Site, steps, trains

from tests.waiting import LONG_PAUSE, PATIENCE, wait_until

pytestmark = [pytest.mark.distributed, pytest.mark.long]

NEEDED = ("ssh", "sshd", "ssh-keygen", "ip", "unshare", "setpriv")
WITH_SBIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"
NETWORK = "198.18.77"  # for tests of networks alone: RFC 2544
DAEMON = """HostKey {folder}/host
AuthorizedKeysFile {folder}/key.pub
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
PidFile none
"""
CLIENT = """#!/bin/sh
exec {ssh} -i {folder}/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "$@"
"""


def call(*argv: str, check: bool = True) -> str:
    return subprocess.run(argv, env={**os.environ, "PATH": WITH_SBIN}, capture_output=True, text=True, check=check, timeout=PATIENCE).stdout


@dataclass(frozen=True)
class Machine:
    address: str
    link: str  # this machine's end of its cable

    def cable(self, state: str) -> None:
        """up or down: nobody hears of it, as where a switch fails."""
        call("ip", "link", "set", self.link, state)


@contextmanager
def machine(number: int, bridge: str, folder: Path) -> Iterator[Machine]:
    space, link, address = f"{bridge}n{number}", f"{bridge}v{number}", f"{NETWORK}.{number}"
    within = ("ip", "netns", "exec", space)
    call("ip", "netns", "add", space)
    try:
        call("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
        call("ip", "link", "set", link, "master", bridge, "up")
        call(*within, "ip", "addr", "add", f"{address}/24", "dev", "eth0")
        for name in ("eth0", "lo"):
            call(*within, "ip", "link", "set", name, "up")
        daemon = f"hostname machine{number}; exec sshd_path -D -e -f {folder}/sshd.conf".replace(
            "sshd_path", str(shutil.which("sshd", path=WITH_SBIN))
        )
        apart = (
            "setpriv",
            "--pdeathsig",
            "KILL",
            "unshare",
            "--uts",
            "--ipc",
            "--pid",
            "--mount-proc",
            "--fork",
            "--kill-child=KILL",
            "sh",
            "-c",
            daemon,
        )
        with (
            (folder / f"sshd-{number}.txt").open("w") as log,
            subprocess.Popen((*within, *apart, "sh", "-c", daemon), stdout=log, stderr=log) as process,
        ):
            try:
                yield Machine(address, link)
            finally:
                process.kill()
    finally:
        call("ip", "netns", "del", space)
        call("ip", "link", "del", link, check=False)  # it goes with its other end


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[Machine]]]:
    absent = [name for name in NEEDED if shutil.which(name, path=WITH_SBIN) is None]
    if absent or os.geteuid() != 0:
        pytest.skip(f"two machines with ssh need root and {', '.join(absent) or 'nothing else'}: apt-get install openssh-server iproute2")
    folder, bridge = tmp_path_factory.mktemp("ssh"), f"rg{os.getpid() % 100000}"
    for name in ("key", "host"):
        call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    (folder / "sshd.conf").write_text(DAEMON.format(folder=folder))
    Path("/run/sshd").mkdir(exist_ok=True)
    call("ip", "link", "add", bridge, "type", "bridge")
    try:
        call("ip", "addr", "add", f"{NETWORK}.254/24", "dev", bridge)
        call("ip", "link", "set", bridge, "up")
        with ExitStack() as stack:
            yield folder, [stack.enter_context(machine(number, bridge, folder)) for number in (1, 2)]
    finally:
        call("ip", "link", "del", bridge)


@pytest.fixture
def site(machines: tuple[Path, list[Machine]], tmp_path: Path) -> Site:
    folder, both = machines
    where = ("cluster=hosts", f"cluster.hosts=[{','.join(one.address for one in both)}]", "cluster.ranks_per_node=1")
    made = Site(tmp_path, CLIENT.format(folder=folder, ssh=shutil.which("ssh")), *where, GLOO_SOCKET_IFNAME="eth0")
    for one in both:
        wait_until(lambda one=one: name_of(made, one), f"sshd at {one.address}", pause=LONG_PAUSE)  # type: ignore[misc]
    return made


def on(site: Site, machine: Machine, *words: str) -> str:
    argv = (str(site.folder / "bin/ssh"), "-o", "ConnectTimeout=5", f"root@{machine.address}", *words)
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE).stdout


def name_of(site: Site, machine: Machine) -> str:
    return on(site, machine, "hostname").strip()


def ranks_on(site: Site, machine: Machine) -> int:
    return len(on(site, machine, "pgrep", "-f", "'[-]m trainers'").split())


def nothing_left(site: Site, both: list[Machine]) -> None:
    wait_until(lambda: [ranks_on(site, one) for one in both] == [0, 0], "end of the ranks of both machines", pause=LONG_PAUSE)


def test_a_run_is_stopped_and_goes_on_and_a_killed_supervisor_leaves_no_rank(machines: tuple[Path, list[Machine]], site: Site) -> None:
    _, both = machines
    assert [name_of(site, one) for one in both] == ["machine1", "machine2"]
    with site.start(*LONG) as running:
        trains(site, running)
        assert all(ranks_on(site, one) for one in both)
        site.call("stop", str(site.run_dir.path))
        assert running.wait(PATIENCE) == 75
    nothing_left(site, both)
    saved = site.status()["step"]

    argv = site.argv("train", f"resume={site.run_dir.path}")
    with subprocess.Popen(argv, env=site.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        wait_until(lambda: steps(site.run_dir)[-1] > saved, "step after the resume", running)
        running.send_signal(signal.SIGKILL)
    nothing_left(site, both)

    done = site.call("train", f"resume={site.run_dir.path}", f"training.max_steps={steps(site.run_dir)[-1] + 2}")
    assert done.returncode == 0, done.stderr
    assert site.status()["state"] == "finished"


def test_a_cable_that_is_pulled_out_ends_the_run_and_its_ranks(machines: tuple[Path, list[Machine]], site: Site) -> None:
    _, both = machines
    with site.start(*LONG, "backend.max_restarts=0") as running:
        trains(site, running)
        both[1].cable("down")
        try:
            assert running.wait(PATIENCE) == 76
        finally:
            both[1].cable("up")
    nothing_left(site, both)
