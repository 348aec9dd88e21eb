"""A planned run as the text of a Slurm batch script, and what sbatch answers."""

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from conf.environment import FromEnvironment
from conf.run_dir import RunDir
from conf.schema import Cluster, Run, SettledSlurm, Slurm
from launcher.command import PACKAGES
from launcher.errors import ConfigError, SubmissionError, Unsafe
from launcher.rules.slurm import slurm_size
from launcher.rules.slurm_forms import refuse_from_environment, refuse_other_form

TEMPLATES = PACKAGES / "slurm"
TEMPLATE = "train.sbatch.j2"
# What the stop file says when Slurm made it, and not the user, and how the journal calls that.
TIME_LIMIT, TERMINATED = "time-limit", "terminated"
STOPPED_BY_SLURM = {TIME_LIMIT: "the time limit of Slurm", TERMINATED: "SIGTERM of Slurm"}

# Words of the ranks' command that only the job knows; they stand as the value of one option each.
NODE_RANK, HEAD, PORT = "{node_rank}", "{head}", "{port}"
SHELL_NAMES = {NODE_RANK: "SLURM_NODEID", HEAD: "head", PORT: "port"}
FILLED_BY_JOB = re.compile(r"(--[a-z-]+=)(\{node_rank\}|\{head\}|\{port\})")


@dataclass(frozen=True)
class Asked:
    """What the plan adds to the values of cluster=slurm."""

    memory: str | None = None  # --mem where cluster.memory is null
    after: tuple[str, ...] = ()  # jobs of Slurm that must have ended well before
    exported: tuple[str, ...] = ()  # names of all variables that the job gets; empty: every variable of the submitting shell


NOTHING = Asked()


def render(run: Run, run_dir: RunDir, command: tuple[str, ...], launcher: tuple[str, ...], asked: Asked = NOTHING) -> str:
    """The batch script of a settled run on Slurm.

    Args:
        command: what starts one node's ranks; the values NODE_RANK, HEAD and PORT are filled where the node knows them.
        launcher: what starts regimen itself, for the records that the job keeps of its start and end.

    Raises:
        ConfigError, Unsafe: for a value that sbatch does not accept, or could take for more than a value.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    return environment.get_template(TEMPLATE).render(
        directives=directives(run, run_dir, asked),
        run_dir=shlex.quote(allowed("the run folder", str(run_dir.path))),
        command=" ".join(shell_word(word) for word in command),
        launcher=" ".join(shell_word(word) for word in launcher),
        step=" ".join(shell_word(word) for word in step_options(run)),
        setup=setup_lines(run.cluster),
        exported=asked.exported,
        time_limit=TIME_LIMIT,
        terminated=TERMINATED,
    )


def directives(run: Run, run_dir: RunDir, asked: Asked = NOTHING) -> list[str]:
    cluster = run.cluster
    if not isinstance(cluster, SettledSlurm):
        raise TypeError(f"cluster={cluster.name} has no batch script.")
    folder = allowed("the run folder", str(run_dir.logs))
    return [
        f"--job-name={allowed('name', run.name)}",
        f"--output={folder}/slurm-%j.txt",
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{int(cluster.signal_seconds)}",
        f"--nodes={int(cluster.nodes)}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={int(cluster.cpus_per_rank) * int(cluster.ranks_per_node)}",
        *gpu_directive(cluster, bool(run.node.gpus)),
        *(f"--{option}={value}" for option, value in site_options(cluster, asked) if not isinstance(value, FromEnvironment)),
        *(["--kill-on-invalid-dep=yes"] if asked.after else []),  # else the job waits for ever where the one before fails
        *(["--exclusive"] if cluster.exclusive else []),
        *(f"--{allowed('cluster.directives', directive)}" for directive in cluster.directives),
        *([f"--export={','.join(allowed('cluster.export', name) for name in asked.exported)}"] if asked.exported else []),
    ]


def gpu_directive(cluster: SettledSlurm, on_gpus: bool) -> list[str]:
    """One GPU per rank."""
    if not on_gpus:
        return []
    kind = "" if cluster.gpu_type is None else allowed("cluster.gpu_type", cluster.gpu_type) + ":"
    return [f"--gpus-per-node={kind}{cluster.ranks_per_node}"]


def site_options(cluster: Slurm, asked: Asked = NOTHING) -> list[tuple[str, str]]:
    """The options that the site needs, checked; what is not stated is left to the site's defaults."""
    stated = {
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "time": cluster.time,
        "memory": memory_of(cluster, asked),
        "constraint": cluster.constraint,
        "reservation": cluster.reservation,
        "exclude": cluster.exclude,
        "licenses": cluster.licenses,
        "mail_user": cluster.mail_user,
        "mail_type": cluster.mail_type,
        "comment": cluster.comment,
        "dependency": dependency_of(cluster, asked),
    }
    names = {"memory": "mem"}
    refuse_from_environment(cluster)
    return [(names.get(key, key.replace("_", "-")), allowed(f"cluster.{key}", value)) for key, value in stated.items() if value is not None]


def memory_of(cluster: Slurm, asked: Asked) -> str | None:
    """--mem as sbatch reads it; None: the site's default."""
    if cluster.memory is not None:
        return slurm_size(cluster)
    return "0" if cluster.exclusive else asked.memory


def dependency_of(cluster: Slurm, asked: Asked) -> str | None:
    """The stated dependency and the runs that are waited for; sbatch cannot join `any of these` (?) with more."""
    awaited = [f"afterok:{job}" for job in asked.after]
    if awaited and "?" in (cluster.dependency or ""):
        raise ConfigError(f"cluster.dependency={cluster.dependency} cannot stand beside cluster.after. Join its parts by commas, or leave one out.")
    return ",".join([*([cluster.dependency] if cluster.dependency else []), *awaited]) or None


