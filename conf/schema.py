"""Types of every config choice. Values live only in the YAML files beside this module; a field here has no default."""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

if TYPE_CHECKING:
    Size = int  # what a run holds: conf/sizes.py has read what was written
    Layers = bool | int | str  # all, none, so many of them, or auto
    SettledLayers = bool | int
else:
    Size = Any  # what may be written: 48GB, 80GiB, 500MB, or a number of the key's unit. OmegaConf 2.3 cannot merge a union into a group.
    Layers = SettledLayers = Any


@dataclass
class Model:
    name: str = MISSING  # Short label, used in names of runs and in reports.
    path: str | None = MISSING  # Local folder or hub id. null: there are no files, and the model is built from `architecture`.
    revision: str | None = MISSING  # Revision on the hub. null: the default branch.
    init: str = MISSING  # pretrained | random: pretrained loads the weights of `path`. random draws them from training.seed and downloads no weights.
    tokenizer: str | None = MISSING  # Folder or hub id. null: the model's own. bytes: the built-in byte-level tokenizer.
    architecture: dict[str, Any] | None = MISSING  # The contents of config.json, so that planning works offline. null: they are read from `path`.
    added_tokens: list[str] = MISSING  # New tokens for the tokenizer. The embedding of each starts at the mean of the existing ones.
    vocab_multiple: int = MISSING  # The rows of the embedding and of the head are padded to a multiple of this. 1: no padding.
    rope_scaling: str | None = MISSING  # null | linear | dynamic | yarn: How rotary positions are stretched to data.cutoff. null: not at all.


@dataclass
class Data:
    name: str = MISSING  # Short label, used in reports.
    # What is trained on: names in the registry, data files, folders of them, hub ids, or `generated` (a small built-in task).
    sets: list[str] = MISSING
    folder: str = MISSING  # Folder that holds the registry and its files.
    registry: str = MISSING  # File name of the registry in `folder`, in the format of LLaMA-Factory's dataset_info.json.
    template: str | None = MISSING  # Name of a chat template in trainers/data/rows/templates. null: the tokenizer's own.
    cutoff: int = MISSING  # tokens: A longer sample is cut at its end, or treated as `on_long` says.
    max_samples: int | None = MISSING  # samples: At most this many are read from each set. null: all.
    validation_share: float = MISSING  # share: This share of the samples is held out for evaluation, from 0 to below 1.
    packing: bool = MISSING  # true: short samples share a row (best-fit packing), and attention does not cross samples.
    mask_prompt: bool = MISSING  # true: only answers are learned. false: prompts are learned too.
    train_history: bool = MISSING  # true: every answer of a conversation is learned. false: only the last one.
    # concatenate | interleave_under | interleave_over: _under ends when the first set is used up, _over when the last one is; the others repeat.
    mixing: str = MISSING
    probabilities: list[float] | None = MISSING  # Share of each set when sets are interleaved; together they are 1. null: the sets take turns.
    evaluation_sets: list[str] = MISSING  # Sets to evaluate on, named as in `sets`. Use them instead of validation_share.
    streaming: bool = MISSING  # true: data is read and tokenised while the run trains. Needs training.max_steps.
    buffer: int = MISSING  # samples: A streamed run holds this many, to shuffle and to pack them.
    on_bad: str = MISSING  # fail | drop: What happens to rows that cannot be used.
    on_long: str = MISSING  # truncate | drop | fail: What happens to samples that are longer than `cutoff`.
    # strict | repair: repair merges turns of one role, leaves out a last question without an answer, and lets an answer come first.
    turns: str = MISSING
    # special | text: special reads a control token within a text, such as <|im_end|>, as that token. text keeps it text.
    control_tokens: str = MISSING
    bad_share: float = MISSING  # share: At most this share of all rows may be dropped for on_bad and on_long, from 0 to 1.
    cache: str | None = MISSING  # Folder of tokenised data. null: .data under `output`.
    workers: int | None = MISSING  # processes: This many tokenise. null: one for each core.


