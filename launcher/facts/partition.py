"""The nodes of a Slurm partition that a job can land on, as sinfo lists them, and the one node that stands for all of them."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from conf.schema import Node, Slurm
from conf.sizes import MIB
from launcher.errors import ConfigError, SubmissionError
from launcher.facts.gpu_types import Card, card_names, card_of, line_to_add
from launcher.facts.node import NodeFacts, is_before_ada, is_before_ampere, settled_node
from launcher.facts.slurm import ask, said
from launcher.words import plural

FORMAT = "%R|%P|%N|%c|%m|%G|%f|%l"  # partition, the same with * behind the default one, node, CPUs, MiB, generic resources, features, time limit
GPUS = re.compile(r"(?:^|,)gpu:(?:([^:,()]+):)?([0-9]+)")
ANY_OF = re.compile(r"[\[(]?([\w.-]+(?:\|[\w.-]+)*)[\])]?")
ALL_OF = re.compile(r"[\w.-]+(?:&[\w.-]+)*")
UNTYPED = ""


@dataclass(frozen=True)
class PartitionNode:
    """A node as sinfo lists it. Memory in bytes; `gpus`: how many of each TYPE (empty: gpu:N without a type)."""

    partition: str
    default: bool  # whether the partition is where jobs go that name none
    name: str
    cpus: int
    memory: int
    gpus: Mapping[str, int]
    features: frozenset[str]
    limit: str  # of time, as sinfo writes it; infinite: none


@dataclass(frozen=True)
class Offer:
    """What one node gives a job: `count` GPUs of one card (none on a node without)."""

    node: PartitionNode
    count: int
    card: Card | None
    gpu_type: str = UNTYPED


def parse_nodes(stdout: str) -> list[PartitionNode]:
    return [node_in(*fields) for line in stdout.splitlines() if len(fields := line.strip().split("|", 7)) == 8]


def node_in(partition: str, marked: str, name: str, cpus: str, memory: str, gres: str, features: str, limit: str) -> PartitionNode:
    counts: dict[str, int] = {}
    for kind, count in GPUS.findall(gres):
        counts[kind] = counts.get(kind, 0) + int(count)
    known = frozenset() if features == "(null)" else frozenset(features.split(","))
    return PartitionNode(partition, marked.endswith("*"), name, whole(cpus), whole(memory) * MIB, counts, known, limit)


def whole(text: str) -> int:
    return int(text.rstrip("+") or 0)


def settle_in_partition(node: Node, cluster: Slurm, site: Mapping[str, str], memory: int | None) -> NodeFacts:
    """node=auto of a Slurm job: the smallest node that the job can land on; what `node` and `cluster` state stays.

    Args:
        memory: bytes of host memory that the job states.

    Raises:
        ConfigError: when no node has what is asked for, a GPU type is not known, or Slurm cannot be asked.
    """
    try:
        nodes = nodes_for(cluster, site)
    except SubmissionError as error:
        raise ConfigError(f"cluster=slurm with node=auto reads the nodes of the partition. {error} {state_it()}") from error
    asked = replace(cluster, ranks_per_node=cluster.ranks_per_node or node.gpus)
    kept, notes = meeting(nodes, asked, memory, wants_gpus=node.gpus != 0)
    offers = [Offer(each, 0, None) for each in kept] if node.gpus == 0 else [offer for each in kept for offer in offers_of(each, cluster)]
    refuse_too_few(offers, nodes, asked)
    return smallest(node, offers, notes)


def state_it() -> str:
    return f"Set node= to one of {', '.join(card_names())}, or describe another with node.gpus, node.gpu_memory and node.auto=false."


def nodes_for(cluster: Slurm, site: Mapping[str, str]) -> list[PartitionNode]:
    """The nodes of the job's partitions; of the default one where none is named. Nodes that are down count, since they may come back.

    Raises:
        SubmissionError: when sinfo or scontrol does not answer.
        ConfigError: when there is no such partition.
    """
    wanted = cluster.partition or site.get("SBATCH_PARTITION")
    done = ask(("sinfo", "--noheader", "--Node", *([f"--partition={wanted}"] if wanted else []), f"--format={FORMAT}"), site)
    if done.returncode != 0:
        raise SubmissionError(f"sinfo failed: {said(done)}")
    found = parse_nodes(done.stdout)
    nodes = found if wanted else [each for each in found if each.default]
    if not nodes:
        known = ", ".join(sorted({each.partition for each in found or parse_nodes(ask(("sinfo", "--noheader", f"--format={FORMAT}"), site).stdout)}))
        what = f"cluster.partition={wanted} has no nodes." if wanted else "cluster.partition has no value, and Slurm has no default partition."
        raise ConfigError(f"{what} Set it to one of: {known or 'none is listed by sinfo'}.")
    return [*without_excluded(nodes, cluster, site)]


def without_excluded(nodes: Sequence[PartitionNode], cluster: Slurm, site: Mapping[str, str]) -> Iterator[PartitionNode]:
    """Without the nodes of cluster.exclude, and of a reservation those alone that it holds."""
    away = set(host_names(cluster.exclude, site)) if cluster.exclude else set()
    held = None
    if cluster.reservation:
        done = ask(("scontrol", "--oneliner", "show", "reservation", cluster.reservation), site)
        listed = re.search(r"\bNodes=(\S+)", done.stdout)
        if done.returncode != 0 or listed is None:
            raise ConfigError(
                f"cluster.reservation={cluster.reservation} is not known to Slurm: {said(done)}. `scontrol show reservation` lists them."
            )
        held = set(host_names(listed[1], site))
    return (each for each in nodes if each.name not in away and (held is None or each.name in held))


def host_names(listed: str, site: Mapping[str, str]) -> list[str]:
    """node[3-5,7] in single names."""
    done = ask(("scontrol", "show", "hostnames", listed), site)
    if done.returncode != 0:
        raise SubmissionError(f"scontrol show hostnames {listed} failed: {said(done)}")
    return done.stdout.split()


def meeting(nodes: Sequence[PartitionNode], cluster: Slurm, memory: int | None, *, wants_gpus: bool) -> tuple[list[PartitionNode], tuple[str, ...]]:
    """The nodes that have the CPUs, the memory, the GPUs and the features that the job asks for, and what could not be looked at."""
    ranks = least_gpus(cluster)
    notes: tuple[str, ...] = ()
    has = feature_test(cluster.constraint)
    if has is None:
        notes = (f"cluster.constraint={cluster.constraint} was not evaluated: the run is judged by the smallest node of the partition.",)
    kept = [
        each
        for each in nodes
        if each.cpus >= ranks * cluster.cpus_per_rank
        and (memory is None or each.memory >= memory)
        and (not wants_gpus or any(count >= ranks for kind, count in each.gpus.items() if cluster.gpu_type in (None, kind)))
        and (has is None or has(each.features))
        and (cluster.time is None or seconds_of(cluster.time) <= seconds_of(each.limit))
    ]
    return kept, notes


def least_gpus(cluster: Slurm) -> int:
    """Of a node that the job can land on: one for each stated rank, or any."""
    return 1 if cluster.ranks_per_node is None else cluster.ranks_per_node


def seconds_of(limit: str) -> float:
    """Of a time limit as sinfo and cluster.time have it: [D-][HH:]MM:SS, or infinite."""
    if not limit[:1].isdecimal():
        return float("inf")
    days, _, clock = limit.rpartition("-")
    seconds = 0
    for part in clock.split(":"):
        seconds = 60 * seconds + int(part)
    return int(days or 0) * 86400 + seconds


def feature_test(constraint: str | None) -> Callable[[frozenset[str]], bool] | None:
    """Whether a node's features meet a constraint of names joined by & alone or by | alone; None for any other form."""
    if constraint is None:
        return lambda features: True
    if ALL_OF.fullmatch(constraint):
        return lambda features: set(constraint.split("&")) <= features
    either = ANY_OF.fullmatch(constraint)
    return None if either is None else lambda features: bool(set(either[1].split("|")) & features)


