"""cluster=hosts with real ranks: two machines that are this one, reached through a stand-in of ssh, which starts the words it gets in a shell.

The stand-in for ssh looks at the name of a machine: gone... is not found, mute... never answers, and for any other name it starts the command here.
"""

import json
import os
import shlex
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from sites import LONG, Site, alive, steps, trains

from conf import journal
from tests.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.distributed

SSH = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
shift; host=$1; shift
case $host in
  gone*) echo "ssh: Could not resolve hostname $host: Name or service not known" >&2; exit 255 ;;
  mute*) exec sleep 100000 ;;
esac
echo $$ > "$STAND_IN/$host"
exec sh -c "$*"
"""
TWO = ("cluster=hosts", 'cluster.hosts=["node[01-02]"]', "cluster.address=127.0.0.1", "cluster.ranks_per_node=1")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, SSH, *TWO, GLOO_SOCKET_IFNAME="lo")


def test_a_run_on_two_machines_is_stopped_looked_at_and_goes_on_to_its_end(site: Site) -> None:
    with site.start(*LONG) as running:
        trains(site, running)
        assert site.status()["state"] == "running"
        assert "is asked to save and stop" in site.call("stop", str(site.run_dir.path)).stdout
        assert running.wait(PATIENCE) == 75
    told = site.status()
    assert (told["state"], told["exit_code"]) == ("stopped", 75)
    assert alive(site.run_dir) == []
    for rank in (0, 1):
        layout = json.loads(site.run_dir.layout_file(rank).read_text())
        assert (layout["rank"], layout["world"]) == (rank, 2)
    done = site.call("train", f"resume={site.run_dir.path}", f"training.max_steps={told['step'] + 2}", 'cluster.hosts=["node03","node04"]')
    assert done.returncode == 0, done.stderr
    assert site.status()["state"] == "finished"
    made = steps(site.run_dir)
    assert made == [*range(1, told["step"] + 3)]
    assert sorted(path.name for path in site.folder.glob("node*")) == ["node01", "node02", "node03", "node04"]
    assert (site.run_dir.model / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (('cluster.hosts=["node01","gone02"]',), 5, "gone02 (node 1) was not reached through ssh:\n  | ssh: Could not resolve hostname gone02"),
        (('cluster.hosts=["mute01","node02"]', "cluster.connect_seconds=20"), 5, "mute01 (node 0) has not begun within 20 s"),
        (("cluster.python=/nowhere/python",), 5, "could not start its ranks (exit code 127)"),
    ],
)
def test_a_machine_that_does_not_begin_ends_the_run_and_is_named(given: tuple[str, ...], code: int, said: str, site: Site) -> None:
    done = site.train("training.max_steps=2", *given)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert done.stderr.count("regimen:") == 1
    assert alive(site.run_dir) == []
    assert site.status()["exit_code"] == code


def test_a_port_that_is_taken_is_said_and_leaves_no_folder(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = site.train("training.max_steps=2", f"backend.port={port}")
    assert done.returncode == 2
    assert f"Port {port}, at which the ranks meet, cannot be used on" in done.stderr
    assert not list(site.output.glob("*/*"))


@pytest.mark.long
@pytest.mark.parametrize("given", [("cluster.address=::1",), ("backend=accelerate",)], ids=["IPv6", "accelerate"])
def test_ranks_meet_over_ipv6_and_under_accelerate(given: tuple[str, ...], site: Site) -> None:
    done = site.train("training.max_steps=2", *given)
    assert done.returncode == 0, done.stderr
    assert steps(site.run_dir) == [1, 2]


@pytest.mark.long
def test_a_connection_that_breaks_ends_the_other_machine_too(site: Site) -> None:
    """The stand-in is killed, and its machine's ranks see the end of their input. Another start may help, and goes on from the checkpoint."""
    with site.start(*LONG, "backend.max_restarts=0") as running:
        trains(site, running)
        share = int((site.folder / "node02").read_text())
        os.kill(share, signal.SIGKILL)
        assert running.wait(PATIENCE) in (6, 76)
        assert running.stdout is not None
        assert "node02" in running.stdout.read()
    wait_until(lambda: alive(site.run_dir) == [], "end of all ranks")


@pytest.mark.long
def test_ranks_of_every_machine_end_when_the_supervisor_is_killed(site: Site) -> None:
    with site.start(*LONG) as running:
        trains(site, running)
        assert alive(site.run_dir) == [0, 1]
        running.kill()
        running.wait(PATIENCE)
        wait_until(lambda: alive(site.run_dir) == [], "end of all ranks")
    assert site.status()["state"] == "dead"


@pytest.mark.long
def test_commands_that_are_printed_are_one_run_when_all_have_been_started(site: Site) -> None:
    with site.start("training.max_steps=3", "cluster.start=print") as running:
        assert running.stdout is not None
        lines: list[str] = []
        while len(lines) < 2:
            lines += [line.strip() for line in [running.stdout.readline()] if line.startswith("  env ")]
        shares = [subprocess.Popen(shlex.split(line), env=site.environment, stdin=subprocess.DEVNULL) for line in lines]
        assert [share.wait(PATIENCE) for share in shares] == [0, 0]
        rest = running.stdout.read()
        assert running.wait(PATIENCE) == 0, rest
    assert steps(site.run_dir) == [1, 2, 3]
    late = subprocess.run(shlex.split(lines[0]), env=site.environment, capture_output=True, text=True, check=False)
    assert (late.returncode, "Nobody supervises" in late.stderr) == (2, True)


@pytest.mark.long
def test_a_stop_before_the_printed_commands_were_started_ends_the_run(site: Site) -> None:
    with site.start("training.max_steps=3", "cluster.start=print") as running:
        wait_until(lambda: list(site.output.glob("demo/*/log/agent.txt")), "run that waits for its machines", running)
        site.call("stop", str(site.run_dir.path))
        assert running.wait(PATIENCE) == 75
    assert [event["event"] for event in journal.events(site.run_dir)] == ["start", "stop requested", "end"]