@dataclass
class Stage:
    name: str = MISSING  # Decides the type. Set it with stage=CHOICE.


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
    # sigmoid | hinge | ipo | robust: sigmoid is arXiv:2305.18290, hinge arXiv:2305.10425, ipo arXiv:2310.12036, robust arXiv:2403.00409.
    loss: str = MISSING
    beta: float = MISSING  # How firmly the model is held to its reference. 0.1 to 0.5 are usual.
    # share: How many pairs are assumed to have their two answers swapped, from 0 to below 0.5. For sigmoid and robust.
    label_smoothing: float = MISSING
    sft_weight: float = MISSING  # Weight of the next-token loss on chosen answers, which is added to the loss. 0: none.
    # true: reference log-probabilities are computed once, before training, and no copy of the reference stays in memory.
    precompute_reference: bool = MISSING


@dataclass
class Kto(Stage):
    beta: float = MISSING  # How firmly the model is held to its reference.
    # Weight of good answers in the loss. If there are few, raise it until weight x count is 1 to 4/3 of that of the bad ones.
    desirable_weight: float = MISSING
    undesirable_weight: float = MISSING  # Weight of bad answers in the loss.


@dataclass
class Orpo(Stage):
    beta: float = MISSING  # Weight of the odds ratio beside the next-token loss on chosen texts (lambda in the paper).


@dataclass
class Simpo(Stage):
    beta: float = MISSING  # Scale of the rewards. The paper's own runs use 2.0 to 2.5.
    margin: float = MISSING  # How far the reward of a chosen answer should lead (gamma in the paper, which uses about half of beta).
    sft_weight: float = MISSING  # Weight of the next-token loss on chosen answers, which is added to the loss. 0: none.


@dataclass
class Ppo(Stage):
    # Folder of a finished run of stage=rm, or folder or hub id of a sequence classifier with one output. Must be set.
    reward_model: str | None = MISSING
    response_length: int = MISSING  # tokens: An answer has at most this many.
    temperature: float = MISSING  # Temperature of the sampling, and of the probabilities that are compared.
    mini_batches: int = MISSING  # A rollout is mini_batches x training.effective_batch answers. Each optimizer step uses one effective batch of it.
    epochs: int = MISSING  # Passes over each rollout.
    kl_coef: float = MISSING  # Price of each nat by which an answer is more likely than it was at the start.
    gamma: float = MISSING  # Discount of later tokens, from 0 to 1.
    lam: float = MISSING  # Lambda of the generalised advantage estimate (arXiv:1506.02438), from 0 to 1.
    cliprange: float = MISSING  # share: A token's probability counts as changed by at most this share.
    cliprange_value: float = MISSING  # A value counts as changed by at most this much.
    vf_coef: float = MISSING  # Weight of the value loss.
    missing_eos_penalty: float | None = MISSING  # This is subtracted from the reward of an answer that did not end. null: nothing is.
    whiten_rewards: bool = MISSING  # true: rewards are divided by their deviation over the rollout.


@dataclass
class Grpo(Stage):
    # Reward functions, which are added up: exact_answer, contains_answer, format, brevity, or module:function of a package in reward_packages.
    rewards: list[str] = MISSING
    reward_packages: list[str] = MISSING  # Packages from which rewards may be imported. No other code is run.
    format: str | None = MISSING  # Regular expression for the reward `format`. It must match the whole answer. null: none.
    # One more reward. Folder of a finished run of stage=rm, or folder or hub id of a sequence classifier with one output. null: none.
    reward_model: str | None = MISSING
    # answers: The model writes this many to each prompt. training.effective_batch counts answers and must be a multiple of it.
    generations: int = MISSING
    response_length: int = MISSING  # tokens: An answer has at most this many.
    temperature: float = MISSING  # Temperature of the sampling.
    kl_coef: float = MISSING  # Weight of the divergence from the start. Above 0, full and freeze hold a copy of the starting weights.
    epsilon: float = MISSING  # share: A token's probability counts as changed by at most this share.
    # dapo | grpo | bnpo | dr_grpo: What the losses of tokens are divided by (dapo: arXiv:2503.14476, dr_grpo: arXiv:2503.20783).
    loss_type: str = MISSING
    scale_rewards: str = MISSING  # group | batch | none: Whose deviation the advantages are divided by.


@dataclass
class Regime:
    name: str = MISSING  # Decides the type. Set it with regime=CHOICE.


@dataclass
class Full(Regime):
    pass


