"""How ranks are started: a run and its folder to one argv and the environment it needs. The only place that writes environment."""

import os
import sys

from conf.constants import BYTE_TOKENIZER, GENERATED
from conf.ranks import ranks
from conf.run_dir import RunDir
from conf.schema import Run, Slurm
from conf.stages import stage_row
from conf.trackers import tracker_row, trackers
from launcher.command import HUB_SECRETS, SECRETS, TRACKER_SECRETS, UTF8, Command
from launcher.errors import ConfigError

TORCHRUN = "torch.distributed.run"
ACCELERATE = "accelerate.commands.launch"
NO_RESTARTS = "--max-restarts=0"  # launcher/launch/restart.py decides, so that its budget and the agent's do not multiply
# Without it cuBLAS may add in another order where streams share a workspace (cuBLAS, results reproducibility); 8 of 4 MiB, as on Hopper.
WORKSPACES = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# What the agent of both backends passes on to its ranks, which save and end: its own signals, and the warning of a cluster.
HANDLED = ("PET_SIGNALS_TO_HANDLE", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1")


def refuse_several_local_nodes(run: Run) -> None:
    """Raises ConfigError where this machine would start the ranks of one node, and the run counts on more."""
    if run.cluster.name == "local" and run.cluster.nodes > 1:
        raise ConfigError(
            f"cluster.nodes={run.cluster.nodes} with cluster=local: from the command line only this machine starts ranks. Set cluster.nodes=1, "
            "submit the run with cluster=slurm, or start it with torchrun on every node."
        )


def command(run: Run, run_dir: RunDir) -> Command:
    """The command that starts every rank of a run on this machine."""
    argv = BACKENDS[run.backend.name](run, run_dir)
    return Command(argv, defaults(run), (*forced(run), *tracking(run, run_dir)), withheld(run))


def torchrun_argv(run: Run, run_dir: RunDir) -> tuple[str, ...]:
    rendezvous = ("--standalone",) if run.backend.port == 0 else ("--master-addr=127.0.0.1", f"--master-port={run.backend.port}")
    return (
        *(sys.executable, "-m", TORCHRUN),
        *("--nnodes=1", f"--nproc-per-node={run.cluster.ranks_per_node}", *rendezvous, NO_RESTARTS),
        *("-m", "trainers", str(run_dir.path)),
    )


def accelerate_argv(run: Run, run_dir: RunDir) -> tuple[str, ...]:
    return (
        sys.executable,
        "-m",
        ACCELERATE,
        f"--config_file={run_dir.accelerate_config}",
        NO_RESTARTS,
        "-m",
        "trainers",
        str(run_dir.path),
    )


BACKENDS = {"torchrun": torchrun_argv, "accelerate": accelerate_argv}


def node_argv(run: Run, run_dir: RunDir, node_rank: str, head: str, port: str) -> tuple[str, ...]:
    """One node's share of a run on a cluster: the last three are filled where the node knows them."""
    return NODE_BACKENDS[run.backend.name](run, run_dir, node_rank, head, port)


# Slurm signals every process of a step. The batch script starts the agent with SIGTERM ignored; torch's own agent, which accelerate starts too, would
# handle it again. What ignores SIGTERM is killed: without these seconds the ranks beside one that failed would stay for 30.
IN_A_STEP = (("PET_SIGNALS_TO_HANDLE", "SIGINT,SIGHUP,SIGQUIT"), ("PET_SHUTDOWN_TIMEOUT", "5"))


def node_torchrun_argv(run: Run, run_dir: RunDir, node_rank: str, head: str, port: str) -> tuple[str, ...]:
    return (
        *(sys.executable, "-m", TORCHRUN, f"--nnodes={run.cluster.nodes}", f"--nproc-per-node={run.cluster.ranks_per_node}"),
        *(f"--node-rank={node_rank}", f"--master-addr={head}", f"--master-port={port}", NO_RESTARTS),
        *("-m", "trainers", str(run_dir.path)),
    )


def node_accelerate_argv(run: Run, run_dir: RunDir, node_rank: str, head: str, port: str) -> tuple[str, ...]:
    return (
        *(sys.executable, "-m", ACCELERATE, f"--config_file={run_dir.accelerate_config}", "--rdzv-backend=static"),
        *(f"--machine-rank={node_rank}", f"--main-process-ip={head}", f"--main-process-port={port}", NO_RESTARTS),
        *("-m", "trainers", str(run_dir.path)),
    )


NODE_BACKENDS = {"torchrun": node_torchrun_argv, "accelerate": node_accelerate_argv}


def accelerate_config(run: Run) -> str:
    """The file for `accelerate launch`: the process layout and nothing else.

    MULTI_GPU is right on CPUs too: MULTI_CPU without MPI starts one process and exits 0.
    """
    lines = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU",
        "use_cpu": "false",
        "num_machines": str(run.cluster.nodes),
        "machine_rank": "0",
        "num_processes": str(ranks(run)),
        "gpu_ids": "all",
        "main_process_ip": "127.0.0.1",
        "main_process_port": str(run.backend.port),
        "mixed_precision": "'no'",
        "main_training_function": "main",
        "rdzv_backend": "static" if run.backend.port else "c10d",
        "same_network": "true",
        "enable_cpu_affinity": "false",
        "debug": "false",
    }
    return "".join(f"{key}: {value}\n" for key, value in lines.items())


