"""The blocks of a training step that are large enough to shape the allocator's segment, in bytes."""

from dataclasses import dataclass

from conf.buckets import zero_bucket
from conf.constants import LOSS_CHUNK
from conf.schema import Badam, Freeze, Lora, Zero
from launcher.memory.allocator.scripts import Scripts, scripts_of
from launcher.memory.job import Job
from launcher.memory.step.activations import mlp_width
from launcher.memory.step.loss import fused_chunk, own_chunk
from launcher.memory.step.recomputation import recomputed_layers
from launcher.memory.step.saved import final_norm_bytes
from launcher.memory.terms import total
from launcher.memory.weights.gathering import block_bytes
from launcher.memory.weights.parameters import adapter_targets, frozen_selection, one_block, places
from launcher.memory.weights.resident import flat_gradients, gathered_terms, reduction_terms, resident_terms, step_terms, views_buckets, workspace

FLATTENED, TEMPORARIES = "flattened gradients", "temporaries of the step"  # terms of step_terms
STATES, WORKSPACES = "optimizer states", "cuBLAS workspace"  # terms of resident_terms that are made later


@dataclass(frozen=True)
class Blocks:
    resident: int  # in one piece: made before the first step
    workspaces: int  # of cuBLAS, of all threads, made before the first step
    late_workspace: int  # of one thread, made in the first step: of the runs on record that were measured before trainers/callbacks/workspaces.py
    temporaries: int  # of the optimizer's step
    states: tuple[int, ...]  # made at the end of the first step
    casts: tuple[tuple[int, ...], ...]  # autocast's copies of the weights of every layer that the passes run through
    gradients: tuple[tuple[int, ...], ...]  # of the same layers
    embedding: tuple[int, ...]  # gradients
    head: tuple[int, ...]
    head_cast: tuple[int, ...]
    tied: bool
    layer_input: int
    pieces: tuple[int, ...]  # what a layer saves: its norms' first, then the rest in parts as large as an inner value of the MLP
    work: tuple[int, ...]  # what the backward pass of an MLP makes
    norms: int
    recomputed: int  # layers from the lowest one, which keep their input alone
    final: int
    logits: int
    copy: int  # in fp32
    kept: int  # log-softmax, and each of its two gradients
    chunks: int  # of tokens, one after the other; 1: all at once
    buckets: tuple[int, ...]  # of ZeRO-1 and 2, from the first gradient to the last
    reduction: tuple[int, ...]
    flattened: tuple[int, ...]  # DeepSpeed's partition of the gradients in one piece, for the step
    gathers: tuple[int, ...]  # FSDP2's, on a stream of their own, whose memory no other stream uses
    kept_share: float  # of a whole gradient, beyond its layer's backward pass
    viewed: bool  # gradients lie in DDP's buckets, which are resident
    accumulated: bool  # further passes add their gradients to those of the first, of one rank
    scripts: Scripts | None  # of a loss over whole logits, in the place of logits, copy and kept


