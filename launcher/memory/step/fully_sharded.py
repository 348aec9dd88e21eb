"""FSDP2's groups as accelerate 1.15 makes them (utils/fsdp_utils.py, fsdp2_prepare_model).

An embedding of its own, every layer, and a tail of last norm and head, to which a tied embedding belongs. A group is whole for its own passes;
the tail stays so from the loss to its own gradient.
"""

from conf.exchanges import reshards
from conf.schema import Fsdp
from launcher.memory.job import Job
from launcher.memory.terms import Term, Terms
from launcher.memory.weights.gathering import block_bytes


def by_groups(job: Job) -> bool:
    return isinstance(job.run.sharding, Fsdp) and job.split.ranks > 1 and reshards(job.run.sharding)


def block(job: Job) -> int:
    return block_bytes(job.run, job.facts, job.census, job.storage, job.split)


def outer(job: Job) -> int:
    """Of the tail; as large as an embedding of its own."""
    return job.storage.compute * job.head


def tail_terms(job: Job) -> Terms:
    return (Term("gathered weights", outer(job), "the tail: last norm and head"),)


def last_layer_buffers(job: Job) -> Terms:
    """The tail was reduced before, unless its embedding is still to come: then it and the head's gradient stay whole."""
    tied = outer(job) if job.facts.tied else 0
    head = Term("reduction buffers", job.storage.compute * job.census.head, "the head's gradient, whole or on its way to the other ranks")
    return (Term("gathered weights", tied + 2 * block(job), "the layer and the next one"), head)


def first_layer_buffers(job: Job) -> Terms:
    """The next group is a layer where layers below are frozen, else an embedding of its own. One layer above, it is a layer in any case: what that
    one saved is still there, and its share of the gradients does not exist yet."""
    tied, frozen_below = job.facts.tied, job.census.depth < job.facts.layers
    saved = job.arithmetic.residual * job.facts.hidden * job.tokens if job.run.training.gradient_checkpointing else job.learning_layer
    above = block(job) - job.storage.gradient * job.census.layer // job.split.ranks + saved
    below = block(job) if frozen_below else 0 if tied else outer(job)
    gathered = block(job) + max(below, above if job.census.trained_layers > 1 else 0) + (outer(job) if tied and not frozen_below else 0)
    head = job.storage.compute * job.census.head if tied else 0
    return (
        Term("gathered weights", gathered, "the layer and the next group"),
        Term("reduction buffers", head + reduced_layer(job), "of the layer above"),
    )


def end_buffers(job: Job) -> Terms:
    """The group of the embedding is gathered for its gradient too, and as one piece before it is cut into weights; of a tied one there are the
    gradients as the head and as the embedding, and their sum (measured on two H200, to the byte)."""
    gradients = job.storage.compute * job.census.embedding * (3 if job.facts.tied else 1)
    pieces = 0 if job.facts.tied else outer(job)
    return (
        Term("gathered weights", outer(job), "of the embedding's group"),
        Term("gradients of embedding and head", max(gradients, pieces), "whole, before they are reduced"),
        Term("reduction buffers", reduced_layer(job), "of the first layer"),
    )


def reduced_layer(job: Job) -> int:
    """One at a time waits for the other ranks (torch/distributed/fsdp/_fully_shard/_fsdp_param_group.py, post_backward)."""
    return job.storage.compute * job.census.layer


def whole_gradients(job: Job, elements: int) -> Term:
    """A layer's gradients are reduced when all of them are made."""
    return Term("whole gradients", job.storage.compute * max(elements, 0), "of this layer, before they are reduced")
