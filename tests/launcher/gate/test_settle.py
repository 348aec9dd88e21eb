"""Batch arithmetic, ranks on GPUs, and the first value outside of every range."""

import re
from dataclasses import replace
from functools import cache

import pytest

from conf.choices import subtypes
from conf.schema import GROUPS, PLAIN_GROUPS, Run, SettledNode
from conf.signs import PHASES
from launcher.composition.compose import compose
from launcher.errors import ConfigError
from launcher.facts.node import settled_node
from launcher.gate.judge import judge_run
from launcher.gate.settle import settled, with_batch
from launcher.rules.ranges import LIMITS, check_values

DEMO = ["model=demo", "data=demo", "node=cpu"]
INF, NAN = float("inf"), float("nan")

JUDGED = "stage=ppo stage.reward_model=org/judge"
REWARDED = "stage=grpo stage.rewards=[brevity]"

# key, choices that give the group this key, values just inside of the range, values just outside
BOUNDARIES: list[tuple[str, str, list[object], list[object]]] = [
    ("model.init", "", ["random"], ["", "Random", "scratch"]),
    ("model.rope_scaling", "", [None, "linear", "dynamic", "yarn"], ["", "ntk"]),
    ("model.vocab_multiple", "", [1, 64], [0]),
    ("model.added_tokens", "", [[], ["<a>", "<b>"]], [[""], ["<a>", "<a>"]]),
    *((f"hang.{phase}", "", [0, 1], [-1]) for phase in PHASES),
    ("training.gradient_checkpointing", "", [None, "auto", True, False, 1], [0, -1, "all"]),
    ("data.cutoff", "", [8], [7, 0, -1]),
    ("data.max_samples", "", [None, 1], [0, -1]),
    ("data.validation_share", "", [0.0, 0.999], [-0.001, 1.0, NAN]),
    ("data.workers", "", [None, 1], [0]),
    ("data.mixing", "", ["concatenate", "interleave_under", "interleave_over"], ["concat", ""]),
    ("data.buffer", "", [1], [0]),
    ("data.on_bad", "", ["fail", "drop"], ["truncate", ""]),
    ("data.turns", "", ["strict", "repair"], ["merge"]),
    ("data.on_long", "", ["truncate", "drop", "fail"], ["cut"]),
    ("data.bad_share", "", [0.0, 1.0], [-0.001, 1.001, NAN]),
    ("data.sets", "", [["a"], ["a", "b"]], [[], [""], [["a"]]]),
    ("stage.loss", "stage=dpo", ["sigmoid", "hinge", "ipo", "robust"], ["dpo", ""]),
    ("stage.beta", "stage=orpo", [0.01], [0.0, -0.1, INF, NAN]),
    ("stage.label_smoothing", "stage=dpo", [0.0, 0.499], [-0.1, 0.5, NAN]),
    ("stage.sft_weight", "stage=simpo", [0.0], [-0.1, INF, NAN]),
    ("stage.margin", "stage=simpo", [0.0], [-0.1, INF, NAN]),
    ("stage.desirable_weight", "stage=kto", [0.01], [0.0, -1.0, NAN]),
    ("stage.undesirable_weight", "stage=kto", [0.01], [0.0, -1.0, NAN]),
    ("stage.response_length", JUDGED, [1], [0]),
    ("stage.temperature", JUDGED, [0.01], [0.0, -1.0, INF, NAN]),
    ("stage.mini_batches", JUDGED, [1], [0]),
    ("stage.epochs", JUDGED, [1], [0]),
    ("stage.kl_coef", JUDGED, [0.0], [-0.1, INF, NAN]),
    ("stage.gamma", JUDGED, [0.0, 1.0], [-0.1, 1.1, NAN]),
    ("stage.lam", JUDGED, [0.0, 1.0], [-0.1, 1.1, NAN]),
    ("stage.cliprange", JUDGED, [0.01], [0.0, INF, NAN]),
    ("stage.cliprange_value", JUDGED, [0.01], [0.0, INF, NAN]),
    ("stage.vf_coef", JUDGED, [0.0], [-0.1, INF, NAN]),
    ("stage.missing_eos_penalty", JUDGED, [None, 0.0], [-0.1, INF]),
    ("stage.generations", REWARDED, [2], [1, 0]),
    ("stage.epsilon", REWARDED, [0.01], [0.0, INF, NAN]),
    ("stage.loss_type", REWARDED, ["dapo", "grpo", "bnpo", "dr_grpo"], ["ppo", ""]),
    ("stage.scale_rewards", REWARDED, ["group", "batch", "none"], ["all", ""]),
    ("regime.rank", "regime=lora", [1], [0, -4]),
    ("regime.alpha", "regime=lora", [0.001], [0.0, -1.0, INF, NAN]),
    ("regime.layers", "regime=freeze", [2**31 - 1, 1 - 2**31], [2**31, -(2**31)]),
    ("regime.new_blocks", "regime=freeze", [0], [-1]),
    ("regime.lora_plus_ratio", "regime=lora", [None, 16.0], [0.0, INF, NAN]),
    ("regime.init", "regime=lora", ["default", "pissa", "pissa_niter_16"], ["", "pissa_niter_0", "olora"]),
    ("regime.dropout", "regime=lora", [0.0, 0.999], [-0.1, 1.0, NAN]),
    ("regime.targets", "regime=lora", [["q_proj"]], [[], [""]]),
    ("regime.bits", "regime=qlora", [8, 4, 2], [3, 16, 0]),
    ("optim.rank", "optim=galore", [1], [0, -1]),
    ("optim.update_interval", "optim=galore_8bit", [1], [0]),
    ("optim.scale", "optim=apollo", [0.25], [0.0, INF, NAN]),
    ("optim.scale_by", "optim=apollo", ["channel", "tensor"], ["row", ""]),
    ("optim.switch_interval", "optim=badam", [1], [0]),
    ("optim.order", "optim=badam", ["ascending", "descending", "random"], ["up", ""]),
    ("optim.lr", "", [0.0], [-1e-9, INF, NAN]),
    ("optim.weight_decay", "", [0.0], [-0.1, NAN]),
    ("optim.max_grad_norm", "", [0.0], [-0.1, NAN]),
    ("optim.warmup", "", [0.0, 0.5, 100.0], [-0.1, INF, NAN]),
    ("optim.eps", "", [1e-8], [0.0, -1.0, INF, NAN]),
    ("optim.beta1", "", [0.0, 0.999], [-0.1, 1.0, NAN]),
    ("optim.beta2", "", [0.0, 0.999], [-0.1, 1.0, NAN]),
    ("optim.scheduler", "", ["linear", "cosine", "constant", "cosine_with_min_lr"], ["cosin", ""]),
    ("training.epochs", "", [0.01], [0.0, -1.0, INF, NAN]),
    ("training.max_steps", "", [None, 1], [0, -1]),
    ("training.fit", "", ["off", "auto"], ["on", ""]),
    ("training.micro_batch", "", [1], [0, -1]),
    ("training.accumulation", "", [None, 1], [0]),
    ("training.effective_batch", "", [None, 1], [0]),
    ("training.precision", "", ["bf16_amp", "fp16_amp", "bf16", "fp32"], ["fp16", "bfloat16"]),
    ("training.attention", "", [None, "sdpa", "varlen", "eager"], ["flash_attention_2"]),
    ("training.loss", "", ["plain", "chunked", "fused"], ["mse"]),
    ("training.kernels", "", ["plain", "fused"], ["fast"]),
    ("training.neftune_alpha", "", [None, 0.1], [0.0, -1.0, INF]),
    ("training.seed", "", [0, 2**32 - 1], [-1, 2**32]),
    ("training.log_interval", "", [1], [0]),
    ("training.dataloader_workers", "", [0], [-1]),
    ("training.on_nan", "", ["stop", "skip", "rollback"], ["ignore", ""]),
    ("training.on_oom", "", ["stop", "split"], ["skip", ""]),
    ("checkpoint.interval", "", [0], [-1]),
    ("checkpoint.keep", "", [1], [0]),
    ("data.control_tokens", "", ["special", "text"], ["Special", "", "plain"]),
    ("checkpoint.resume", "", ["newest", "step-0", "step-120", "start"], ["", "oldest", "step-", "step-x", "step--1", "step-²", "120", "step-1\n"]),
    ("evaluation.interval", "", [0], [-1]),
    ("evaluation.micro_batch", "", [1], [0]),
    ("evaluation.answers", "", [0], [-1]),
    ("evaluation.patience", "", [None, 1], [0]),
    ("sharding.bucket_mb", "sharding=ddp", [1, 25], [0, -1, None]),
    ("backend.name", "", ["torchrun", "accelerate"], ["mpirun"]),
    ("backend.port", "", [0, 65535], [-1, 65536]),
    ("backend.max_restarts", "", [0], [-1]),
    ("node.gpus", "", [None, 0, 1], [-1]),
    ("node.tflops", "", [1e-9, None], [0.0, -1.0]),
    ("node.link", "", [1e-9, None], [0.0, -1.0]),
    ("node.network", "", [1e-9, None], [0.0, -1.0]),
    ("node.python_turn", "", [1.0, 36.5, None], [0.5, -1.0]),
    ("node.gpu_memory", "", [None, 2**28, 2**42], [0, -1, 48, 81559, 2**42 + 1]),
    ("node.host_memory", "", [None, 2**26, 2**50], [0, -1, 64, 515000, 2**50 + 1]),
    ("cluster.nodes", "", [1], [0, -1]),
    ("cluster.ranks_per_node", "", [None, 1], [0, -1]),
    ("cluster.cpus_per_rank", "cluster=slurm", [1], [0]),
    ("cluster.signal_seconds", "cluster=slurm", [1], [0]),
    ("cluster.start", "cluster=hosts cluster.hosts=[a]", ["ssh", "print"], ["rsh"]),
    ("cluster.connect_seconds", "cluster=hosts cluster.hosts=[a]", [1, 65535], [0, 65536]),
    ("tracking.name", "", ["none", "tensorboard", "wandb", "mlflow", "swanlab", "trackio", "comet"], ["neptune"]),
    ("tracking.also", "tracking=wandb", [[], ["mlflow", "comet"]], [["none"], ["mlflow", "mlflow"]]),
    ("gate.mode", "", ["enforce", "advise", "off"], ["on"]),
    ("gate.floor", "", ["strict", "advisory"], ["none"]),
    ("gate.margin", "", [0.0, 0.999], [-0.1, 1.0, NAN]),
]


