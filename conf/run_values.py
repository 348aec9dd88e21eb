"""A run as plain values, as run.yaml holds them, and back."""

from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from conf.choices import subtypes, type_of
from conf.environment import as_written, to_object
from conf.hosts import with_nodes
from conf.schema import (
    Cluster,
    Composed,
    Hosts,
    Local,
    Run,
    SettledCluster,
    SettledHosts,
    SettledLocal,
    SettledModel,
    SettledNode,
    SettledSlurm,
    SettledTraining,
    Slurm,
)
from conf.sizes import with_sizes


def run_as_dict(run: Composed) -> dict[str, Any]:
    """The run as plain dicts, lists and scalars, in the order of the schema. What was read from the environment is as it was written."""
    written: dict[str, Any] = as_written(plain(run))
    return written


def plain(value: Any) -> Any:
    """As dataclasses.asdict, which copies each scalar: a sweep asks for the values of ten thousand runs."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return value


def composed_from_dict(values: dict[str, Any]) -> Composed:
    """The typed run of `run_as_dict`, settled or not.

    Raises:
        KeyError, omegaconf.errors.OmegaConfBaseException: when a key or value does not belong to the schema.
        ValueError: for a size that cannot be read, and for machines that cannot be counted.
    """
    node = OmegaConf.structured(Composed)
    for group in subtypes():
        node[group] = OmegaConf.structured(type_of(group, values[group]["name"]))
    config = OmegaConf.merge(node, values)
    assert isinstance(config, DictConfig)
    run = to_object(config)
    if not isinstance(run, Composed):
        raise TypeError(f"OmegaConf made {type(run).__name__} of a run.")
    return with_nodes(with_sizes(run))


SETTLED_CLUSTERS: dict[type, type[SettledCluster]] = {Local: SettledLocal, Slurm: SettledSlurm, Hosts: SettledHosts}


def as_settled(composed: Composed) -> Run:
    """The same run, typed as settled.

    Raises:
        ValueError: naming the first key that is still open.
    """
    groups = {
        "model": (SettledModel, ("architecture",)),
        "training": (SettledTraining, ("accumulation", "effective_batch", "attention", "micro_batch", "gradient_checkpointing", "loss", "kernels")),
        "node": (SettledNode, ("gpus",)),
        "cluster": (settled_cluster(composed.cluster), ("ranks_per_node",)),
    }
    settled: dict[str, Any] = dict(vars(composed))
    for group, (kind, filled) in groups.items():
        values = vars(settled[group])
        still_open = [key for key in filled if values[key] is None]
        if still_open:
            raise ValueError(f"{group}.{still_open[0]} is null: this run is not settled.")
        settled[group] = kind(**values)
    return Run(**settled)


def settled_cluster(cluster: Cluster) -> type[SettledCluster]:
    return type(cluster) if isinstance(cluster, SettledCluster) else SETTLED_CLUSTERS[type(cluster)]
