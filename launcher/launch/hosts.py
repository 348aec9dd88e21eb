"""A run on machines that ssh reaches: what is started on each, as words. Nothing is started here.

Each machine runs `regimen host`, which starts that machine's agent and ends with it (host_share.py). The process beside the supervisor that starts
them and waits for them all is host_agents.py.
"""

import os
import shlex
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from conf.hosts import expanded, without_user
from conf.run_dir import RunDir
from conf.schema import Hosts, Run
from conf.secrets import shape_of_secret
from launcher.command import LAUNCHER, UTF8, Command, python_path
from launcher.errors import Unsafe
from launcher.launch.backends import command, node_argv

# BatchMode: ssh never asks, since nobody would see the question. A broken connection is known within 40 s.
SSH = ("ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=4")
PASSED = ("NCCL_", "GLOO_")  # variables of the network are the site's: NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME, NCCL_IB_HCA
FIRST_PORT, PORTS = 20000, 10000


@dataclass(frozen=True)
class Share:
    """What one machine does of a run."""

    node_rank: int
    host: str  # as ssh gets it
    argv: tuple[str, ...]  # what is started there: `regimen host`
    ranks: tuple[str, ...]  # what that starts: torchrun, or accelerate
    connected: tuple[str, ...]  # the same through ssh

    @property
    def pasted(self) -> str:
        """The line for a shell of that machine."""
        return shlex.join(self.argv)


def of_hosts(run: Run) -> Hosts:
    if not isinstance(run.cluster, Hosts):
        raise TypeError(f"cluster={run.cluster.name} names no machines.")
    return run.cluster


def shares(run: Run, run_dir: RunDir, site: Mapping[str, str], folder: str) -> tuple[Share, ...]:
    """One for each machine.

    Args:
        site: the environment of the user, of which the variables of the network are passed on.
        folder: the working folder, from which relative paths of the run are meant.

    Raises:
        Unsafe: for a word with a control character, which no shell may get, and for one that looks like a secret.
    """
    cluster = of_hosts(run)
    python = cluster.python or LAUNCHER[0]
    passed = tuple(f"{name}={value}" for name, value in {**passed_on(cluster, site), **python_path(site.get("PYTHONPATH", ""))}.items())
    refuse_secrets(passed)
    attached = ("--attached",) if cluster.start == "ssh" else ()
    found = []
    for node_rank, host in enumerate(expanded(cluster.hosts)):
        argv = ("env", *passed, python, *LAUNCHER[1:], "host", str(run_dir.path), str(node_rank), "--folder", folder, *attached)
        refuse_control_characters(argv)
        ranks = share_of_ranks(run, run_dir, node_rank).argv
        found.append(Share(node_rank, host, argv, (python, *ranks[1:]), (*SSH, "--", host, shlex.join(argv))))
    return tuple(found)


def passed_on(cluster: Hosts, site: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in sorted(site.items()) if name.startswith(PASSED) or name in cluster.export}


def refuse_control_characters(argv: tuple[str, ...]) -> None:
    odd = next((word for word in argv if not word.isprintable()), None)
    if odd is not None:
        raise Unsafe(f"{odd!r} cannot be passed to another machine, because it holds a control character. Change it.")


def refuse_secrets(variables: Sequence[str]) -> None:
    """Words of a command are shown to everybody who lists the processes of a machine."""
    for variable in variables:
        shape = shape_of_secret(variable)
        if shape:
            name = variable.partition("=")[0]
            raise Unsafe(f"The value of {name} looks like {shape}, and would stand in a command line on each machine. Set it there instead.")


def share_of_ranks(run: Run, run_dir: RunDir, node_rank: int) -> Command:
    """On that machine: the command of its agent, with the environment of its ranks."""
    return replace(command(run, run_dir), argv=node_argv(run, run_dir, str(node_rank), meeting_host(run), str(meeting_port(run, run_dir))))


def meeting_host(run: Run) -> str:
    cluster = of_hosts(run)
    return cluster.address or without_user(expanded(cluster.hosts)[0])


def meeting_port(run: Run, run_dir: RunDir) -> int:
    """backend.port, or one that follows from the run folder, so that every machine knows it: nobody can look for a free one on another machine."""
    return run.backend.port or FIRST_PORT + zlib.crc32(os.fsencode(run_dir.path)) % PORTS


def supervised_command(run: Run, run_dir: RunDir) -> Command:
    """What a supervisor starts: the agent of this machine, or what starts those of others. That has the user's environment, since ssh may need it."""
    if not isinstance(run.cluster, Hosts):
        return command(run, run_dir)
    return Command((*LAUNCHER, "start-hosts", str(run_dir.path)), (), (("PYTHONSAFEPATH", "1"), UTF8), ())
