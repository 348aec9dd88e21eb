"""The values that each key may hold, one row a key."""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from math import inf, isfinite
from typing import Any

from conf.schema import Composed, Zero
from conf.shardings import sharding_row, sharding_types
from conf.signs import PHASES
from conf.trackers import NONE, TRACKERS
from launcher.errors import ConfigError
from launcher.rules.data import refuse_other_data
from launcher.rules.evaluation import refuse_other_evaluation
from launcher.rules.rewards import check_rewards
from launcher.rules.texts import refuse_empty_texts, refuse_lists_in_lists, refuse_odd_name, refuse_odd_output
from launcher.rules.together import together
from launcher.words import gib

MOST = 2**31 - 1  # of a count: libraries hold them in 32 bits
MOST_PROCESSES = 4096  # on one node: more than any has
MOST_NODES = 65536  # more than any cluster has
MOST_SECONDS = 65535  # Slurm's own limit of --signal (sbatch)


@dataclass(frozen=True)
class Limit:
    """One row: the values that a key may hold."""

    key: str
    holds: Callable[[Any], bool]
    expected: str


def counts_layers(value: Any) -> bool:
    """Of training.gradient_checkpointing, which may be open."""
    return value in (None, "auto") or isinstance(value, bool) or (isinstance(value, int) and 1 <= value <= MOST)


def one_of(key: str, *names: str | None) -> Limit:
    """None among the names: the key may be left open too."""
    return Limit(key, lambda value: value in names, "one of " + ", ".join(name for name in names if name))


def at_least(key: str, least: float) -> Limit:
    return Limit(key, lambda value: value is None or least <= value < inf, f"at least {least}")


def counted(key: str, least: int, most: int = MOST) -> Limit:
    return Limit(key, lambda value: value is None or least <= value <= most, f"at least {least}, and at most {most}")


def within(key: str, least: float, below: float) -> Limit:
    return Limit(key, lambda value: least <= value < below, f"at least {least} and below {below}")


def positive(key: str) -> Limit:
    return Limit(key, lambda value: value is None or 0 < value < inf, "above 0")


def size(key: str, least: int, most: int) -> Limit:
    """Bounds that no machine passes: what lies outside was written in another unit."""
    expected = f"from {gib(least)} to {gib(most)}; a number without a unit counts bytes. Write the unit: {key}=80GB, 80GiB or 81559MiB"
    return Limit(key, lambda value: value is None or least <= value <= most, expected)


def all_words(value: list[str]) -> bool:
    """OmegaConf lets a list inside of a list of strings pass."""
    return len(value) > 0 and all(isinstance(word, str) and word != "" for word in value)


def all_trackers(value: list[str]) -> bool:
    return all(name in TRACKERS for name in map(str, value)) and len(set(map(str, value))) == len(value)


