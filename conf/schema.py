"""Types of every config choice. Values live only in the YAML files beside this module; a field here has no default."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


@dataclass
class Model:
    name: str = MISSING  # short label, used in run names and reports
    path: str | None = MISSING  # local folder or hub id; null: the embedded architecture alone
    revision: str | None = MISSING  # hub revision; null: the default branch
    init: str = MISSING  # pretrained | random: random builds from the architecture and the seed, and downloads nothing
    tokenizer: str | None = MISSING  # folder or hub id; null: the model's own; bytes: the built-in byte-level one
    architecture: dict[str, Any] | None = MISSING  # the contents of config.json, so that planning works offline
    added_tokens: list[str] = MISSING  # that the tokenizer is to know as one each; they get embeddings of their own, which begin at the mean
    vocab_multiple: int = MISSING  # embedding and head get rows up to a multiple of it; 1: as many as there are tokens
    rope_scaling: str | None = MISSING  # null | linear | dynamic | yarn, applied up to data.cutoff


@dataclass
class Data:
    name: str = MISSING
    sets: list[str] = MISSING  # names in the registry, data files, folders of them, hub ids, or `generated`
    folder: str = MISSING  # where the registry and its files lie
    registry: str = MISSING  # file name of the registry in `folder` (LLaMA-Factory's dataset_info.json format)
    template: str | None = MISSING  # null: the tokenizer's own chat template; else a name under trainers/data/templates
    cutoff: int = MISSING  # tokens; longer samples are truncated at their end
    max_samples: int | None = MISSING  # per set; null: all
    validation_share: float = MISSING  # 0..1 of the samples, held out
    packing: bool = MISSING  # best-fit packing; attention does not cross samples
    mask_prompt: bool = MISSING  # true: only answers are learned
    train_history: bool = MISSING  # of several turns: true: every answer is learned; false: the last alone
    mixing: str = MISSING  # concatenate | interleave_under (ends with the first set used up) | interleave_over (with the last; others repeat)
    probabilities: list[float] | None = MISSING  # one a set, summing to 1, when interleaving; null: taken in turn
    evaluation_sets: list[str] = MISSING  # like `sets`, evaluated on instead of validation_share
    streaming: bool = MISSING  # true: read and tokenised while training; needs training.max_steps
    buffer: int = MISSING  # samples in hand that a streamed run shuffles and packs
    on_bad: str = MISSING  # fail | drop: what becomes of rows that cannot be used
    on_long: str = MISSING  # truncate | drop | fail: what becomes of samples longer than cutoff
    bad_share: float = MISSING  # 0..1: the largest share of all rows that on_bad and on_long may drop
    cache: str | None = MISSING  # folder of tokenised data; null: .data under `output`
    workers: int | None = MISSING  # processes that tokenise; null: every core


@dataclass
class Stage:
    name: str = MISSING


@dataclass
class Pt(Stage):
    pass


@dataclass
class Sft(Stage):
    pass


@dataclass
class Rm(Stage):
    pass


@dataclass
class Dpo(Stage):
    loss: str = MISSING  # sigmoid | hinge | ipo | robust
    beta: float = MISSING
    label_smoothing: float = MISSING  # assumed share of pairs with their sides exchanged; 0 to below 0.5
    sft_weight: float = MISSING  # of the next-token loss on chosen answers; 0: none
    precompute_reference: bool = MISSING  # true: the reference's log-probabilities are computed before training


@dataclass
class Kto(Stage):
    beta: float = MISSING
    desirable_weight: float = MISSING
    undesirable_weight: float = MISSING


@dataclass
class Orpo(Stage):
    beta: float = MISSING  # weight of the odds ratio


@dataclass
class Simpo(Stage):
    beta: float = MISSING
    margin: float = MISSING  # the paper's gamma
    sft_weight: float = MISSING  # of the next-token loss on chosen answers; 0: none


@dataclass
class Ppo(Stage):
    reward_model: str | None = MISSING  # run folder of stage rm, or folder or hub id of a sequence classifier
    response_length: int = MISSING  # tokens
    temperature: float = MISSING
    mini_batches: int = MISSING  # a rollout is mini_batches x effective_batch answers
    epochs: int = MISSING  # passes over each rollout
    kl_coef: float = MISSING
    gamma: float = MISSING
    lam: float = MISSING
    cliprange: float = MISSING
    cliprange_value: float = MISSING
    vf_coef: float = MISSING
    missing_eos_penalty: float | None = MISSING
    whiten_rewards: bool = MISSING


@dataclass
class Grpo(Stage):
    rewards: list[str] = MISSING  # names of trainers/rewards.py, or module:function
    reward_packages: list[str] = MISSING  # from which alone `rewards` may import
    format: str | None = MISSING  # a regular expression
    reward_model: str | None = MISSING  # as for ppo
    generations: int = MISSING  # answers to each prompt
    response_length: int = MISSING  # tokens
    temperature: float = MISSING
    kl_coef: float = MISSING
    epsilon: float = MISSING
    loss_type: str = MISSING  # dapo | grpo | bnpo | dr_grpo
    scale_rewards: str = MISSING  # group | batch | none


@dataclass
class Regime:
    name: str = MISSING


@dataclass
class Full(Regime):
    pass


@dataclass
class Freeze(Regime):
    layers: int = MISSING  # n > 0: the last n layers learn; n < 0: the first -n; 0: only `modules`
    modules: list[str] = MISSING  # further modules that learn, by name or suffix (norm, lm_head, ...)
    new_blocks: int = MISSING  # blocks that are inserted, evenly over the depth, and learn; they change nothing at the start


@dataclass
class Lora(Regime):
    rank: int = MISSING  # width of the adapter
    alpha: float = MISSING  # the adapter's output is scaled by alpha / rank (rslora: alpha / sqrt(rank))
    dropout: float = MISSING
    targets: list[str] = MISSING  # module names; [all-linear]: every linear layer except the output head
    rslora: bool = MISSING
    dora: bool = MISSING
    init: str = MISSING  # default: the base's own output at the start | pissa | pissa_niter_N: from the base's main directions (exact, or N rounds)
    lora_plus_ratio: float | None = MISSING  # learning rate of the B matrices over that of the A matrices; null: one for both
    adapter: str | None = MISSING  # folder of an adapter, or of the run that trained one, which goes on learning; null: a new one


@dataclass
class Qlora(Lora):
    bits: int = MISSING  # 8 or 4 (bitsandbytes), 2 (HQQ)
    double_quant: bool = MISSING  # 4 bits: quantise the scales too


@dataclass
class Optim:
    name: str = MISSING  # a file of conf/optim
    lr: float = MISSING
    weight_decay: float = MISSING
    beta1: float = MISSING
    beta2: float = MISSING
    eps: float = MISSING
    max_grad_norm: float = MISSING
    scheduler: str = MISSING  # a name of transformers.SchedulerType
    warmup: float = MISSING  # below 1: share of all steps; from 1 on: steps


@dataclass
class Galore(Optim):
    rank: int = MISSING  # of the space that a matrix's gradient is projected into
    update_interval: int = MISSING  # steps between two projections of one matrix
    scale: float = MISSING  # of the update of projected matrices


@dataclass
class Apollo(Galore):
    scale_by: str = MISSING  # channel | tensor: what shares one factor between gradient and update


@dataclass
class Badam(Optim):
    switch_interval: int = MISSING  # steps that one block of layers learns before the next one does
    order: str = MISSING  # ascending | descending | random: of the blocks


@dataclass
class Training:
    epochs: float = MISSING
    max_steps: int | None = MISSING  # overrides epochs
    micro_batch: int = MISSING  # samples per rank and forward pass
    accumulation: int | None = MISSING  # forward passes per optimizer step; null: 1, or what effective_batch needs
    fit: str = MISSING  # off | auto: auto chooses micro_batch, accumulation, gradient_checkpointing and sharding for effective_batch
    effective_batch: int | None = MISSING  # samples per optimizer step over all ranks; null: micro_batch x accumulation x ranks
    precision: str = MISSING  # bf16_amp | fp16_amp | bf16 | fp32
    gradient_checkpointing: bool = MISSING
    attention: str | None = MISSING  # sdpa | varlen (packed rows) | eager; null: varlen where rows are packed and it can, else sdpa, else eager
    loss: str = MISSING  # plain | chunked | fused (liger-kernel, GPU only)
    kernels: str = MISSING  # plain | fused: faster forms of the same mathematics, rows without padding, nothing read from the GPU between logs
    neftune_alpha: float | None = MISSING
    seed: int = MISSING
    log_interval: int = MISSING  # steps
    dataloader_workers: int = MISSING  # per rank


@dataclass
class Checkpoint:
    interval: int = MISSING  # steps between checkpoints; 0: only at a stop
    keep: int = MISSING  # committed checkpoints kept, at least 1
    resume: str = MISSING  # newest | step-N: where a started run folder goes on


@dataclass
class Evaluation:
    interval: int = MISSING  # steps between evaluations; 0: none but the first and the last
    micro_batch: int = MISSING
    best_at_end: bool = MISSING  # the final model is the checkpoint that is best by `metric`
    metric: str = MISSING  # eval_loss, or what the stage evaluates beside it (conf/metrics.py)
    patience: int | None = MISSING  # evaluations without a better `metric` before training ends; null: it goes to its end
    generate: str | None = MISSING  # a prompt answered before and after training; null: none


@dataclass
class Sharding:
    name: str = MISSING


@dataclass
class Ddp(Sharding):
    bucket_mb: int = MISSING  # gradients are reduced in buckets of this size


@dataclass
class Zero(Sharding):
    stage: int = MISSING  # 1: optimizer states split over the ranks; 2: and gradients; 3: and weights
    offload_optimizer: bool = MISSING  # optimizer states in host memory
    offload_params: bool = MISSING  # stage 3: weights in host memory


@dataclass
class Fsdp(Sharding):
    reshard_after_forward: bool = MISSING  # free gathered weights between forward and backward


@dataclass
class Backend:
    name: str = MISSING  # torchrun | accelerate
    port: int = MISSING  # rendezvous port of a local run; 0: a free one
    max_restarts: int = MISSING  # restarts of failed ranks by the agent itself


@dataclass
class Node:
    name: str = MISSING
    auto: bool = MISSING  # true: ask the GPU driver of this machine, and fill the fields below
    gpus: int | None = MISSING  # on one node; 0: a CPU node
    gpu_name: str | None = MISSING
    gpu_memory: int | None = MISSING  # bytes of one GPU, as NVML reports the total
    host_memory: int | None = MISSING  # bytes; null: the smaller of the cgroup limit and MemTotal of this machine
    tflops: float | None = MISSING  # dense bf16 peak of one GPU, TFLOP/s by the vendor's data sheet; null: no MFU


@dataclass
class Cluster:
    name: str = MISSING
    nodes: int = MISSING
    ranks_per_node: int | None = MISSING  # null: one per GPU of the node, two on a CPU node


@dataclass
class Local(Cluster):
    pass


@dataclass
class Slurm(Cluster):
    partition: str | None = MISSING
    account: str | None = MISSING
    qos: str | None = MISSING
    time: str | None = MISSING  # HH:MM:SS or D-HH:MM:SS; null: the partition's own limit
    gpu_type: str | None = MISSING  # as in --gpus-per-node=TYPE:N; null: any
    cpus_per_rank: int = MISSING
    memory: str | None = MISSING  # per node, as --mem takes it; null: the partition's default
    constraint: str | None = MISSING
    reservation: str | None = MISSING
    exclude: str | None = MISSING
    signal_seconds: int = MISSING  # how long before the time limit the run is told to save and requeue


@dataclass
class Tracking:
    name: str = MISSING  # none | tensorboard | wandb
    project: str | None = MISSING
    entity: str | None = MISSING


@dataclass
class Gate:
    mode: str = MISSING  # enforce | advise | off
    floor: str = MISSING  # strict | advisory: whether the published table alone may refuse
    margin: float = MISSING  # share of the predicted peak kept free
    canary: bool = MISSING  # where a local run is within the estimate's uncertainty of the limit, two real steps decide


@dataclass
class Run:
    """One fully described run. Compose it with launcher.compose, read it back with conf.run_dir.load_run."""

    name: str = MISSING  # runs are kept under output/name/time
    output: str = MISSING
    model: Model = MISSING
    data: Data = MISSING
    stage: Stage = MISSING
    regime: Regime = MISSING
    optim: Optim = MISSING
    training: Training = MISSING
    checkpoint: Checkpoint = MISSING
    evaluation: Evaluation = MISSING
    sharding: Sharding = MISSING
    backend: Backend = MISSING
    node: Node = MISSING
    cluster: Cluster = MISSING
    tracking: Tracking = MISSING
    gate: Gate = MISSING


# One row per choice whose type has more fields than its group's; the key is what `name` holds.
SUBTYPES: dict[str, dict[str, type]] = {
    "stage": {"pt": Pt, "sft": Sft, "rm": Rm, "dpo": Dpo, "kto": Kto, "orpo": Orpo, "simpo": Simpo, "ppo": Ppo, "grpo": Grpo},
    "regime": {"full": Full, "freeze": Freeze, "lora": Lora, "qlora": Qlora},
    "optim": {
        "adamw": Optim,
        "adamw_foreach": Optim,
        "adamw_8bit": Optim,
        "paged_adamw": Optim,
        "paged_adamw_8bit": Optim,
        "adafactor": Optim,
        "lion": Optim,
        "lion_8bit": Optim,
        "paged_lion_8bit": Optim,
        "muon": Optim,
        "sgd": Optim,
        "galore": Galore,
        "galore_8bit": Galore,
        "apollo": Apollo,
        "badam": Badam,
    },
    "sharding": {
        "ddp": Ddp,
        "zero1": Zero,
        "zero2": Zero,
        "zero3": Zero,
        "zero2_offload": Zero,
        "zero3_offload": Zero,
        "fsdp2": Fsdp,
    },
    "cluster": {"local": Local, "slurm": Slurm},
}

PLAIN_GROUPS: dict[str, type] = {
    "model": Model,
    "data": Data,
    "training": Training,
    "checkpoint": Checkpoint,
    "evaluation": Evaluation,
    "backend": Backend,
    "node": Node,
    "tracking": Tracking,
    "gate": Gate,
}

GROUPS: tuple[str, ...] = (*PLAIN_GROUPS, *SUBTYPES)


@cache  # the store outlives a composition, and filling it takes a tenth of one
def register() -> None:
    """Store every type where YAML files name it: `/schema/<group>` or, for subtypes, `/schema/<group>/<type>`."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Run)
    for group, node in PLAIN_GROUPS.items():
        store.store(group="schema", name=group, node=node)
    for group, types in SUBTYPES.items():
        for node in set(types.values()):
            store.store(group=f"schema/{group}", name=node.__name__.lower(), node=node)