@cache
def composed(*overrides: str) -> Run:
    return compose([*DEMO, *overrides])


def with_value(run: Run, key: str, value: object) -> Run:
    group, field = key.split(".")
    return replace(run, **{group: replace(getattr(run, group), **{field: value})})


def with_training(**values: int | None) -> Run:
    run = composed()
    return replace(run, training=replace(run.training, **values))


def node_with(gpus: int) -> SettledNode:
    return settled_node(replace(composed().node, name="box"), gpus)


def test_every_limit_has_its_boundaries_here() -> None:
    assert {limit.key for limit in LIMITS} == {key for key, *_ in BOUNDARIES}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("tracking.also=[mlflow]",), r"^tracking.also=\[mlflow\] stands beside tracking=none. Use tracking=mlflow"),
        (("tracking=wandb", "tracking.also=[wandb]"), r"^tracking.also=\[wandb\] names tracking=wandb again. Remove it"),
    ],
)
def test_further_trackers_stand_beside_a_first_one(overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_values(compose([*DEMO, *overrides]))


def test_every_limit_names_a_key_of_the_schema() -> None:
    for limit in LIMITS:
        group, field = limit.key.split(".")
        types = [PLAIN_GROUPS[group]] if group in PLAIN_GROUPS else subtypes()[group].values()
        assert group in GROUPS
        assert any(field in node.__dataclass_fields__ for node in types), limit.key


@pytest.mark.parametrize(("key", "choice", "inside", "outside"), BOUNDARIES, ids=[key for key, *_ in BOUNDARIES])
def test_the_last_value_inside_passes_and_the_first_outside_is_named(key: str, choice: str, inside: list[object], outside: list[object]) -> None:
    run = composed(*choice.split())
    for value in inside:
        check_values(with_value(run, key, value))
    for value in outside:
        with pytest.raises(ConfigError) as refused:
            check_values(with_value(run, key, value))
        assert str(refused.value).startswith(f"{key}={value} is out of range. It must be ")


@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_a_number_that_is_not_finite_is_named_so(value: float) -> None:
    """Infinity is above 0."""
    with pytest.raises(ConfigError) as refused:
        check_values(with_value(composed(), "training.epochs", value))
    assert str(refused.value) == f"training.epochs={value} is out of range. It must be a finite number above 0."


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "/root", "a/b", ".hidden", "-x", "a b", "a\n", "a\x00", "x" * 201])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of a folder"):
        check_values(replace(composed(), name=name))