@dataclass
class Freeze(Regime):
    layers: int = MISSING  # n > 0: the last n layers learn. n < 0: the first -n layers learn. 0: none does.
    modules: list[str] = MISSING  # Further modules that learn, by name or suffix (norm, lm_head, ...).
    # blocks: This many new ones are inserted over the depth and learn instead of `layers`, so set layers=0 (LLaMA Pro, arXiv:2401.02415).
    new_blocks: int = MISSING


@dataclass
class Lora(Regime):
    rank: int = MISSING  # Width of the adapter.
    alpha: float = MISSING  # The adapter's output is scaled by alpha / rank (with rslora: alpha / sqrt(rank)).
    dropout: float = MISSING  # share: This share of the adapter's input is set to zero in training, from 0 to below 1.
    # Names of modules that get an adapter, such as [q_proj, v_proj]. [all-linear]: every linear layer except the output head.
    targets: list[str] = MISSING
    rslora: bool = MISSING  # true: the output is scaled by alpha / sqrt(rank) (arXiv:2312.03732).
    dora: bool = MISSING  # true: magnitude and direction are learned separately (arXiv:2402.09353).
    # default | pissa | pissa_niter_N: pissa (arXiv:2404.02948) starts from the base's main directions, pissa_niter_N finds them in N rounds.
    init: str = MISSING
    # Learning rate of the B matrices over that of the A matrices, for example 16 (LoRA+, arXiv:2402.12354). null: the same.
    lora_plus_ratio: float | None = MISSING
    adapter: str | None = MISSING  # Folder of an adapter, or of the run that trained it: that adapter is trained further. null: a new one.


@dataclass
class Qlora(Lora):
    bits: int = MISSING  # 8 | 4 | 2: Bits of a base weight. 8 and 4 are made by bitsandbytes, 2 by HQQ.
    double_quant: bool = MISSING  # true: with 4 bits, the scales are quantised too.
    # true: a 16-bit copy of the values that the bits stand for is made once and kept. It is as large as the base of regime=lora. Not with 8 bits.
    dequantised: bool = MISSING


@dataclass
class Optim:
    name: str = MISSING  # Decides the type. Set it with optim=CHOICE.
    lr: float = MISSING  # Peak of the learning rate.
    weight_decay: float = MISSING  # Strength of the weight decay.
    beta1: float = MISSING  # Decay of the first moment, from 0 to below 1.
    beta2: float = MISSING  # Decay of the second moment, from 0 to below 1.
    eps: float = MISSING  # This is added to the denominator of an update.
    max_grad_norm: float = MISSING  # Gradients with a larger norm are scaled down to this one. 0: never.
    # linear | cosine | cosine_with_restarts | polynomial | constant | constant_with_warmup | inverse_sqrt | cosine_with_min_lr:
    # How the learning rate changes over the steps; names of transformers. cosine_with_min_lr ends at a tenth of the peak.
    scheduler: str = MISSING
    warmup: float = MISSING  # Below 1: share of all steps. From 1 on: number of steps.


@dataclass
class Galore(Optim):
    rank: int = MISSING  # Width of the space that the gradient of each matrix is projected into.
    update_interval: int = MISSING  # steps: From one projection of a matrix to the next.
    scale: float = MISSING  # Factor on the updates of projected matrices.


@dataclass
class Apollo(Galore):
    scale_by: str = MISSING  # channel | tensor: What shares one factor between gradient and update.


@dataclass
class Badam(Optim):
    switch_interval: int = MISSING  # steps: One layer learns for this many before the next one does.
    order: str = MISSING  # ascending | descending | random: Order of the layers.