LIMITS: tuple[Limit, ...] = (
    one_of("model.init", "pretrained", "random"),
    Limit("model.rope_scaling", lambda value: value in (None, "linear", "dynamic", "yarn"), "null, linear, dynamic or yarn"),
    counted("model.vocab_multiple", 1),
    Limit(
        "model.added_tokens", lambda value: not value or (all_words(value) and len(set(value)) == len(value)), "a list of different, non-empty texts"
    ),
    counted("data.cutoff", 8),
    counted("data.max_samples", 1),
    within("data.validation_share", 0, 1),
    counted("data.workers", 1, MOST_PROCESSES),
    one_of("data.mixing", "concatenate", "interleave_under", "interleave_over"),
    counted("data.buffer", 1),
    one_of("data.on_bad", "fail", "drop"),
    one_of("data.turns", "strict", "repair"),
    one_of("data.control_tokens", "special", "text"),
    one_of("data.on_long", "truncate", "drop", "fail"),
    Limit("data.bad_share", lambda value: 0 <= value <= 1, "between 0 and 1"),
    Limit("data.sets", all_words, "a list of at least one data set, none of them empty"),
    one_of("stage.loss", "sigmoid", "hinge", "ipo", "robust"),
    positive("stage.beta"),
    within("stage.label_smoothing", 0, 0.5),
    at_least("stage.sft_weight", 0),
    at_least("stage.margin", 0),
    positive("stage.desirable_weight"),
    positive("stage.undesirable_weight"),
    counted("stage.response_length", 1),
    positive("stage.temperature"),
    counted("stage.mini_batches", 1),
    counted("stage.epochs", 1),
    at_least("stage.kl_coef", 0),
    Limit("stage.gamma", lambda value: 0 <= value <= 1, "between 0 and 1"),
    Limit("stage.lam", lambda value: 0 <= value <= 1, "between 0 and 1"),
    positive("stage.cliprange"),
    positive("stage.cliprange_value"),
    at_least("stage.vf_coef", 0),
    at_least("stage.missing_eos_penalty", 0),
    counted("stage.generations", 2),
    positive("stage.epsilon"),
    one_of("stage.loss_type", "dapo", "grpo", "bnpo", "dr_grpo"),
    one_of("stage.scale_rewards", "group", "batch", "none"),
    counted("regime.rank", 1),
    Limit("regime.layers", lambda value: -MOST <= value <= MOST, f"from -{MOST} to {MOST}"),
    positive("regime.alpha"),
    positive("regime.lora_plus_ratio"),
    counted("regime.new_blocks", 0),
    Limit("regime.init", lambda value: re.fullmatch("default|pissa|pissa_niter_[1-9][0-9]*", value) is not None, "default, pissa or pissa_niter_N"),
    within("regime.dropout", 0, 1),
    Limit("regime.targets", all_words, "at least one module name, or [all-linear]"),
    Limit("regime.bits", lambda value: value in (8, 4, 2), "8, 4 or 2"),
    at_least("optim.lr", 0),
    at_least("optim.weight_decay", 0),
    at_least("optim.max_grad_norm", 0),
    at_least("optim.warmup", 0),
    positive("optim.eps"),
    within("optim.beta1", 0, 1),
    within("optim.beta2", 0, 1),
    counted("optim.rank", 1),
    counted("optim.update_interval", 1),
    positive("optim.scale"),
    one_of("optim.scale_by", "channel", "tensor"),
    counted("optim.switch_interval", 1),
    one_of("optim.order", "ascending", "descending", "random"),
    one_of(
        "optim.scheduler",
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
        "cosine_with_min_lr",
    ),
    positive("training.epochs"),
    counted("training.max_steps", 1),
    one_of("training.fit", "off", "auto", None),
    counted("training.micro_batch", 1),
    counted("training.accumulation", 1),
    counted("training.effective_batch", 1),
    one_of("training.precision", "bf16_amp", "fp16_amp", "bf16", "fp32"),
    Limit("training.gradient_checkpointing", counts_layers, "true, false, auto or a number of layers from 1 on"),
    Limit("training.attention", lambda value: value in (None, "sdpa", "varlen", "eager"), "null, sdpa, varlen or eager"),
    one_of("training.loss", "plain", "chunked", "fused", None),
    one_of("training.kernels", "plain", "fused", None),
    positive("training.neftune_alpha"),
    Limit("training.seed", lambda value: 0 <= value < 2**32, "between 0 and 2^32 - 1"),
    counted("training.log_interval", 1),
    one_of("training.on_nan", "stop", "skip", "rollback"),
    one_of("training.on_oom", "stop", "split"),
    counted("training.dataloader_workers", 0, MOST_PROCESSES),
    counted("checkpoint.interval", 0),
    counted("checkpoint.keep", 1),
    Limit("checkpoint.resume", lambda value: re.fullmatch("newest|start|step-[0-9]+", value) is not None, "newest, step-N, or start"),
    counted("evaluation.interval", 0),
    counted("evaluation.micro_batch", 1),
    counted("evaluation.answers", 0),
    counted("evaluation.patience", 1),
    Limit("sharding.bucket_mb", lambda value: value is not None and 1 <= value <= 2**20, "from 1 MiB to 1 TiB"),
    one_of("backend.name", "torchrun", "accelerate"),
    within("backend.port", 0, 65536),
    counted("backend.max_restarts", 0),
    counted("node.gpus", 0, MOST_PROCESSES),
    positive("node.tflops"),
    positive("node.link"),
    positive("node.network"),
    at_least("node.python_turn", 1),
    size("node.gpu_memory", 2**28, 2**42),
    size("node.host_memory", 2**26, 2**50),
    counted("cluster.nodes", 1, MOST_NODES),
    counted("cluster.ranks_per_node", 1, MOST_PROCESSES),
    counted("cluster.cpus_per_rank", 1, MOST_PROCESSES),
    counted("cluster.signal_seconds", 1, MOST_SECONDS),
    one_of("cluster.start", "ssh", "print"),
    counted("cluster.connect_seconds", 1, MOST_SECONDS),
    one_of("tracking.name", NONE, *TRACKERS),
    Limit("tracking.also", all_trackers, f"a list of different names among {', '.join(TRACKERS)}"),
    *(counted(f"hang.{phase}", 0) for phase in PHASES),
    one_of("gate.mode", "enforce", "advise", "off"),
    one_of("gate.floor", "strict", "advisory"),
    within("gate.margin", 0, 1),
)


