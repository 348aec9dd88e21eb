"""A job that waits for the end of another run (cluster.after): which run, and which job of Slurm."""

from dataclasses import replace
from pathlib import Path

from conf.run_dir import RunDir
from conf.schema import Cluster, Composed, Slurm
from launcher.errors import ConfigError
from launcher.facts.awaited import awaited_run
from launcher.launch.status import ACTIVE, named_run, status_of


def with_run_folder(composed: Composed) -> Composed:
    """The described run with the run folder in place of the name that cluster.after may have given.

    Raises:
        ConfigError: where there is no such run, or several have the name.
    """
    cluster = composed.cluster
    if not isinstance(cluster, Slurm) or cluster.after is None:
        return composed
    named = replace(composed, cluster=replace(cluster, after=str(named_run(cluster.after, Path(composed.output)).path)))
    path = composed.model.path
    if path is None or awaited_run(named, path) is None:
        return named
    # a folder that is not there yet could be taken for a name of the hub
    return replace(named, model=replace(composed.model, path=str(Path(path).expanduser().absolute())))


def awaited_jobs(cluster: Cluster) -> tuple[str, ...]:
    """The job whose good end is waited for; empty where there is nothing to wait for.

    Raises:
        ConfigError: where that run has ended otherwise, or belongs to no job.
    """
    if not isinstance(cluster, Slurm) or cluster.after is None:
        return ()
    now = status_of(RunDir(Path(cluster.after)))
    if now.state == "finished":
        return ()
    if now.state not in ACTIVE or now.job is None:
        why = "belongs to no job of Slurm" if now.state in ACTIVE else f"is {now.state}, and nothing will start it again"
        raise ConfigError(
            f"cluster.after={cluster.after}: that run {why}. Submit it first (regimen train resume={cluster.after}), or leave the key out."
        )
    return (now.job,)
