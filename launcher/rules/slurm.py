"""What sbatch accepts as the value of each key of cluster=slurm, and whether the time limit leaves time to train."""

import re
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import conf
from conf.schema import Composed, SettledNode, Slurm
from conf.sizes import MIB, SIZE, bytes_of
from launcher.errors import ConfigError, Unsafe
from launcher.words import duration

NODES = Path(conf.__file__).parent / "node"
NAME = r"[A-Za-z0-9_][\w.+@:-]*"
SLURM_EARLY = 60  # seconds: Slurm looks at time limits about every 30 s, and a signal may come this much before its time (docs/slurm.md)
START = 60  # seconds: processes, libraries, data and weights of a small model; the demo on two cores needs half of it
LEAST_MEMORY = 512 * MIB  # RANK_HOST_CPU of launcher/memory/constants.py, rounded up
TIME = re.compile(r"(?:([0-9]+)-)?([0-9]{1,3}):([0-5][0-9]):([0-5][0-9])")


@dataclass(frozen=True)
class Form:
    """One row: how a value is written, as sbatch(1) describes it."""

    pattern: str
    words: str  # what to write
    example: str


# Every pattern starts with a letter or digit, and none accepts white space, quotes, $ or #: a newline would end the directive, and what follows it
# would run.
FORMS: dict[str, Form] = {
    "name": Form(r"\w[\w.+@:=,-]*", "letters, digits and _ . + @ : = , -", "demo"),
    "cluster.partition": Form(r"[A-Za-z0-9_][\w.,-]*", "a name, or several with commas between them", "gpu"),
    "cluster.account": Form(NAME, "a name", "lab_7"),
    "cluster.qos": Form(NAME, "a name", "high"),
    "cluster.time": Form(TIME.pattern, "HH:MM:SS or D-HH:MM:SS", "08:00:00"),
    "cluster.gpu_type": Form(r"[A-Za-z0-9_][\w.-]*", "a name", "h100"),
    "cluster.memory": Form(SIZE.pattern, "a number and its unit", "64GB"),
    "cluster.constraint": Form(r"[A-Za-z0-9_(\[][\w.,&|*()\[\]-]*", "features with & or | between them", "nvlink"),
    "cluster.reservation": Form(NAME, "a name", "course"),
    "cluster.exclude": Form(r"[A-Za-z0-9_][\w.,\[\]-]*", "nodes with commas between them", "node[3-5,7]"),
    # `%` is a pattern to sbatch, and white space would end --output
    "the run folder": Form(r"/[\w./+@:=,-]*", "a path of letters, digits and / . _ + @ : = , -", "/home/me/outputs"),
}
HARMLESS = re.compile(r"[\w.,:+@&|*()\[\]/=%~-]*")  # none of these ends a value in the script


def refuse_slurm_values(run: Composed) -> None:
    """Refuse what sbatch would not accept, before a folder is made.

    Raises:
        ConfigError: naming the key, the value and an example.
        Unsafe: for a value that sbatch or the shell could take for more than a value.
    """
    cluster = run.cluster
    if not isinstance(cluster, Slurm):
        return
    written = {key: getattr(cluster, key.removeprefix("cluster.")) for key in FORMS if key.startswith("cluster.")}
    for key, value in {"name": run.name, **written}.items():
        if value is not None:
            refuse_other_form(key, value)
    refuse_other_form("the run folder", str(Path(run.output).absolute()))
    refuse_other_memory(cluster)
    refuse_short_time(cluster)


def refuse_unstated_node(composed: Composed, found: SettledNode) -> None:
    """Machines from which jobs are submitted often have no GPU; a job that is planned for such a machine gets none from Slurm either.

    Raises:
        ConfigError: naming the nodes that can be stated.
    """
    if not isinstance(composed.cluster, Slurm) or not composed.node.auto or composed.node.gpus is not None or found.gpus:
        return
    names = sorted(path.stem for path in NODES.glob("*.yaml"))
    raise ConfigError(
        "cluster=slurm needs to know the node of the job: node=auto reads the machine from which you submit, and this one has no GPU. "
        f"Set node= to one of {', '.join(name for name in names if name not in ('auto', 'cpu'))}, describe another with node.gpus, node.gpu_memory "
        "and node.auto=false, or set node=cpu for a job without GPUs."
    )