def setup_lines(cluster: Cluster) -> list[str]:
    """cluster.setup word for word; what is no plain word was refused when the run was judged."""
    lines = cluster.setup if isinstance(cluster, Slurm) else []
    return [" ".join(shlex.quote(word) for word in allowed("cluster.setup", line).split()) for line in lines]


def step_options(run: Run) -> tuple[str, ...]:
    """What srun gets for the container of the ranks: the options of pyxis, a plugin of srun."""
    cluster = run.cluster
    if not isinstance(cluster, Slurm) or cluster.container is None or cluster.container_runtime != "pyxis":
        return ()
    return (f"--container-image={allowed('cluster.container', cluster.container)}", f"--container-mounts={','.join(mounts(run, cluster))}")


def mounts(run: Run, cluster: Slurm) -> list[str]:
    """The folder of all runs first: without it the ranks could not write."""
    output = str(Path(run.output).absolute())
    return [f"{output}:{output}", *(both_sides(allowed("cluster.container_mounts", mount)) for mount in cluster.container_mounts)]


def both_sides(mount: str) -> str:
    return mount if ":" in mount else f"{mount}:{mount}"


def in_container(run: Run, argv: tuple[str, ...]) -> tuple[str, ...]:
    """What starts one node's ranks, with the Python of the image; Apptainer is a command before it, pyxis options of srun (step_options)."""
    cluster = run.cluster
    if not isinstance(cluster, Slurm) or cluster.container is None:
        return argv
    inside = tuple(allowed("cluster.container_python", cluster.container_python) if word == sys.executable else word for word in argv)
    if cluster.container_runtime == "pyxis":
        return inside
    bound = (word for mount in mounts(run, cluster) for word in ("--bind", mount))
    return ("apptainer", "exec", *(("--nv",) if run.node.gpus else ()), *bound, allowed("cluster.container", cluster.container), *inside)


def allowed(key: str, value: str) -> str:
    """The value as it may be written; what is refused here was refused before, when the run was judged."""
    refuse_other_form(key, value)
    return value


def shell_word(word: str) -> str:
    if re.search(r"[\x00-\x1f\x7f]", word):
        raise Unsafe(f"{word!r} cannot be written into a batch script, because it holds a control character. Change it, or use cluster=local.")
    filled = FILLED_BY_JOB.fullmatch(word)
    return f'{filled[1]}"${SHELL_NAMES[filled[2]]}"' if filled else shlex.quote(word)


# sbatch(1): environment variables win over the script's directives. Most are named like their option.
VARIABLE_OF = {"time": "TIMELIMIT", "mem": "MEM_PER_NODE"}
# These would split the run into an array, wait for its end, forbid the requeue, or keep the planned environment from the job or its steps.
UNPLANNED = ("SBATCH_ARRAY_INX", "SBATCH_WAIT", "SBATCH_NO_REQUEUE", "SBATCH_EXPORT", "SLURM_EXPORT_ENV")
BESIDE_MEMORY = ("SBATCH_MEM_PER_CPU", "SBATCH_MEM_PER_GPU")  # sbatch accepts one of the three
# What salloc, sbatch or srun sets in its own job and srun reads as an option: a run submitted from within such a job would get it too.
LEFT_BY_ANOTHER_JOB = tuple(
    f"SLURM_{name}"
    for name in (
        *("MEM_PER_CPU", "MEM_PER_GPU", "MEM_PER_NODE", "MEM_BIND", "CPU_BIND", "CPUS_PER_GPU", "DISTRIBUTION", "DIST_PLANESIZE", "OVERCOMMIT"),
        *("GPUS", "GPUS_PER_NODE", "GPUS_PER_TASK", "GPU_BIND", "GPU_FREQ", "STEP_GRES", "PROFILE", "THREADS_PER_CORE"),
        *("NTASKS_PER_CORE", "NTASKS_PER_GPU", "NTASKS_PER_NODE", "NTASKS_PER_SOCKET"),
    )
)


def options_from_environment(run: Run) -> tuple[tuple[str, str], ...]:
    """Options that the configuration reads from the environment: sbatch gets them there too, so that they are in no file."""
    if not isinstance(run.cluster, SettledSlurm):
        return ()
    return tuple((variable_of(option), value) for option, value in site_options(run.cluster) if isinstance(value, FromEnvironment))


def variable_of(option: str) -> str:
    return f"SBATCH_{VARIABLE_OF.get(option, option.upper().replace('-', '_'))}"


def contradicting_variables(run: Run, run_dir: RunDir, asked: Asked = NOTHING) -> tuple[str, ...]:
    """The variables of the site that would override what the script says, or cannot stand beside it; they are withheld from sbatch."""
    options = [directive.removeprefix("--").partition("=")[0] for directive in directives(run, run_dir, asked)]
    other_memory = BESIDE_MEMORY if "mem" in options else ()
    return (*UNPLANNED, *LEFT_BY_ANOTHER_JOB, *other_memory, *(variable_of(option) for option in options))


def sbatch_argv(script: Path) -> tuple[str, ...]:
    return ("sbatch", "--parsable", str(script))


def parse_job_id(stdout: str) -> str:
    """The job id in what `sbatch --parsable` prints: `123`, or `123;cluster`.

    Raises:
        SubmissionError: when there is none.
    """
    for line in stdout.splitlines():
        match = re.fullmatch(r"([0-9]+)(;\S+)?", line.strip())
        if match:
            return match[1]
    raise SubmissionError(f"sbatch answered {stdout.strip()!r}, which names no job. Look for the job with `squeue --me`.")
