"""What the values of cluster=slurm must hold besides their form (slurm_forms.py): sizes, and whether the time limit leaves time to train."""

import re
from math import ceil
from pathlib import Path

from conf.schema import Composed, Node, Slurm
from conf.sizes import MIB, bytes_of
from launcher.errors import ConfigError
from launcher.facts.gpu_types import card_names, card_of, described_card, read_row
from launcher.rules.slurm_forms import PATH, SITE_DEFAULT, TIME, refuse_other_form, refuse_other_values
from launcher.words import duration

SLURM_EARLY = 60  # seconds: Slurm looks at time limits about every 30 s, and a signal may come this much before its time (docs/guides/slurm.md)
START = 60  # seconds: processes, libraries, data and weights of a small model; the demo on two cores needs half of it
LEAST_MEMORY = 512 * MIB  # RANK_HOST_CPU of launcher/memory/constants.py, rounded up


def refuse_slurm_values(run: Composed) -> None:
    """Refuse what sbatch would not accept, before a folder is made.

    Raises:
        ConfigError: naming the key, the value and an example.
        Unsafe: for a value that sbatch or the shell could take for more than a value.
    """
    cluster = run.cluster
    if not isinstance(cluster, Slurm):
        return
    refuse_other_form("name", run.name)
    refuse_other_values(cluster)
    refuse_other_form("the run folder", str(Path(run.output).absolute()))
    refuse_unmountable(cluster, str(Path(run.output).absolute()))
    for row in cluster.gpu_types:
        read_row(row)
    refuse_other_card(run.node, cluster)
    refuse_other_memory(cluster)
    refuse_short_time(cluster)


def refuse_unmountable(cluster: Slurm, output: str) -> None:
    """The folder of all runs is the first mount of a container, and is written as the others are."""
    if cluster.container is not None and re.fullmatch(PATH, output) is None:
        raise ConfigError(
            f"output={output} cannot be mounted in cluster.container={cluster.container}: a mount is written with letters, digits "
            "and / . _ + @ = - only. Set output= to another folder."
        )


def refuse_other_card(node: Node, cluster: Slurm) -> None:
    """A job would land on other GPUs than those that it is judged on. Only cards of conf/node are compared: names of a site's own are not known."""
    asked = None if cluster.gpu_type is None or node.auto else card_of(cluster.gpu_type, cluster.gpu_types)
    described = {described_card(name).name: name for name in card_names()}
    if asked is None or asked.name == node.gpu_name or not {asked.name, node.gpu_name} <= described.keys():
        return
    raise ConfigError(
        f"cluster.gpu_type={cluster.gpu_type} asks Slurm for GPUs of the kind {asked.name}, and node={node.name} describes {node.gpu_name}, "
        f"on which the run would be judged. Set node={described[asked.name]}, or ask for another type. Where {cluster.gpu_type} is {node.gpu_name} "
        f"at your site, say so: cluster.gpu_types=[{cluster.gpu_type}:{described[str(node.gpu_name)]}]."
    )


def stated_memory(cluster: Slurm) -> int | None:
    """Bytes of host memory that the job gets on one node; None where Slurm decides, or gives all of it (0).

    Raises:
        ConfigError, Unsafe: for what is not a size.
    """
    if cluster.memory in (None, SITE_DEFAULT):
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
        return None if cluster.memory in (None, SITE_DEFAULT) else "0"
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