def offers_of(node: PartitionNode, cluster: Slurm) -> Iterator[Offer]:
    """A node with GPUs of several types gives a job one of them."""
    for kind, count in node.gpus.items():
        if cluster.gpu_type in (None, kind) and count >= least_gpus(cluster):
            yield Offer(node, count, known_card(node, kind, cluster.gpu_types), kind)


def known_card(node: PartitionNode, kind: str, site: Sequence[str]) -> Card:
    """By the type, or of GPUs without one by the one feature of their node that names a card.

    Raises:
        ConfigError: with the line to add.
    """
    if kind != UNTYPED:
        found = card_of(kind, site)
        if found is None:
            raise ConfigError(
                f"The GPU type {kind} of node {node.name} (partition {node.partition}) is not known, so its memory is not. "
                f"Say which card it is with {line_to_add(kind)}. Your own file of the group cluster can keep it (docs/guides/slurm.md)."
            )
        return found
    named = {feature: card for feature in sorted(node.features) if (card := card_of(feature, site)) is not None}
    if len(named) != 1:
        raise ConfigError(
            f"The GPUs of node {node.name} (partition {node.partition}) have no type in Slurm, and its features name no card. {state_it()}"
        )
    return next(iter(named.values()))


def refuse_too_few(offers: Sequence[Offer], nodes: Sequence[PartitionNode], cluster: Slurm) -> None:
    able = {offer.node.name for offer in offers}
    if len(able) >= cluster.nodes:
        return
    where = ", ".join(dict.fromkeys(each.partition for each in nodes)) or "the partition"
    listed = "; ".join(sorted({in_words(each) for each in nodes}))
    raise ConfigError(
        f"{plural(len(able), 'node')} of {where} {'has' if len(able) == 1 else 'have'} what the job asks for, and cluster.nodes={cluster.nodes}. "
        f"Its nodes: {listed or 'none is left'}. Change cluster.partition, cluster.gpu_type, cluster.ranks_per_node, cluster.cpus_per_rank, "
        "cluster.memory, cluster.time, cluster.constraint or cluster.exclude, or use node=cpu for a job without GPUs."
    )