def blocks_of(job: Job) -> Blocks:
    layers, embedding, head = trained_tensors(job)
    states = state_blocks(job, (*embedding, *(size for layer in layers for size in layer), *head))
    amp, compute, gradient = job.autocasts, job.storage.compute, job.storage.gradient
    width = job.arithmetic.element * mlp_width(job.facts) * job.tokens
    logits = logit_tokens(job) * job.facts.vocab
    return Blocks(
        resident=resident_bytes(job, made_later=sum(states)),
        workspaces=workspace(job),
        late_workspace=0,
        temporaries=sum(term.bytes for term in step_terms(job) if term.name == TEMPORARIES),
        states=states,
        casts=tuple(tuple(compute * size for size in layer) if amp else () for layer in layers),
        gradients=tuple(tuple(gradient * size for size in layer) for layer in layers),
        embedding=tuple(gradient * size for size in embedding),
        head=(gradient * job.census.head,) if job.census.head else (),
        head_cast=(compute * job.census.head,) if job.census.head and amp else (),
        tied=job.facts.tied and bool(embedding),
        layer_input=job.arithmetic.residual * job.facts.hidden * job.tokens,
        pieces=pieces_of(job, width),
        work=(width,) if job.arithmetic.fused else (width, width),
        norms=job.facts.norms_per_layer,
        recomputed=recomputed_layers(job),
        final=final_norm_bytes(job),
        logits=job.arithmetic.element * logits,
        copy=4 * logits if job.arithmetic.element == 2 and not writes_over_logits(job) else 0,
        kept=job.arithmetic.element * job.facts.hidden * job.tokens if writes_over_logits(job) else 4 * logits,
        chunks=-(-job.tokens // LOSS_CHUNK) if job.run.training.loss == "chunked" else 1,
        buckets=bucket_blocks(job),
        reduction=() if bucket_blocks(job) else tuple(term.bytes for term in reduction_terms(job)),
        flattened=tuple(term.bytes for term in step_terms(job) if term.name == FLATTENED),
        gathers=gather_blocks(job),
        kept_share=0.0 if flat_gradients(job) or job.split.host_states or views_buckets(job) else 1 / job.split.gradients,
        viewed=views_buckets(job),
        accumulated=job.run.training.accumulation > 1 and job.split.ranks == 1,
        scripts=scripts_of(job),
    )


def trained_tensors(job: Job) -> tuple[list[tuple[int, ...]], tuple[int, ...], tuple[int, ...]]:
    """Elements of every tensor that learns: by layer, from the lowest that the passes run through; of the embedding; of a head of its own."""
    facts, regime = job.facts, job.run.regime
    layers: list[list[int]] = [[] for _ in range(facts.layers)]
    if isinstance(regime, Lora):
        for module in adapter_targets(regime, facts):
            for number in module.layers:
                layers[number] += [regime.rank * module.inputs, regime.rank * module.outputs]
        return [tuple(layer) for layer in layers], (), ()
    chosen = frozen_selection(regime, facts) if isinstance(regime, Freeze) else one_block if isinstance(job.run.optim, Badam) else places
    learning = [(module, chosen(module)) for module in facts.modules if module.parameters]
    for module, found in learning:
        for number in found if module.layers else ():
            layers[number].append(module.parameters)
    outside = {kind: tuple(m.parameters for m, found in learning if found and m.kind == kind) for kind in ("embedding", "head")}
    return [tuple(layer) for layer in layers[facts.layers - job.census.depth :]], outside["embedding"], outside["head"]


def state_blocks(job: Job, tensors: tuple[int, ...]) -> tuple[int, ...]:
    """Two for every tensor, as AdamW makes them; nothing where the engine or the optimizer has them before the first step, or on the host."""
    stated = sum(term.bytes for term in resident_terms(job) if term.name == STATES)
    if job.storage.master or not stated or not tensors:
        return ()
    share = stated / sum(tensors) / 2
    return tuple(int(share * size) for size in tensors for _ in range(2))


def resident_bytes(job: Job, made_later: int) -> int:
    there = sum(term.bytes for term in resident_terms(job) if term.name != WORKSPACES)
    return there - made_later + total(gathered_terms(job))


def bucket_blocks(job: Job) -> tuple[int, ...]:
    """runtime/zero/stage_1_and_2.py, setup_buckets: two, made for the first gradient; with offloading a larger one is copied."""
    if not isinstance(job.run.sharding, Zero) or job.run.sharding.stage == 3:
        return ()
    element, largest, bucket = job.storage.gradient, job.census.largest, zero_bucket(job.census.trained)
    return (element * bucket,) * 2 + ((element * largest,) if job.split.host_states and largest > bucket else ())


def gather_blocks(job: Job) -> tuple[int, ...]:
    """The block whose layer runs and the next one, or the root's (torch/distributed/fsdp/_fully_shard/_fsdp_collectives.py, foreach_all_gather)."""
    layer = block_bytes(job.run, job.facts, job.census, job.storage, job.split)
    root = total(gathered_terms(job)) if layer else 0
    return (layer, layer, max(root - 2 * layer, 0)) if layer else ()


def pieces_of(job: Job, width: int) -> tuple[int, ...]:
    element = job.arithmetic.residual if job.arithmetic.fused else 4
    norms = (element * job.facts.hidden * job.tokens,) * job.facts.norms_per_layer
    saved = (job.learning_layer if job.census.trained_layers else job.frozen_layer) - sum(norms)
    count = max(1, round(saved / width)) if width else 1
    return (*norms, *(max(saved // count, 0),) * count)


def writes_over_logits(job: Job) -> bool:
    """The loss of training.kernels=fused, which keeps the gradient of the last hidden states instead."""
    return job.run.training.loss == "fused" and job.run.training.kernels == "fused"


def logit_tokens(job: Job) -> int:
    """Tokens whose logits exist at a time."""
    tokens = job.tokens
    if writes_over_logits(job):
        return min(tokens, own_chunk(job.facts))
    return {"plain": tokens, "chunked": min(tokens, LOSS_CHUNK), "fused": min(tokens, fused_chunk(job.facts, tokens))}[job.run.training.loss]