@pytest.mark.parametrize("name", ["a", "sft-lora-qwen2.5_0.5b", "_x", "übung", "lr=0.1,rank=8", "x" * 200])
def test_a_name_that_is_a_folder_passes(name: str) -> None:
    check_values(replace(composed(), name=name))


def test_an_empty_output_is_refused() -> None:
    with pytest.raises(ConfigError, match="output is empty"):
        check_values(replace(composed(), output=""))


def test_pretrained_weights_need_a_place_to_come_from() -> None:
    run = composed()
    with pytest.raises(ConfigError, match=r"model\.init=pretrained needs model\.path"):
        check_values(replace(run, model=replace(run.model, init="pretrained", path=None)))


def test_random_weights_need_an_architecture() -> None:
    run = composed()
    with pytest.raises(ConfigError, match=r"model\.init=random needs model\.architecture"):
        check_values(replace(run, model=replace(run.model, architecture=None)))
    check_values(replace(run, model=replace(run.model, architecture=None, path="/models/a")))


@pytest.mark.parametrize(("evaluation", "checkpoint", "passes"), [(50, 50, True), (50, 100, False), (0, 0, False), (0, 50, False)])
def test_the_best_checkpoint_needs_an_evaluation_at_each(evaluation: int, checkpoint: int, passes: bool) -> None:
    run = composed(f"evaluation.interval={evaluation}", f"checkpoint.interval={checkpoint}", "evaluation.best_at_end=true")
    if passes:
        check_values(run)
        return
    with pytest.raises(ConfigError, match=rf"evaluation\.interval \({evaluation}\) and checkpoint\.interval \({checkpoint}\)"):
        check_values(run)


