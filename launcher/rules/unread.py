"""Keys that some runs read and others do not, one row each, and values that change nothing: what a user gives in vain is said before the run starts.

ALWAYS and READ_IF together hold every key of conf/schema.py (tests/launcher/rules/test_unread.py).
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from conf.constants import GENERATED
from conf.data_sets import evaluates
from conf.evaluations import is_evaluated, with_ends
from conf.hub import is_folder
from conf.optimizers import optimizer_row
from conf.ranks import ranks
from conf.run_dir import RunDir
from conf.schema import Composed, Grpo, Hosts, Qlora, Run, Slurm, Zero
from conf.stages import Loss, StageRow, stage_row
from conf.trackers import read_by_one
from launcher.facts.data import held_out_samples


@dataclass(frozen=True)
class Known:
    described: Composed  # as the user wrote it
    run: Run  # the same run, settled
    steps: int | None  # None: not known before the data is read
    here: bool = True  # the node that is judged is this machine

    @property
    def stage(self) -> StageRow:
        return stage_row(self.run.stage.name)


@dataclass(frozen=True)
class Reading:
    keys: tuple[str, ...]
    read: Callable[[Known], bool]
    why: str  # of a run that does not read them; {run} stands for the settled run
    instead: str = ""  # what makes the run read them, after `or`; empty: nothing simple does


@dataclass(frozen=True)
class InVain:
    key: str
    holds: Callable[[Known], bool]
    said: Callable[[Known], str]


ALWAYS: Mapping[str, str] = {
    "": "name output",
    "model": "name init tokenizer architecture added_tokens vocab_multiple rope_scaling",
    "data": "name sets template cutoff max_samples validation_share packing evaluation_sets streaming on_bad cache",
    # what a stage, an optimizer, a sharding or a regime alone has is read by it, but for the rows of READ_IF
    "stage": (
        "name loss beta label_smoothing sft_weight precompute_reference desirable_weight undesirable_weight margin reward_model response_length "
        "temperature mini_batches epochs kl_coef gamma lam cliprange cliprange_value vf_coef missing_eos_penalty whiten_rewards rewards generations "
        "epsilon loss_type scale_rewards"
    ),
    "regime": "name layers modules new_blocks rank alpha dropout targets rslora dora init lora_plus_ratio adapter bits dequantised",
    "optim": "name lr weight_decay max_grad_norm scheduler rank update_interval scale scale_by switch_interval order",
    "training": (
        "max_steps micro_batch accumulation fit effective_batch precision gradient_checkpointing attention loss kernels fp8 "
        "deterministic neftune_alpha on_nan on_oom seed log_interval dataloader_workers"
    ),
    "checkpoint": "interval resume background",
    "evaluation": "best_at_end patience generate",
    "sharding": "name stage offload_optimizer offload_params",
    "backend": "name max_restarts",
    "node": "name auto gpus host_memory",
    "cluster": (
        "hosts address start python "
        "name nodes ranks_per_node partition account qos time cpus_per_rank memory constraint reservation exclude signal_seconds exclusive "
        "licenses mail_user mail_type comment dependency after directives setup export container"
    ),
    "hang": "starting data loading compiling training evaluation generation saving",
    "tracking": "name also",
    "gate": "mode",
}


def has_moments(known: Known) -> bool:
    return optimizer_row(known.run.optim.name).keeps not in ("nothing", "factored moments")


def reads_path(known: Known) -> bool:
    model = known.described.model
    return model.init == "pretrained" or model.architecture is None or model.tokenizer is None


def only_generated(known: Known) -> bool:
    return {*known.run.data.sets, *known.run.data.evaluation_sets} == {GENERATED}


def asks(known: Known) -> bool:
    """Whether held-out samples hold questions that the model can answer."""
    data = known.run.data
    return evaluates(data) and known.stage.reads != "text" and known.stage.loss is not Loss.SCORE and data.mask_prompt


HOLD_OUT = "set data.validation_share above 0 or name data.evaluation_sets"
ON_CPU = "node={run.node.name} has no GPUs"

READ_IF: tuple[Reading, ...] = (
    Reading(("model.path",), reads_path, "model={run.model.name} has random weights, an architecture and a tokenizer of its own", "use model=local"),
    Reading(
        ("model.revision",),
        lambda known: known.run.model.path is not None and reads_path(known) and not is_folder(known.run.model.path),
        "nothing of this model is read from the hub",
        "set model.path to a hub id",
    ),
    Reading(("data.folder", "data.registry"), lambda known: not only_generated(known), f"the data is {GENERATED}", "name files in data.sets"),
    Reading(("data.mask_prompt",), lambda known: known.stage.reads == "answers", "stage={run.stage.name} has no prompts that it could learn"),
    Reading(("data.train_history",), lambda known: known.stage.reads == "answers", "stage={run.stage.name} does not learn earlier answers"),
    Reading(("data.mixing", "data.probabilities"), lambda known: len(known.run.data.sets) > 1, "data.sets has one set, and nothing is mixed"),
    Reading(("data.buffer",), lambda known: known.run.data.streaming, "data.streaming=false", "set data.streaming=true"),
    Reading(
        ("data.workers",),
        lambda known: not known.run.data.streaming or bool(known.run.data.evaluation_sets),
        "data.streaming=true tokenises in the processes of training.dataloader_workers",
    ),
    Reading(
        ("data.on_long",),
        lambda known: known.stage.reads not in ("text", "prompts"),
        "stage={run.stage.name} cuts no samples at data.cutoff",
    ),
    Reading(
        ("data.bad_share",),
        lambda known: "drop" in (known.run.data.on_bad, known.run.data.on_long),
        "nothing is dropped with data.on_bad={run.data.on_bad} and data.on_long={run.data.on_long}",
        "set data.on_bad=drop",
    ),
    Reading(("data.turns", "data.control_tokens"), lambda known: known.stage.reads != "text", "stage={run.stage.name} reads plain text"),
    Reading(
        ("stage.format",),
        lambda known: not isinstance(known.run.stage, Grpo) or "format" in known.run.stage.rewards,
        "stage.rewards does not hold format",
        "add format to stage.rewards",
    ),
    Reading(
        ("stage.reward_packages",),
        lambda known: not isinstance(known.run.stage, Grpo) or any(":" in name for name in known.run.stage.rewards),
        "no reward of stage.rewards is imported",
        "name one as module:function",
    ),
    Reading(
        ("regime.double_quant",),
        lambda known: isinstance(known.run.regime, Qlora) and known.run.regime.bits == 4,
        "only 4 bits have scales that are quantised",
        "set regime.bits=4",
    ),
    Reading(("optim.beta1", "optim.beta2"), has_moments, "optim={run.optim.name} keeps no moments", "use optim=adamw"),
    Reading(
        ("optim.eps",),
        lambda known: has_moments(known) and optimizer_row(known.run.optim.name).moments > 1,
        "optim={run.optim.name} divides by no second moment",
        "use optim=adamw",
    ),
    Reading(
        ("optim.warmup",),
        lambda known: known.run.optim.scheduler != "constant",
        "optim.scheduler=constant has no warmup",
        "set optim.scheduler=constant_with_warmup",
    ),
    Reading(("training.epochs",), lambda known: known.run.training.max_steps is None, "training.max_steps={run.training.max_steps} decides the end"),
    Reading(
        ("checkpoint.keep",),
        lambda known: known.run.checkpoint.interval > 0,
        "checkpoint.interval=0 saves only when the run is stopped",
        "set checkpoint.interval",
    ),
    Reading(
        ("evaluation.interval", "evaluation.at_start", "evaluation.at_end"),
        lambda known: evaluates(known.run.data),
        "no samples are held out",
        HOLD_OUT,
    ),
    Reading(
        ("evaluation.micro_batch",),
        lambda known: is_evaluated(known.run) or (known.run.evaluation.answers > 0 and asks(known)),
        "nothing is evaluated",
        HOLD_OUT,
    ),
    Reading(
        ("evaluation.metric",),
        lambda known: known.run.evaluation.best_at_end or known.run.evaluation.patience is not None,
        "nothing is chosen by it: evaluation.best_at_end=false and evaluation.patience=null",
        "set one of them",
    ),
    Reading(("evaluation.answers",), asks, "this run holds out no questions that the model could answer"),
    Reading(
        ("sharding.bucket_mb", "sharding.reshard_after_forward"),
        lambda known: ranks(known.run) > 1,
        "one rank alone exchanges nothing",
        "use more ranks",
    ),
    Reading(
        ("sharding.whole_layers",),
        lambda known: isinstance(known.run.sharding, Zero) and known.run.sharding.stage == 3,
        "sharding={run.sharding.name} never splits weights",
        "use sharding=zero3",
    ),
    Reading(("backend.port",), lambda known: known.run.cluster.name != "slurm", "a job of cluster={run.cluster.name} chooses its port itself"),
    Reading(("node.gpu_name", "node.gpu_memory", "node.tflops", "node.python_turn"), lambda known: known.run.node.gpus > 0, ON_CPU, "set node.gpus"),
    Reading(
        ("node.link",), lambda known: known.run.node.gpus > 0 and ranks(known.run) > 1, "no GPU of it sends anything to another", "use more GPUs"
    ),
    Reading(("node.network",), lambda known: known.run.cluster.nodes > 1, "the run has one node", "use more with cluster.nodes"),
    Reading(
        ("cluster.container_runtime", "cluster.container_mounts", "cluster.container_python"),
        lambda known: not isinstance(known.run.cluster, Slurm) or known.run.cluster.container is not None,
        "cluster.container=null, and the ranks run in no container",
        "set cluster.container",
    ),
    Reading(
        ("cluster.gpu_types",),
        lambda known: not isinstance(known.run.cluster, Slurm) or known.described.node.auto,
        "node={run.node.name} is stated, and the partition is not asked for its GPU types",
        "use node=auto",
    ),
    Reading(
        ("cluster.connect_seconds",),
        lambda known: not isinstance(known.run.cluster, Hosts) or known.run.cluster.start == "ssh",
        "with cluster.start=print a person starts the machines",
        "use cluster.start=ssh",
    ),
    Reading(("cluster.gpu_type",), lambda known: known.run.node.gpus > 0, ON_CPU, "describe the node with node="),
    Reading(
        ("tracking.project",),
        lambda known: read_by_one(known.run.tracking, "project"),
        "tracking={run.tracking.name} has none",
        "use tracking=wandb",
    ),
    Reading(
        ("tracking.entity",),
        lambda known: read_by_one(known.run.tracking, "entity"),
        "tracking={run.tracking.name} has none",
        "use tracking=wandb",
    ),
    Reading(("gate.margin",), lambda known: known.run.gate.mode != "off", "gate.mode=off checks nothing", "set gate.mode=enforce"),
    Reading(
        ("gate.floor",),
        lambda known: known.run.gate.mode != "off" and known.run.node.gpus > 0,
        "the published hardware table is not asked (gate.mode={run.gate.mode}, node={run.node.name})",
    ),
    Reading(
        ("gate.canary",),
        lambda known: known.run.gate.mode == "enforce" and known.run.cluster.name == "local" and known.here,
        "a canary decides only runs on this machine with gate.mode=enforce",
    ),
)


def held_out(known: Known) -> int | None:
    return held_out_samples(known.run) if asks(known) and known.run.evaluation.answers > 0 else None


def warmup_steps(known: Known) -> float:
    warmup = known.run.optim.warmup
    return warmup * (known.steps or 0) if warmup < 1 else warmup


def unset_variables(known: Known) -> list[str]:
    """Of cluster.export, those that the submitting shell does not have."""
    cluster = known.run.cluster
    return [name for name in (cluster.export or []) if name not in os.environ] if isinstance(cluster, Slurm | Hosts) else []


def waits_for_nothing(known: Known) -> bool:
    cluster = known.run.cluster
    return isinstance(cluster, Slurm) and cluster.after is not None and RunDir(Path(cluster.after)).model.is_dir()


IN_VAIN: tuple[InVain, ...] = (
    InVain(
        "cluster.export",
        lambda known: bool(unset_variables(known)),
        lambda known: f"{', '.join(unset_variables(known))} is not set in this shell, so the job does not get it. Set it before you submit the run",
    ),
    InVain("cluster.after", waits_for_nothing, lambda known: "that run is finished, so the job waits for nothing. Leave it out"),
    InVain(
        "model.rope_scaling",
        lambda known: (
            known.run.model.rope_scaling is not None and known.run.data.cutoff <= known.run.model.architecture.get("max_position_embeddings", 0)
        ),
        lambda known: f"data.cutoff={known.run.data.cutoff} fits the model's positions as they are, so nothing is stretched. Set it to null",
    ),
    InVain("optim.lr", lambda known: known.run.optim.lr == 0, lambda known: "nothing is learned. Set a learning rate above 0"),
    InVain(
        "optim.warmup",
        lambda known: known.steps is not None and known.run.optim.scheduler != "constant" and known.run.optim.warmup >= max(1, known.steps),
        lambda known: f"the run ends after {known.steps} steps, before the learning rate reaches optim.lr. Set optim.warmup below that",
    ),
    InVain(
        "training.on_oom",
        lambda known: known.run.training.on_oom == "split" and known.run.training.micro_batch == 1,
        lambda known: (
            "training.micro_batch=1 cannot be made smaller, so the run ends with 80 where memory runs out. Leave it out, or lower data.cutoff"
        ),
    ),
    InVain(
        "checkpoint.interval",
        lambda known: known.steps is not None and known.run.checkpoint.interval > known.steps,
        lambda known: f"the run ends after {known.steps} steps, so no checkpoint is saved before its end. Set checkpoint.interval below that",
    ),
    InVain(
        "evaluation.interval",
        lambda known: known.steps is not None and evaluates(known.run.data) and known.run.evaluation.interval > known.steps,
        lambda known: f"the run ends after {known.steps} steps, so none is made between its first and last. Set evaluation.interval below that",
    ),
    InVain(
        "evaluation.answers",
        lambda known: (count := held_out(known)) is not None and known.run.evaluation.answers > count,
        lambda known: f"{held_out(known)} samples are held out, and no more questions than these are asked. Hold out more, or lower it",
    ),
)


def unread(given: Mapping[str, str], known: Known) -> tuple[str, ...]:
    """A sentence for each key of `given` (with its value as written) that this run does not read, or whose value changes nothing."""
    notes = []
    for row in READ_IF:
        for key in row.keys:
            if key in given and not row.read(known):
                instead = f", or {row.instead}" if row.instead else ""
                notes.append(f"{key}={given[key]} has no effect, because {row.why.format(run=known.run)}. Leave it out{instead}.")
    notes += [f"{row.key}={given[row.key]}: {row.said(known)}." for row in IN_VAIN if row.key in given and row.holds(known)]
    return tuple(notes)


def unevaluated(known: Known) -> tuple[str, ...]:
    """Samples that are held out and never evaluated, whoever chose that: they are lost to the training."""
    evaluation = with_ends(known.run.evaluation)
    if not evaluates(known.run.data) or evaluation.at_start or evaluation.at_end:
        return ()
    if evaluation.interval > 0 and (known.steps is None or evaluation.interval <= known.steps):
        return ()
    return (
        f"evaluation.interval={evaluation.interval}: samples are held out and never evaluated. "
        "Set evaluation.at_end=true for one evaluation after the last step.",
    )