def defaults(run: Run) -> tuple[tuple[str, str], ...]:
    cluster = run.cluster
    threads = cluster.cpus_per_rank if isinstance(cluster, Slurm) else max(1, (os.cpu_count() or 1) // run.cluster.ranks_per_node)
    shared = (("OMP_NUM_THREADS", str(threads)), ("TOKENIZERS_PARALLELISM", "false"))
    # expandable segments keep what the allocator reserves close to what is allocated, so the estimate can be trusted
    return (*shared, ("PYTORCH_ALLOC_CONF", "expandable_segments:True")) if run.node.gpus else shared


def forced(run: Run) -> tuple[tuple[str, str], ...]:
    """What no environment may change. PYTHONSAFEPATH: a user's own conf/ or trainers/ in the working folder must not shadow ours."""
    safe = (("PYTHONSAFEPATH", "1"), UTF8, HANDLED)
    quiet = (("TRL_EXPERIMENTAL_SILENCE", "1"),) if stage_row(run.stage.name).trl_experimental else ()
    same = (WORKSPACES,) if run.training.deterministic else ()
    return (*safe, *quiet, *same) if run.node.gpus else (*safe, *quiet, ("CUDA_VISIBLE_DEVICES", ""), ("DS_ACCELERATOR", "cpu"))


def tracking(run: Run, run_dir: RunDir) -> tuple[tuple[str, str], ...]:
    """These two read their folder and names only from the environment; trainers/callbacks/integrations.py sets the others'."""
    found = [("TENSORBOARD_LOGGING_DIR", str(run_dir.tracking))] if "tensorboard" in trackers(run.tracking) else []
    if "wandb" in trackers(run.tracking):
        named = (("WANDB_PROJECT", run.tracking.project), ("WANDB_ENTITY", run.tracking.entity))
        found += [("WANDB_DIR", str(run_dir.path)), *((name, value) for name, value in named if value is not None)]
    return tuple(found)


def withheld(run: Run) -> tuple[str, ...]:
    from_hub = run.model.path is not None or run.model.tokenizer not in (None, BYTE_TOKENIZER) or run.data.sets != [GENERATED]
    used = {secret for name in trackers(run.tracking) for secret in tracker_row(name).secrets} | (set(HUB_SECRETS) if from_hub else set())
    return tuple(secret for secret in (*SECRETS, *HUB_SECRETS, *TRACKER_SECRETS) if secret not in used)