def test_the_best_checkpoint_needs_evaluation_data() -> None:
    with pytest.raises(ConfigError, match=r"data\.validation_share above 0"):
        check_values(composed("evaluation.interval=5", "checkpoint.interval=5", "evaluation.best_at_end=true", "data.validation_share=0"))


@pytest.mark.parametrize(
    ("choice", "overrides", "said"),
    [
        ("zero3", ("stage=2",), "sharding.stage=2 contradicts sharding=zero3, which has sharding.stage=3. Use sharding=zero2, and leave"),
        ("zero2", ("stage=3",), "sharding.stage=3 contradicts sharding=zero2, which has sharding.stage=2. Use sharding=zero3, and leave"),
        ("zero1", ("stage=4",), "Use one of sharding=zero1, zero2, zero3, zero2_offload, zero3_offload, and leave sharding.stage out."),
        (
            "zero2",
            ("offload_optimizer=true",),
            "contradicts sharding=zero2, which has sharding.offload_optimizer=false.",
        ),
        ("zero2", ("offload_optimizer=true",), "Use sharding=zero2_offload, and leave sharding.offload_optimizer out."),
        ("zero3_offload", ("offload_optimizer=false",), "Use sharding=zero3, and leave"),
        (
            "zero2",
            ("stage=3", "offload_optimizer=true"),
            "sharding.stage=3 and sharding.offload_optimizer=true contradicts sharding=zero2, which has sharding.stage=2 and "
            "sharding.offload_optimizer=false. Use sharding=zero3_offload, and leave sharding.stage and sharding.offload_optimizer out.",
        ),
    ],
)
def test_a_sharding_whose_fields_say_another_name_is_refused_with_that_name(choice: str, overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        check_values(composed(f"sharding={choice}", *(f"sharding.{override}" for override in overrides)))


@pytest.mark.parametrize("choice", ["zero1", "zero2", "zero2_offload", "zero3"])
def test_only_split_weights_are_offloaded(choice: str) -> None:
    with pytest.raises(ConfigError, match=rf"unlike sharding={choice}\. Use sharding=zero3_offload"):
        check_values(composed(f"sharding={choice}", "sharding.offload_params=true"))


def test_states_may_be_offloaded_without_the_weights() -> None:
    check_values(composed("sharding=zero3_offload", "sharding.offload_params=false"))


# micro_batch, accumulation, effective_batch, ranks -> accumulation, effective_batch
@pytest.mark.parametrize(
    ("micro", "accumulation", "effective", "ranks", "settled"),
    [
        (4, None, None, 1, (1, 4)),
        (4, None, None, 8, (1, 32)),
        (4, 3, None, 8, (3, 96)),
        (4, None, 96, 8, (3, 96)),
        (4, 3, 96, 8, (3, 96)),
        (1, None, 1, 1, (1, 1)),
    ],
)
def test_batches_are_settled(micro: int, accumulation: int | None, effective: int | None, ranks: int, settled: tuple[int, int]) -> None:
    training = with_batch(with_training(micro_batch=micro, accumulation=accumulation, effective_batch=effective).training, ranks)
    assert (training.accumulation, training.effective_batch) == settled
    assert with_batch(training, ranks) == training


@pytest.mark.parametrize(("effective", "proposed"), [(100, 96), (33, 32), (31, 32), (1, 32)])
def test_a_batch_that_cannot_be_split_is_refused_with_one_that_can(effective: int, proposed: int) -> None:
    with pytest.raises(ConfigError, match=rf"training\.effective_batch={effective} is not a multiple of micro_batch 4 x 8 ranks\. Use {proposed}, "):
        with_batch(with_training(micro_batch=4, effective_batch=effective).training, 8)


def test_batch_sizes_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="effective_batch=64 is not micro_batch 4 x 8 ranks x accumulation 3"):
        with_batch(with_training(micro_batch=4, accumulation=3, effective_batch=64).training, 8)


