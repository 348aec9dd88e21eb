"""A throw-away Slurm cluster on one machine: `python lab.py FOLDER SECONDS [accounting]` as the first process of a PID namespace.

`ready` comes on stdout when it is up; after that many seconds without it the logs of the daemons come, and the end.

No systemd, no cgroups, no GPU: several slurmd on one host, each with its own host name, and character devices that stand for GPUs.
Everything lies in FOLDER, and every daemon and job ends with this process.
"""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

NODES = ("n1", "n2")
GPUS = 2  # per node

# cred_expire and the scheduler's intervals are short so that a requeued job starts in seconds, not minutes.
SLURM_CONF = """
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
FirstJobId={first_job}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=1,sched_min_interval=100000,batch_sched_delay=0
ReturnToService=2
SlurmdTimeout=5
KillWait=30
MinJobAge=7200
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName=n[1-{nodes}] NodeAddr=127.0.0.1 Port=[{first_port}-{last_port}] CPUs=8 RealMemory=64000 Gres=gpu:h200:{gpus}
PartitionName=main Nodes=ALL Default=YES State=UP PriorityTier=5
PartitionName=preempted Nodes=ALL State=UP PriorityTier=1
PartitionName=grace Nodes=ALL State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL State=UP PriorityTier=10 PreemptMode=OFF
"""


# With a database: what squeue has forgotten (MinJobAge, no less than 2 s) sacct still knows.
ACCOUNTING = """
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge.sock
AccountingStorageEnforce=limits
"""
# An account without a limit, and one that may submit nothing.
ACCOUNTS = (
    "add cluster lab",
    "add account lab",
    "add account empty",
    "add user root account=lab defaultaccount=lab",
    "add user root account=empty maxsubmitjobs=0",
)