def refuse_other_form(key: str, value: str) -> None:
    form = FORMS[key]
    if re.fullmatch(form.pattern, value) is not None:
        return
    setting = "output" if key == "the run folder" else key
    advice = f"Write {form.words}, for example {setting}={form.example}."
    if value.startswith("-") and re.fullmatch(r"-[0-9.]+", value):
        raise ConfigError(f"{key}={value} is below 0. {advice}")
    if value.startswith("-") or HARMLESS.fullmatch(value) is None:
        raise Unsafe(f"{key}={value!r} cannot be written into a batch script: a shell or sbatch could read more than a value in it. {advice}")
    raise ConfigError(f"{key}={value} is not a value that sbatch accepts. {advice}")


def stated_memory(cluster: Slurm) -> int | None:
    """Bytes of host memory that the job gets on one node; None where Slurm decides, or gives all of it (0).

    Raises:
        ConfigError, Unsafe: for what is not a size.
    """
    if cluster.memory is None:
        return None
    refuse_other_form("cluster.memory", cluster.memory)
    size = bytes_of(cluster.memory, bare=MIB)
    if size is None:
        raise ConfigError(f"cluster.memory={cluster.memory} is not a size. Write a number and its unit, for example cluster.memory=64GB.")
    return size or None


def slurm_size(cluster: Slurm) -> str | None:
    """The same as sbatch reads it: in its own units, rounded up to a whole number."""
    size = stated_memory(cluster)
    if size is None:
        return None if cluster.memory is None else "0"
    return f"{size // 1024**3}G" if size % 1024**3 == 0 else f"{-(-size // MIB)}M"


def refuse_other_memory(cluster: Slurm) -> None:
    size = stated_memory(cluster)
    if size is not None and size < LEAST_MEMORY:
        raise ConfigError(
            f"cluster.memory={cluster.memory} is {size / MIB:.1f} MiB, and the libraries of one rank need {LEAST_MEMORY // MIB} MiB. "
            "A number without a unit counts MiB, as for sbatch. Write the unit: cluster.memory=64GB."
        )


def refuse_short_time(cluster: Slurm) -> None:
    """A job that is warned before it has trained saves, is queued again, and is warned again."""
    if cluster.time is None:
        return
    limit, least = seconds_of(cluster.time), cluster.signal_seconds + SLURM_EARLY + START
    if limit >= least:
        return
    lead = limit - SLURM_EARLY - START
    lower = f", or lower cluster.signal_seconds to {lead} or less (it must leave time for one step and one checkpoint)" if lead > 0 else ""
    raise ConfigError(
        f"cluster.time={cluster.time} leaves no time to train. Slurm warns the run cluster.signal_seconds={cluster.signal_seconds} before the limit, "
        f"and up to {SLURM_EARLY} s earlier, and a start takes about {START} s. The job would be queued again and again. "
        f"Set cluster.time={as_time(least)} or more{lower}."
    )


def seconds_of(time: str) -> int:
    """Of HH:MM:SS or D-HH:MM:SS."""
    found = TIME.fullmatch(time)
    assert found is not None  # refuse_other_form has looked
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def as_time(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def late_end(run: Composed, seconds: float | None, latest: float | None) -> tuple[str, ...]:
    """A sentence where the steps of a new run may not end before the job's time limit. They take `seconds`, and by the range of that prediction at
    most `latest`; evaluations and checkpoints come on top."""
    cluster = run.cluster
    if not isinstance(cluster, Slurm) or cluster.time is None or seconds is None or latest is None:
        return ()
    training = seconds_of(cluster.time) - cluster.signal_seconds - SLURM_EARLY - START
    if latest <= training:
        return ()
    enough = as_time(ceil(latest) + seconds_of(cluster.time) - training)
    return (
        f"cluster.time={cluster.time} {'ends' if seconds > training else 'may end'} before the run: its steps are predicted to take "
        f"{duration(seconds)} (at most {duration(latest)}), and the limit leaves them about "
        f"{duration(max(training, 0))}. The job saves, is queued again and goes on. "
        f"Set cluster.time={enough} or more for one job, and more where evaluations or checkpoints take long.",
    )