@dataclass
class Training:
    epochs: float = MISSING  # Passes over the training data.
    max_steps: int | None = MISSING  # steps: The run ends after this many, whatever `epochs` says. null: `epochs` decides.
    micro_batch: int | None = MISSING  # samples: Per rank and forward pass. null: 1, or what fit chooses.
    accumulation: int | None = MISSING  # Forward passes per optimizer step. null: 1, or what effective_batch needs.
    # off | auto: auto chooses for effective_batch the fastest permitted form of the keys here that are null, and of sharding.
    # null: on GPUs, but for ppo and grpo, all but the sharding, and no form that the estimate is not sure of.
    fit: str | None = MISSING
    effective_batch: int | None = MISSING  # samples: Per optimizer step, over all ranks. null: micro_batch x accumulation x ranks.
    # bf16_amp | fp16_amp | bf16 | fp32: With _amp, trained weights are fp32 and computing is autocast. bf16: all is bf16 (docs/concepts/full.md).
    precision: str = MISSING
    # true: activations are computed again in the backward pass, which takes less memory and more time. A number: those of so many layers, the lowest
    # ones. auto: of the fewest layers that fit. null: true, or what fit chooses; false for families that cannot.
    gradient_checkpointing: Layers | None = MISSING
    attention: str | None = MISSING  # sdpa | varlen | eager: varlen is for packed rows. null: the first of varlen, sdpa and eager that works.
    # plain | chunked | fused: chunked computes the logits of 512 tokens at a time, twice. fused is one kernel of liger-kernel (GPU only).
    # null: plain, or what fit chooses.
    loss: str | None = MISSING
    # plain | fused: fused uses faster forms of the same mathematics (trainers/kernels; not ppo and grpo). null: plain, or what fit chooses.
    kernels: str | None = MISSING
    # true: products of frozen matrices under adapters are made in 8-bit floating point: faster, and less exact. For kernels=fused (which null then
    # is), stages pt and sft, and GPUs of the Ada generation or newer. Evaluation and generation stay in 16 bits.
    fp8: bool = MISSING
    # true: two runs of the same job give the same weights, bit for bit, and so does one that was stopped and resumed (docs/concepts/checkpoints.md).
    deterministic: bool = MISSING
    neftune_alpha: float | None = MISSING  # Amount of noise on the embeddings (NEFTune, arXiv:2310.05914). null: none.
    seed: int = MISSING  # Seed of all random numbers.
    log_interval: int = MISSING  # steps: From one line of progress to the next.
    dataloader_workers: int = MISSING  # processes: This many load data for each rank. 0: the rank does it itself.
    # stop | skip | rollback: What happens at a step whose loss or gradient is NaN or infinite. skip leaves it out, and stops after ten in a row.
    # rollback goes on from the newest checkpoint with half the learning rate, at most three times without a new checkpoint.
    on_nan: str = MISSING
    # stop | split: What happens where memory runs out. split goes on from the newest checkpoint with at most half of `micro_batch`, as long as there
    # is a smaller one; each step keeps its samples.
    on_oom: str = MISSING


@dataclass
class Checkpoint:
    interval: int = MISSING  # steps: From one checkpoint to the next. 0: only when the run is stopped.
    # checkpoints: This many whole ones are kept, and two where it is 1, until the run is finished. With best_at_end the best is among them.
    keep: int = MISSING
    # newest | step-N | start: Where this one start of `resume=RUN` goes on; later checkpoints are set aside. start: at step 1.
    resume: str = MISSING
    # true: they are copied to host memory and written while training goes on (sharding=ddp). null: so of 1 GiB or more on a GPU, where host memory
    # has room for the copy.
    background: bool | None = MISSING


@dataclass
class Evaluation:
    interval: int = MISSING  # steps: From one evaluation to the next. 0: none.
    at_start: bool | None = MISSING  # true: one before the first step too. null: where `interval` is not 0.
    at_end: bool | None = MISSING  # true: one after the last step, wherever that falls. null: where `interval` is not 0.
    micro_batch: int = MISSING  # samples: Per rank and forward pass.
    best_at_end: bool = MISSING  # true: the final model is the checkpoint that is best by `metric`.
    # eval_loss | eval_reward_accuracy | eval_reward_margin | eval_reward:
    # Every stage has eval_loss; rm, dpo, orpo and simpo the next two; kto eval_reward_margin; ppo and grpo eval_reward.
    metric: str = MISSING
    patience: int | None = MISSING  # evaluations: Training ends after this many without a better `metric`. null: it never ends early.
    generate: str | None = MISSING  # A prompt that is answered before and after training. null: none.
    answers: int = MISSING  # This many held-out questions are answered before and after training, and the right answers are counted.


@dataclass
class Sharding:
    name: str = MISSING  # Decides the type. Set it with sharding=CHOICE.