@pytest.mark.parametrize(("gpus", "ranks"), [(0, 2), (1, 1), (8, 8)])
def test_ranks_follow_the_gpus_and_a_cpu_node_has_two(gpus: int, ranks: int) -> None:
    run = settled(composed(), node_with(gpus))
    assert run.cluster.ranks_per_node == ranks
    assert run.training.effective_batch == run.training.micro_batch * ranks


def test_ranks_of_all_nodes_share_the_batch() -> None:
    run = settled(composed("cluster=slurm", "cluster.nodes=3", "training.effective_batch=96"), node_with(8))
    assert (run.cluster.ranks_per_node, run.training.accumulation) == (8, 4)  # 96 / (1 x 3 x 8)


def test_fewer_ranks_than_gpus_are_allowed() -> None:
    assert settled(composed("cluster.ranks_per_node=2"), node_with(8)).cluster.ranks_per_node == 2


@pytest.mark.parametrize(("gpus", "said"), [(1, "has 1 GPU."), (2, "has 2 GPUs.")])
def test_more_ranks_than_gpus_are_refused(gpus: int, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"cluster\.ranks_per_node=4, but node box {said} Set cluster\.ranks_per_node={gpus} or less"):
        settled(composed("cluster.ranks_per_node=4"), node_with(gpus))


def test_a_cpu_node_takes_any_number_of_ranks() -> None:
    assert settled(composed("cluster.ranks_per_node=5"), node_with(0)).cluster.ranks_per_node == 5


def test_a_settled_run_is_settled() -> None:
    run = settled(composed("training.effective_batch=16"), node_with(8))
    assert settled(run, settled_node(run.node, run.node.gpus or 0)) == run


@pytest.mark.parametrize("override", ["regime.modules=[[a]]", "regime.modules=[{a: 1}]"])
def test_a_list_within_a_list_is_told_by_its_key(override: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{override.split('=')[0]}=.* is not possible\. It must be a list of single values"):
        check_values(compose(["model=demo", "data=demo", "node=cpu", "regime=freeze", override]))


def test_an_added_token_is_a_text() -> None:
    with pytest.raises(ConfigError, match="It must be a list of different, non-empty texts"):
        check_values(compose(["model=demo", "data=demo", "node=cpu", "model.added_tokens=[[a]]"]))


def test_an_output_with_a_line_break_is_refused() -> None:
    with pytest.raises(ConfigError, match="holds a character that cannot be shown"):
        check_values(compose(["model=demo", "data=demo", "node=cpu", 'output="a\nb"']))


def test_every_value_out_of_range_is_said_at_once_and_so_is_every_contradiction() -> None:
    run = composed("training.micro_batch=0", "optim.lr=-1", "cluster=slurm", "cluster.time=soon", "node=cpu")
    with pytest.raises(ConfigError) as refused:
        judge_run(run)
    assert [line.split(" ")[0] for line in str(refused.value).splitlines()] == ["optim.lr=-1.0", "training.micro_batch=0", "cluster.time=soon"]
    with pytest.raises(ConfigError) as refused:
        judge_run(composed("evaluation.best_at_end=true", "checkpoint.interval=7", "data.streaming=true", "node=cpu"))
    assert [line.split(" ")[0] for line in str(refused.value).splitlines()] == ["evaluation.best_at_end=true", "data.streaming=true"]
