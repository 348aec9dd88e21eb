"""The options of the verbs that regimen itself calls, for processes of their own; what they do is imported when they are called."""

import argparse
from collections.abc import Callable
from pathlib import Path

from conf.private import keep_private
from launcher.verbs.queue_options import add_queue_processes

AddParser = Callable[..., argparse.ArgumentParser]


def add_processes(add: AddParser) -> None:
    """Define the verbs on the command line."""
    add_supervise(add)
    add_queue_processes(add)
    add_job_records(add)
    add_hosts(add)


def add_supervise(add: AddParser) -> None:
    supervise = add(
        "supervise", description="Start the ranks of a run folder and wait until they have ended. `train --detach` leaves this verb running."
    )
    supervise.add_argument("run", type=Path)
    supervise.add_argument("--handed-over", metavar="NONCE", help="of the lock that the starting process holds and hands over")
    supervise.set_defaults(act=act_supervise)


def add_job_records(add: AddParser) -> None:
    start = add("job-start", description="Record that a Slurm job starts this run. Its batch script calls this.")
    end = add("job-end", description="Record how the ranks of a Slurm job ended; queue it again where that may help. Its batch script calls this.")
    for verb, act in ((start, act_job_start), (end, act_job_end)):
        verb.add_argument("run", type=Path)
        verb.add_argument("job")
        verb.set_defaults(act=act)
    end.add_argument("code", type=int, help="the exit code of srun")
    end.add_argument("--set-up", action="store_true", help="a line of cluster.setup failed with this code, and no rank was started")
    end.add_argument("--ending", action="store_true", help="Slurm ends the job itself: it was cancelled or queued again, or its time is over")


def add_hosts(add: AddParser) -> None:
    start = add("start-hosts", description="Start the ranks of every machine of cluster=hosts and wait for them. The supervisor of a run calls this.")
    start.add_argument("run", type=Path)
    start.set_defaults(act=act_start_hosts)
    host = add(
        "host", description="Start the ranks of this machine for a run of cluster=hosts. `regimen train` calls this through ssh, or prints it."
    )
    host.add_argument("run", type=Path)
    host.add_argument("node", type=int, help="the number of this machine, from 0")
    host.add_argument("--folder", type=Path, default=Path(), help="the working folder, from which relative paths are meant")
    host.add_argument("--attached", action="store_true", help="end the ranks when the standard input ends")
    host.set_defaults(act=act_host)


def act_start_hosts(arguments: argparse.Namespace) -> int:
    keep_private()
    import os

    from conf.run_dir import RunDir
    from launcher.launch import host_agents

    return host_agents.collect(RunDir(arguments.run), os.environ)


def act_host(arguments: argparse.Namespace) -> int:
    keep_private()
    from conf.run_dir import RunDir
    from launcher.launch import host_share

    return host_share.run_share(RunDir(arguments.run), arguments.node, arguments.folder, arguments.attached)


def act_supervise(arguments: argparse.Namespace) -> int:
    keep_private()
    from launcher.verbs import train

    return train.supervise_folder(arguments.run, arguments.handed_over)


def act_job_start(arguments: argparse.Namespace) -> int:
    keep_private()
    from conf.run_dir import RunDir
    from launcher.launch import batch_job

    return batch_job.job_start(RunDir(arguments.run), arguments.job)


def act_job_end(arguments: argparse.Namespace) -> int:
    keep_private()
    from conf.run_dir import RunDir
    from launcher.launch import batch_job

    if arguments.set_up:
        return batch_job.setup_failed(RunDir(arguments.run), arguments.job, arguments.code)
    return batch_job.job_end(RunDir(arguments.run), arguments.job, arguments.code, arguments.ending)