@dataclass
class Ddp(Sharding):
    bucket_mb: Size = MISSING  # MiB: Gradients are averaged in buckets of this size.


@dataclass
class Zero(Sharding):
    stage: int = MISSING  # 1 | 2 | 3: 1 splits optimizer states over the ranks, 2 also gradients, 3 also weights. The choice decides it.
    offload_optimizer: bool = MISSING  # true: optimizer states stay in host memory. The choice decides it.
    offload_params: bool = MISSING  # true: weights stay in host memory; only with zero3_offload.
    # true: ZeRO-3 gathers and reduces whole layers, two ahead: fewer and larger exchanges. false: module by module, in less memory. null: true where
    # every weight learns on GPUs and nothing is on the host.
    whole_layers: bool | None = MISSING


@dataclass
class Fsdp(Sharding):
    # true: gathered weights are freed between the forward and the backward pass. false: they stay, in more memory and less time. null: true, or what
    # training.fit=auto chooses.
    reshard_after_forward: bool | None = MISSING


@dataclass
class Backend:
    name: str = MISSING  # torchrun | accelerate: What starts the ranks.
    port: int = MISSING  # Rendezvous port of a local run. 0: a free one.
    # Without a new checkpoint between, a run is started again at most this often after a crash, a hang or a lost rank.
    # 0: never. null: 0 on this machine, 2 where Slurm or your own torchrun starts it again.
    max_restarts: int | None = MISSING


@dataclass
class Node:
    name: str = MISSING  # Short label, used in reports.
    auto: bool = MISSING  # true: the GPU driver of this machine is asked, and fills the fields below.
    gpus: int | None = MISSING  # GPUs of one node. 0: a CPU node. null: the driver is asked.
    gpu_name: str | None = MISSING  # Name of the GPU, used in reports and to recognise GPUs older than Ampere.
    gpu_memory: Size | None = MISSING  # bytes: All memory of one GPU, as NVML reports it.
    # bytes: null: this machine's, or its cgroup's limit if that is lower. Of a node that is not this machine, null is not judged.
    host_memory: Size | None = MISSING
    tflops: float | None = MISSING  # TFLOP/s: Dense bf16 peak of one GPU in the vendor's data sheet. null: no MFU is shown, and no time predicted.
    link: float | None = MISSING  # GB/s: What one GPU sends to another of its node, in one direction. null: what the data sheet of the card says.
    network: float | None = MISSING  # GB/s: What one node sends to another, all its adapters together. null: no time is predicted on several nodes.
    # ns: What one turn of a loop in Python takes there, which `regimen doctor` measures: small steps wait for the host. null: 36.
    python_turn: float | None = MISSING


@dataclass
class Cluster:
    name: str = MISSING  # Decides the type. Set it with cluster=CHOICE.
    nodes: int = MISSING  # Number of nodes.
    ranks_per_node: int | None = MISSING  # ranks: null: one for each GPU of the node, two on a CPU node.


@dataclass
class Local(Cluster):
    pass