SLURMDBD_CONF = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=slurm
StoragePass=lab
"""


def main(folder: Path, patience: float, accounting: bool) -> None:
    ports = free_ports(3 + len(NODES))
    configure(folder, ports[: 1 + len(NODES)])
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    start(folder, "munged", ("munged", "--foreground", "--force", *munge_files(folder)))
    wait_until(folder, patience, (folder / "munge.sock").is_socket)
    if accounting:
        start_accounting(folder, patience, *ports[-2:])
    start(folder, "slurmctld", ("slurmctld", "-D", "-f", str(folder / "slurm.conf")))
    nodes = {start(folder, node, node_argv(folder, node)): node for node in NODES}
    wait_until(folder, patience, all_idle)
    print("ready", flush=True)
    reap_for_ever(folder, nodes)


def start_accounting(folder: Path, patience: float, port: int, database_port: int) -> None:
    conf = (folder / "slurm.conf").read_text().replace("MinJobAge=7200", "MinJobAge=2") + ACCOUNTING.format(folder=folder, port=port)
    (folder / "slurm.conf").write_text(conf)
    (folder / "slurmdbd.conf").touch(mode=0o600)
    (folder / "slurmdbd.conf").write_text(SLURMDBD_CONF.format(folder=folder, port=port, database_port=database_port))
    data, place = folder / "db", f"--socket={folder}/db.sock"
    run(
        folder,
        "mariadb-install-db",
        "--no-defaults",
        "--user=root",
        f"--datadir={data}",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
    )
    start(folder, "mariadbd", ("mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", place, f"--pid-file={folder}/mariadbd.pid",
                               "--bind-address=127.0.0.1", f"--port={database_port}", "--innodb-flush-log-at-trx-commit=2"))  # fmt: skip
    user = "create user if not exists slurm@'127.0.0.1' identified by 'lab'; grant all on *.* to slurm@'127.0.0.1'"
    wait_until(folder, patience, lambda: run(folder, "mariadb", "--no-defaults", place, "-e", user))
    start(folder, "slurmdbd-output", ("env", f"SLURM_CONF={folder}/slurmdbd.conf", "slurmdbd", "-D"))
    wait_until(folder, patience, lambda: run(folder, "timeout", "5", "sacctmgr", "--noheader", "show", "cluster"))
    for words in ACCOUNTS:
        run(folder, "sacctmgr", "--immediate", *words.split())


def run(folder: Path, *argv: str) -> bool:
    with (folder / f"{Path(argv[0]).name}.log").open("ab") as log:
        return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False).returncode == 0


def configure(folder: Path, ports: list[int]) -> None:
    for name in ("state", "dev"):
        (folder / name).mkdir(parents=True)
    (folder / "slurm.conf").write_text(
        SLURM_CONF.format(
            folder=folder,
            host=socket.gethostname(),
            port=ports[0],
            first_port=ports[1],
            last_port=ports[-1],
            first_job=1000 + secrets.randbelow(8000),  # the batch script makes the ranks' port of it: clusters of one machine must not meet there
            nodes=len(NODES),
            gpus=GPUS,
        )
    )
    for number in range(GPUS):
        os.mknod(folder / f"dev/nvidia{number}", 0o666 | 0o020000, os.makedev(1, 3))  # /dev/null's numbers: Slurm insists on a device
    (folder / "gres.conf").write_text(f"NodeName=n[1-{len(NODES)}] Name=gpu Type=h200 File={folder}/dev/nvidia[0-{GPUS - 1}]\n")
    (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n" if major_version() >= 23 else "")  # newer daemons insist on cgroups otherwise
    names = "".join(f"127.0.0.{10 + number} {node}\n" for number, node in enumerate(NODES, start=1))
    (folder / "hosts").write_text(f"127.0.0.1 localhost {socket.gethostname()}\n{names}")
    (folder / "munge.key").touch(mode=0o600)
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))


def major_version() -> int:
    return int(subprocess.run(("slurmctld", "-V"), capture_output=True, text=True, check=True).stdout.split()[1].split(".")[0])


def free_ports(count: int) -> list[int]:
    """Neighbouring ports, since slurm.conf names the nodes' as a range."""
    while True:
        first = 20000 + secrets.randbelow(10000)
        ports = list(range(first, first + count))
        if all(is_free(port) for port in ports):
            return ports


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def munge_files(folder: Path) -> tuple[str, ...]:
    files = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munged.pid", "log-file": "munged.log", "seed-file": "munged.seed"}
    return tuple(f"--{option}={folder / name}" for option, name in files.items())


def node_argv(folder: Path, node: str) -> tuple[str, ...]:
    """A slurmd with a host name and an /etc/hosts of its own, as on a real node."""
    script = f"hostname {node} && mount --bind '{folder}/hosts' /etc/hosts && exec slurmd -D -f '{folder}/slurm.conf' -N {node}"
    return ("unshare", "--mount", "--uts", "sh", "-c", script)


def start(folder: Path, name: str, argv: tuple[str, ...]) -> int:
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log).pid


def all_idle() -> bool:
    argv = ("timeout", "3", "sinfo", "--noheader", "--Node", "--states=idle", "--format=%N")  # clients retry for minutes without a controller
    return set(subprocess.run(argv, capture_output=True, text=True, check=False).stdout.split()) == set(NODES)  # one line for each partition


def wait_until(folder: Path, patience: float, happened: Callable[[], bool]) -> None:
    end = time.monotonic() + patience
    while not happened():
        if time.monotonic() > end:
            raise SystemExit("".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in sorted(folder.glob("*.log"))))
        time.sleep(0.05)


def reap_for_ever(folder: Path, nodes: dict[int, str]) -> None:
    """The first process of a PID namespace inherits every orphan; one that is not waited for stays a zombie.

    A node whose slurmd was killed stays away until a file `again` appears.
    """
    away: list[str] = []
    while True:
        with suppress(ChildProcessError):
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid in nodes:
                away.append(nodes.pop(pid))
            if pid:
                continue
        if away and (folder / "again").exists():
            (folder / "again").unlink()
            nodes |= {start(folder, node, node_argv(folder, node)): node for node in away}
            away.clear()
        time.sleep(0.1)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), float(sys.argv[2]), sys.argv[3:] == ["accounting"])