def check_values(run: Composed) -> None:
    """Refuse values outside of their range; where there are none, values that contradict each other.

    Raises:
        ConfigError: a line for each, naming the key, the value and what it may be.
    """
    together(*(partial(check, run) for check in (refuse_odd_name, refuse_odd_output, refuse_any_out_of_range, refuse_lists_in_lists)))
    alone = (
        refuse_odd_trackers,
        refuse_empty_texts,
        refuse_other_sharding,
        check_rewards,
        refuse_no_source,
        refuse_other_evaluation,
        refuse_other_data,
    )
    together(*(partial(check, run) for check in alone))


def refuse_odd_trackers(run: Composed) -> None:
    tracking = run.tracking
    if tracking.also and tracking.name == NONE:
        raise ConfigError(
            f"tracking.also=[{','.join(tracking.also)}] stands beside tracking=none. Use tracking={tracking.also[0]}, and name the others here."
        )
    if tracking.name in tracking.also:
        raise ConfigError(f"tracking.also=[{','.join(tracking.also)}] names tracking={tracking.name} again. Remove it from tracking.also.")


def refuse_no_source(run: Composed) -> None:
    if run.model.init == "pretrained" and run.model.path is None:
        raise ConfigError(
            "model.init=pretrained needs model.path. Set it to a local folder or a hub id, "
            "or use model.init=random, which builds the architecture with random weights."
        )
    if run.model.init == "random" and run.model.path is None and run.model.architecture is None:
        raise ConfigError("model.init=random needs model.architecture or a model.path whose config.json holds it.")


def check_given(run: Composed, keys: Collection[str]) -> None:
    """Refuse a value of these keys that is outside of its range: what else the run holds need not be there any more.

    Raises:
        ConfigError: naming the key, the value and what it may be.
    """
    refuse_out_of_range(run, [limit for limit in LIMITS if limit.key in keys])


def refuse_any_out_of_range(run: Composed) -> None:
    refuse_out_of_range(run, LIMITS)


def refuse_out_of_range(run: Composed, limits: Iterable[Limit]) -> None:
    together(*(partial(refuse_beyond, run, limit) for limit in limits))


def refuse_beyond(run: Composed, limit: Limit) -> None:
    group, field = limit.key.split(".")
    values = vars(getattr(run, group))
    if field in values and not limit.holds(values[field]):
        finite = "" if not isinstance(values[field], float) or isfinite(values[field]) else "a finite number "
        raise ConfigError(f"{limit.key}={values[field]} is out of range. It must be {finite}{limit.expected}.")


def refuse_other_sharding(run: Composed) -> None:
    """Plans and reports show the name, and the ranks use the fields, so the two must agree.

    Raises:
        ConfigError: when they do not, or when weights would be offloaded that are not split.
    """
    sharding = run.sharding
    if not isinstance(sharding, Zero):
        return
    row, forms = sharding_row(sharding.name), zero_forms()
    decided, given = forms[sharding.name], {"stage": sharding.stage, "offload_optimizer": sharding.offload_optimizer}
    differing = [key for key in given if given[key] != decided[key]]
    if differing:
        as_given, as_decided = (" and ".join(f"sharding.{key}={str(values[key]).lower()}" for key in differing) for values in (given, decided))
        wanted = next((name for name, form in forms.items() if form == given), None)
        instead = f"sharding={wanted}" if wanted else f"one of sharding={', '.join(forms)}"
        keys = " and ".join(f"sharding.{key}" for key in differing)
        raise ConfigError(f"{as_given} contradicts sharding={sharding.name}, which has {as_decided}. Use {instead}, and leave {keys} out.")
    if sharding.offload_params and not (row.offloads and "weights" in row.splits):
        raise ConfigError(
            f"sharding.offload_params=True needs split weights and offloaded states, unlike sharding={sharding.name}. Use sharding=zero3_offload."
        )


def zero_forms() -> dict[str, dict[str, int]]:
    """The stage and the offloading that each choice of ZeRO stands for; each stage splits one part more."""
    names = [name for name, node in sharding_types().items() if node is Zero]
    return {name: {"stage": len(sharding_row(name).splits), "offload_optimizer": sharding_row(name).offloads} for name in names}