@dataclass
class Slurm(Cluster):
    partition: str | None = MISSING  # What sbatch gets as --partition. null: the site's default.
    account: str | None = MISSING  # What sbatch gets as --account. null: the site's default.
    qos: str | None = MISSING  # What sbatch gets as --qos. null: the site's default.
    time: str | None = MISSING  # Time limit as HH:MM:SS or D-HH:MM:SS. null: the partition's own.
    gpu_type: str | None = MISSING  # The TYPE in --gpus-per-node=TYPE:N. null: any.
    # Which card a TYPE is that conf/gpu_types.yaml does not have: TYPE:CARD, a file of conf/node, or TYPE:NAME:MEMORY:TFLOPS (docs/guides/slurm.md).
    gpu_types: list[str] = MISSING
    cpus_per_rank: int = MISSING  # CPU cores for each rank.
    # Host memory of one node (--mem), with its unit: 64GB, 64GiB. A bare number counts MiB. 0: all of the node's. default: what the site gives a job
    # that asks for none. null: what the plan predicts, with a margin (docs/guides/slurm.md).
    memory: str | None = MISSING
    constraint: str | None = MISSING  # What sbatch gets as --constraint. null: none.
    reservation: str | None = MISSING  # What sbatch gets as --reservation. null: none.
    exclude: str | None = MISSING  # What sbatch gets as --exclude. null: none.
    exclusive: bool = MISSING  # true: no other job shares the nodes, and all of their memory is the job's where `memory` is null.
    licenses: str | None = MISSING  # What sbatch gets as --licenses. null: none.
    mail_user: str | None = MISSING  # Address for mails of Slurm about the job. null: the site's default.
    mail_type: str | None = MISSING  # Events that Slurm sends a mail about, such as END,FAIL. null: none.
    comment: str | None = MISSING  # What sbatch gets as --comment. null: none.
    dependency: str | None = MISSING  # What sbatch gets as --dependency. null: none.
    # A run, as a folder, a name or last: this job starts when that run has finished, and may be planned on the model that it will leave. null: none.
    after: str | None = MISSING
    directives: list[str] = MISSING  # Further options of sbatch without their dashes: nice=100, nodelist=node[3-5] (docs/guides/slurm.md lists them).
    # Lines before the run: module, ml, conda activate, mamba activate, spack load. If one fails, the job ends with exit code 2.
    setup: list[str] = MISSING
    export: list[str] | None = MISSING  # Only these variables of yours reach the job, beside what the plan sets. null: all of them.
    container: str | None = MISSING  # Image in which the ranks run; it must hold regimen. null: none.
    container_runtime: str = MISSING  # pyxis | apptainer: What starts the container.
    container_mounts: list[str] = MISSING  # FOLDER, FOLDER:INSIDE or FOLDER:INSIDE:ro. The folder `output` is mounted anyway.
    container_python: str = MISSING  # The Python of the image.
    signal_seconds: int = MISSING  # seconds: Before the time limit, Slurm signals the run this early, so that it saves; the job is then queued again.


@dataclass
class Hosts(Cluster):
    # The machines: names, addresses, user@name, or lists such as node[01-03,07]. The ranks meet on the first one.
    hosts: list[str] = MISSING
    address: str | None = MISSING  # Under which the others reach the first machine. null: its name in `hosts`.
    start: str = MISSING  # ssh | print: ssh starts the ranks of every machine. print shows the commands, for you to start there.
    python: str | None = MISSING  # The Python of regimen on every machine. null: the path of the one that runs here.
    export: list[str] = MISSING  # These variables of yours reach the machines, beside all that begin with NCCL_ or GLOO_.
    connect_seconds: int = MISSING  # seconds: A machine that has not begun by then ends the run.


@dataclass
class Tracking:
    # none | tensorboard | wandb | mlflow | swanlab | trackio | comet: Where metrics go beside progress.jsonl.
    name: str = MISSING
    also: list[str] = MISSING  # Further trackers that get the same metrics.
    project: str | None = MISSING  # Project of wandb, swanlab, trackio and comet, experiment of mlflow. null: the library decides.
    entity: str | None = MISSING  # User or team of wandb, workspace of swanlab and comet. null: the library decides.


@dataclass
class Gate:
    mode: str = MISSING  # enforce | advise | off: enforce refuses a run that does not fit. advise only says so. off checks nothing.
    floor: str = MISSING  # strict | advisory: strict lets the published hardware table refuse a run by itself.
    margin: float = MISSING  # share: This share of the predicted peak is kept free, from 0 to below 1.
    canary: bool = MISSING  # true: A local run that is too close to the limit for the estimate to tell is decided by a few real steps.


@dataclass
class Hang:
    """How long a rank may give no sign of life before the run is ended with exit code 76. 0: it is never ended for that.

    A sign is anything: a step, a part of one, or a count that goes on as long as the process can run. Where all ranks count and none gets on, they
    have as long if each stands in one call that waits for other ranks, and ten times as long if one of them may be busy.
    """

    starting: int = MISSING  # seconds: While it starts and loads libraries.
    data: int = MISSING  # seconds: While data are read and tokenised.
    loading: int = MISSING  # seconds: While weights are loaded and the ranks join.
    compiling: int = MISSING  # seconds: In the first step, which compiles kernels.
    training: int = MISSING  # seconds: In any later step, and at least three times the median step.
    evaluation: int = MISSING  # seconds: In evaluations.
    generation: int = MISSING  # seconds: While answers are written before and after training.
    saving: int = MISSING  # seconds: While checkpoints and the model are saved.