def in_words(node: PartitionNode) -> str:
    gpus = ", ".join(f"{count} GPUs{f' of type {kind}' if kind else ''}" for kind, count in node.gpus.items()) or "no GPU"
    return f"{gpus}, {node.cpus} CPUs, {node.memory // MIB} MiB, time limit {node.limit}"


def smallest(node: Node, offers: Sequence[Offer], notes: tuple[str, ...]) -> NodeFacts:
    """One node that has no more than any of the offers: the least memory, GPUs and peak, and the card of the oldest generation.

    What an older card cannot do (16-bit floats, 8-bit products) no run may need that could land on it.
    """
    cards = {offer.card for offer in offers if offer.card is not None}
    host = min(offer.node.memory for offer in offers)
    told = (*notes, *differences(offers))
    facts = replace(node, host_memory=host if node.host_memory is None else min(host, node.host_memory))
    if not cards:
        return NodeFacts(settled_node(replace(facts, gpu_name=None, gpu_memory=None, tflops=None), 0), "sinfo", (), told, here=False)
    peaks = [card.tflops for card in cards]
    oldest = min(cards, key=lambda card: (not is_before_ampere(card.name), not is_before_ada(card.name), card.memory, card.tflops or 0, card.name))
    least = min((peak for peak in peaks if peak is not None), default=None)
    filled = replace(
        facts,
        gpu_name=node.gpu_name or oldest.name,
        gpu_memory=min(card.memory for card in cards) if node.gpu_memory is None else node.gpu_memory,
        tflops=node.tflops if node.tflops is not None else None if None in peaks else least,
    )
    return NodeFacts(settled_node(filled, node.gpus or min(offer.count for offer in offers)), "sinfo", (), told, here=False)


def differences(offers: Sequence[Offer]) -> tuple[str, ...]:
    """A sentence where the job can land on unequal nodes."""
    kinds: dict[str, set[str]] = {}
    for offer in offers:
        what = f"{offer.count} x {offer.gpu_type or (offer.card.name if offer.card else '')}" if offer.card else "CPUs"
        kinds.setdefault(f"{what} with {offer.node.memory // MIB} MiB", set()).add(offer.node.name)
    if len(kinds) < 2:
        return ()
    listed = "; ".join(f"{plural(len(names), 'node')} of {kind}" for kind, names in sorted(kinds.items()))
    return (
        f"The job can land on unequal nodes, and is judged by the smallest in each respect: {listed}. "
        "Choose among them with cluster.gpu_type, cluster.ranks_per_node, cluster.constraint, cluster.partition or cluster.exclude.",
    )