@dataclass
class Composed:
    """One run as it was described (launcher.composition.compose). What is null in it may be chosen when it is settled on a node."""

    name: str = MISSING  # Name of the run. Its folder is output/name/TIME.
    output: str = MISSING  # Folder that holds all runs.
    model: Model = MISSING  # The model and its tokenizer.
    data: Data = MISSING  # The data sets and how they become rows.
    stage: Stage = MISSING  # What the model learns from: the kind of data and the loss.
    regime: Regime = MISSING  # Which weights learn.
    optim: Optim = MISSING  # The optimizer and the learning rate.
    training: Training = MISSING  # Duration, batch, precision, attention and loss.
    checkpoint: Checkpoint = MISSING  # When checkpoints are saved, and how many are kept.
    evaluation: Evaluation = MISSING  # When the run is evaluated, and by which measure.
    sharding: Sharding = MISSING  # How ranks split the work and the memory.
    backend: Backend = MISSING  # What starts the ranks.
    node: Node = MISSING  # The machine that the run is judged for.
    cluster: Cluster = MISSING  # Where the run starts: on this machine or through Slurm.
    tracking: Tracking = MISSING  # Where metrics go beside the run folder.
    gate: Gate = MISSING  # How strictly a run is judged before it starts.
    hang: Hang = MISSING  # How long a rank may give no sign of life.


# What settling fills (launcher/gate/settle.py) is not open any more: the same fields, without their null.


@dataclass
class SettledModel(Model):
    architecture: dict[str, Any] = MISSING


@dataclass
class SettledTraining(Training):
    accumulation: int = MISSING
    effective_batch: int = MISSING
    attention: str = MISSING
    micro_batch: int = MISSING
    gradient_checkpointing: SettledLayers = MISSING
    loss: str = MISSING
    kernels: str = MISSING


@dataclass
class SettledNode(Node):
    gpus: int = MISSING

    @property
    def capacity(self) -> int:
        """Bytes of one GPU; 0 on a CPU node."""
        return 0 if self.gpu_memory is None else self.gpu_memory


@dataclass
class SettledCluster(Cluster):
    ranks_per_node: int = MISSING


@dataclass
class SettledLocal(SettledCluster, Local):
    pass


@dataclass
class SettledSlurm(SettledCluster, Slurm):
    pass


@dataclass
class SettledHosts(SettledCluster, Hosts):
    pass


@dataclass
class Run(Composed):
    """One settled run: what is planned, judged, recorded in run.yaml and trained. conf.run_dir.load_run reads it back."""

    model: SettledModel = MISSING
    training: SettledTraining = MISSING
    node: SettledNode = MISSING
    cluster: SettledCluster = MISSING


# One row per choice whose type has more fields than its group's; the key is what `name` holds.
SUBTYPES: dict[str, dict[str, type]] = {"cluster": {"local": Local, "slurm": Slurm, "hosts": Hosts}}

# Of these groups conf/stages.py, regimes.py, optimizers.py and shardings.py hold a row for each choice, which says which of the types it has.
ROW_TYPES: dict[str, tuple[type, ...]] = {
    "stage": (Pt, Sft, Rm, Dpo, Kto, Orpo, Simpo, Ppo, Grpo),
    "regime": (Full, Freeze, Lora, Qlora),
    "optim": (Optim, Galore, Apollo, Badam),
    "sharding": (Ddp, Zero, Fsdp),
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
    "hang": Hang,
}

GROUPS: tuple[str, ...] = (*PLAIN_GROUPS, "stage", "regime", "optim", "sharding", "cluster")


@cache  # the store outlives a composition, and filling it needs a tenth of one
def register() -> None:
    """Store every type where YAML files name it: `/schema/<group>` or, for subtypes, `/schema/<group>/<type>`."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Composed)
    for group, node in PLAIN_GROUPS.items():
        store.store(group="schema", name=group, node=node)
    for group, nodes in (*((group, set(types.values())) for group, types in SUBTYPES.items()), *ROW_TYPES.items()):
        for node in nodes:
            store.store(group=f"schema/{group}", name=node.__name__.lower(), node=node)
