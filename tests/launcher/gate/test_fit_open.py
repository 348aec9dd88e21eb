"""What training.fit chooses without being asked: the keys that are open, on GPUs, in stages that learn from given rows."""

import importlib.machinery
import re
from dataclasses import replace
from pathlib import Path

import pytest

from conf.exchanges import reshards
from conf.run_dir import RunDir, load_run, save_run
from conf.schema import Fsdp, Run
from launcher.composition.compose import compose
from launcher.errors import ConfigError
from launcher.gate import fit, verdict
from launcher.gate.judge import Judged, judge_recorded, judge_run, kept_activations, node_of
from launcher.gate.left_open import left_open
from launcher.gate.settle import settled
from launcher.memory.estimate import estimate
from launcher.memory.step.fused_reach import fuses_layers
from launcher.rules.pairs import incompatibilities
from launcher.verbs.plan_text import fit_lines

SOURCE = ("data=files", "data.sets=[org/name]", "data.cutoff=2048", "training.max_steps=10", "node.host_memory=500000000000", "gate.floor=advisory")
LLAMA, STATED = ("model=llama3.1_8b", "node=h200_141"), "training.effective_batch=4"
KEYS = ("micro_batch", "accumulation", "gradient_checkpointing", "kernels", "loss", "attention")


@pytest.fixture
def with_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra `gpu` is installed."""
    monkeypatch.setattr(fit, "find_spec", lambda name: importlib.machinery.ModuleSpec(name, None))


@pytest.fixture
def without_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "find_spec", lambda name: None)


def judged(*overrides: str) -> Judged:
    return judge_run(compose([*SOURCE, *overrides]))


def chosen(*overrides: str) -> tuple[object, ...]:
    training = judged(*overrides).run.training
    return tuple(getattr(training, key) for key in KEYS)


@pytest.mark.usefixtures("with_extra")
@pytest.mark.parametrize("regime", ["lora", "qlora", "full"])
def test_the_samples_of_a_step_alone_bring_the_fastest_form_that_fits(regime: str) -> None:
    found = judged("model=llama3.2_1b", "node=h200_141", f"regime={regime}", STATED)

    assert found.verdict.permitted
    assert tuple(getattr(found.run.training, key) for key in KEYS) == (4, 1, False, "fused", "fused", "varlen")
    assert fuses_layers(found.run, found.facts)  # what is chosen is predicted
    assert found.estimate.doubts == ()
    assert found.fit[0].startswith("micro-batch 4, no gradient checkpointing, fused kernels, fused loss, sharding=ddp comes first")
    head, *lines = fit_lines(found)
    assert head.startswith("chosen by training.fit: micro-batch 4, ")
    said = " ".join(" ".join(lines).split())
    reasons = {
        "training.micro_batch=4": "first in the order of speed; a step keeps its 4 samples",
        "training.gradient_checkpointing=false": "nothing is computed twice, and all activations fit",
        "training.kernels=fused": "the same mathematics in less time",
        "training.loss=fused": "one kernel, whose logits are never whole",
        "training.attention=varlen": "the first of varlen, sdpa and eager that works with these kernels and rows",
    }
    assert said.endswith(" ".join(f"{key}: {why}" for key, why in reasons.items()))
    assert judged("model=llama3.2_1b", "node=h200_141", f"regime={regime}", STATED, "training.fit=off", *reasons).run == replace(
        found.run, training=replace(found.run.training, fit="off")
    )


@pytest.mark.usefixtures("with_extra")
@pytest.mark.parametrize(
    ("stated", "batch"),
    [((), (1, 1, 1)), (("node.gpus=2",), (1, 1, 2)), (("training.accumulation=4",), (1, 4, 4)), (("training.micro_batch=4",), (4, 1, 4))],
)
def test_where_nothing_is_said_of_the_batch_it_stays_and_the_rest_is_chosen(stated: tuple[str, ...], batch: tuple[int, int, int]) -> None:
    """One sample on each rank in each step, as many as training.fit=off gives it."""
    found, plain = judged(*LLAMA, "regime=lora", *stated).run.training, judged(*LLAMA, "regime=lora", *stated, "training.fit=off").run.training

    assert (found.micro_batch, found.accumulation, found.effective_batch) == batch
    assert (plain.micro_batch, plain.accumulation, plain.effective_batch) == batch
    assert (found.gradient_checkpointing, found.kernels, found.loss, found.attention) == (False, "fused", "fused", "varlen")
    assert (plain.gradient_checkpointing, plain.kernels, plain.loss, plain.attention) == (True, "plain", "plain", "sdpa")


@pytest.mark.usefixtures("with_extra")
def test_no_more_layers_are_computed_again_than_the_memory_asks_for() -> None:
    job = ("model=llama3.1_8b", "node=a100_40", "regime=lora", STATED, "training.micro_batch=4")
    found = judged(*job)
    layers = found.run.training.gradient_checkpointing

    assert found.verdict.permitted
    assert type(layers) is int
    assert 1 < layers < 32
    stated = ["training.fit=off", "training.kernels=fused", "training.loss=fused", "training.attention=varlen"]
    fewer = judged(*job, *stated, f"training.gradient_checkpointing={layers - 1}")
    assert not fewer.verdict.permitted or fewer.verdict.close
    same = judged(*job, *stated, f"training.gradient_checkpointing={layers}")
    assert same.run.training == replace(found.run.training, fit="off")
    assert same.estimate.required == found.estimate.required < fewer.estimate.required
    assert any(
        reason.startswith(f"training.gradient_checkpointing={layers}: gradient checkpointing of {layers - 1} layers instead") for reason in found.fit
    )


@pytest.mark.usefixtures("without_extra")
def test_auto_chooses_the_layers_alone_wherever_it_stands() -> None:
    """On a CPU node, where nothing else is chosen; and where training.fit=off."""
    job = ("model=llama3.2_1b", "node=cpu", "regime=lora", "cluster.ranks_per_node=1", "training.micro_batch=4", "data.cutoff=512")
    auto = "training.gradient_checkpointing=auto"
    hosts = [judged(*job, f"training.gradient_checkpointing={value}").estimate.host for value in ("true", "8", "false")]
    assert hosts[0] < hosts[1] < hosts[2]
    between = f"node.host_memory={int(hosts[1] * 1.05)}"
    for given, least, most in ((), 0, 0), ((between,), 1, 15), ((between, "training.fit=off"), 1, 15):
        found = judged(*job, auto, *given)
        training = found.run.training
        assert least <= training.gradient_checkpointing <= most
        assert (found.verdict.permitted, found.verdict.close) == (True, "")
        assert (training.kernels, training.loss, training.micro_batch) == ("plain", "plain", 4)


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (("training.gradient_checkpointing=17",), "the backward pass goes through 16 layers. Set a number up to 16, or true for all."),
        (("training.gradient_checkpointing=0",), "It must be true, false, auto or a number of layers from 1 on."),
        (("training.gradient_checkpointing=maybe",), "It must be true, false, auto or a number of layers from 1 on."),
        (
            ("training.gradient_checkpointing=4", "sharding=fsdp2", "node.gpus=2"),
            "Under FSDP2 memory is predicted only where all layers are computed again, or none. Set training.gradient_checkpointing=true.",
        ),
        (("training.gradient_checkpointing=2", "regime=freeze", "regime.layers=0", "regime.new_blocks=2"), "New blocks stand between frozen ones"),
    ],
)
def test_a_number_of_layers_that_cannot_be_is_refused(overrides: tuple[str, ...], why: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(why)):
        judged("model=llama3.2_1b", "node=h200_141", *overrides)


@pytest.mark.usefixtures("without_extra")
def test_what_nobody_asked_for_does_not_come_so_near_to_the_limit_that_the_estimate_may_be_wrong() -> None:
    """8-bit layers under the chunked loss may need 3 % more, and the margin is 1 %: between both the default computes layers again, and auto none."""
    bits = ("regime=qlora", "regime.bits=8", "training.loss=chunked")
    job = ("model=llama3.1_8b", *bits, "node=h200_141", "training.effective_batch=1", "data.cutoff=8192")
    fast, frugal = (judged(*job, f"training.gradient_checkpointing={kept}").estimate for kept in ("false", "true"))
    limit = int(fast.required * 1.02)  # gate.margin is 0.01
    assert frugal.ranges.needed.high(frugal.required) < limit < fast.ranges.needed.high(fast.required)
    node = (f"node.gpu_memory={limit}",)

    assert judged(*job, *node, "training.fit=auto").run.training.gradient_checkpointing is False
    found = judged(*job, *node)
    assert found.run.training.gradient_checkpointing is not False
    assert found.verdict.close == ""
    assert any(" instead would come before it, but " in reason and "may be needed" in reason for reason in found.fit)


@pytest.mark.usefixtures("with_extra")
def test_what_does_not_fit_is_left_out_and_said() -> None:
    """8B with adapters keeps 8.5 GiB a row of 2048 tokens: four of them and 15 GiB of weights on 40 GiB do not fit."""
    found = judged("model=llama3.1_8b", "node=a100_40", "regime=lora", STATED)

    assert found.verdict.permitted
    assert (found.run.training.micro_batch, found.run.training.accumulation) == (2, 2)
    assert any(reason.startswith("training.micro_batch=2: micro-batch 4 instead would come before it, but GPU_PEAK:") for reason in found.fit)


@pytest.mark.usefixtures("with_extra")
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (("training.micro_batch=2",), {"micro_batch": 2, "accumulation": 2}),
        (("training.accumulation=4",), {"micro_batch": 1, "accumulation": 4}),
        (("training.gradient_checkpointing=true",), {"gradient_checkpointing": True}),
        (("training.kernels=plain",), {"kernels": "plain", "attention": "sdpa"}),
        (("training.loss=plain",), {"loss": "plain", "kernels": "fused"}),
        (("training.attention=sdpa",), {"attention": "sdpa", "kernels": "fused"}),
        (("sharding=zero2", "node.gpus=2"), {"micro_batch": 2}),
    ],
)
def test_what_is_stated_stays(given: tuple[str, ...], kept: dict[str, object]) -> None:
    found = judged(*LLAMA, "regime=lora", STATED, *given).run

    assert {key: getattr(found.training, key) for key in kept} == kept
    assert found.sharding.name == ("zero2" if "sharding=zero2" in given else "ddp")


@pytest.mark.usefixtures("with_extra")
@pytest.mark.parametrize(
    ("stage", "micro_batch"),
    [
        (("rm",), 4),
        (("dpo",), 4),
        (("dpo", "stage.sft_weight=0.1"), 4),
        (("simpo",), 4),
        (("simpo", "stage.sft_weight=0.1"), 4),
        (("orpo",), 4),
        (("kto", "training.micro_batch=2"), 2),
    ],
)
def test_stages_that_compare_answers_keep_a_micro_batch_on_which_their_loss_depends(stage: tuple[str, ...], micro_batch: int) -> None:
    found = judged("model=llama3.2_1b", "node=h200_141", f"stage={stage[0]}", "regime=lora", STATED, *stage[1:])

    assert tuple(getattr(found.run.training, key) for key in KEYS) == (micro_batch, 4 // micro_batch, False, "plain", "plain", "sdpa")
    assert "training.kernels=plain: the fused kernels ran on GPUs in two runs alone of stages that compare answers" in found.fit


@pytest.mark.usefixtures("with_extra")
def test_a_large_vocabulary_that_does_not_fit_at_once_is_chunked() -> None:
    """Four pairs of 2048 tokens: 16 GiB in fp32 for 128,256 words, twice and three times."""
    found = judged("model=llama3.2_1b", "node=a100_40", "stage=dpo", "regime=lora", STATED, "training.micro_batch=4", "training.kernels=fused")

    assert found.verdict.permitted
    assert (found.run.training.kernels, found.run.training.loss) == ("fused", "chunked")


PLAIN = (1, 4, True, "plain", "plain", "sdpa")


@pytest.mark.usefixtures("with_extra")
@pytest.mark.parametrize(
    "overrides",
    [
        (*LLAMA, "regime=lora", STATED, "training.fit=off"),
        ("model=llama3.2_1b", "node=cpu", "cluster.ranks_per_node=1", "regime=lora", STATED),
    ],
)
def test_elsewhere_nothing_is_chosen(overrides: tuple[str, ...]) -> None:
    assert chosen(*overrides) == PLAIN
    assert judged(*overrides).fit == ()


@pytest.mark.usefixtures("with_extra")
@pytest.mark.parametrize(
    "stage", [("stage=ppo", "stage.reward_model=org/judge"), ("stage=grpo", "stage.rewards=[brevity]", "stage.generations=4")], ids=["ppo", "grpo"]
)
def test_stages_that_write_their_answers_choose_which_layers_are_computed_again(stage: tuple[str, ...]) -> None:
    given = ("model=llama3.2_1b", "node=h200_141", *stage, "regime=lora", STATED)
    assert chosen(*given) == (1, 4, False, *PLAIN[3:])
    assert chosen(*given, "training.gradient_checkpointing=true") == PLAIN
    [line] = [reason for reason in judged(*given).fit if reason.startswith("training.")]
    assert line.startswith("training.gradient_checkpointing=false: ")


@pytest.mark.usefixtures("with_extra")
@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (("model=mixtral_8x7b", "node=h200_141", "regime=qlora"), "the fused kernels were not compared for mixtral"),
        ((*LLAMA, "regime=lora", "regime.dora=true"), "the memory of the fused kernels is not predicted with regime.dora=true"),
        ((*LLAMA, "regime=qlora", "regime.bits=2"), "the memory of the fused kernels is not predicted with regime.bits=2"),
        (("model=llama3.2_1b", "node=t4_16", "regime=lora", "training.precision=fp16_amp"), "the fused kernels need a GPU of the Ampere"),
        (("model=llama3.2_1b", "node=h200_141", "regime=full", "training.precision=fp32"), "not measured with training.precision=fp32"),
        ((*LLAMA, "node.gpus=2", "regime=lora", "sharding=zero3"), "The fused kernels read whole weights"),
    ],
)
def test_the_plain_kernels_stay_where_the_fused_ones_are_not_to_be_trusted(overrides: tuple[str, ...], why: str) -> None:
    found = judged(*overrides, STATED)

    assert found.run.training.kernels == "plain"
    assert any(reason.startswith("training.kernels=plain: ") and why in reason for reason in found.fit)


@pytest.mark.usefixtures("without_extra")
def test_without_the_extra_the_plan_says_so() -> None:
    found = judged(*LLAMA, "regime=lora", STATED)

    assert (found.run.training.kernels, found.run.training.loss) == ("plain", "plain")
    [kernels] = [reason for reason in found.fit if reason.startswith("training.kernels=plain: liger-kernel and triton")]
    assert "pip install 'regimen[gpu]'" in kernels


@pytest.mark.usefixtures("with_extra")
def test_a_recorded_run_keeps_what_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_run(judged(*LLAMA, "regime=lora", STATED).run, RunDir(tmp_path))
    recorded = load_run(RunDir(tmp_path))
    monkeypatch.setattr(fit, "find_spec", lambda name: None)

    for judge in (judge_recorded, judge_run):
        again: Judged = judge(recorded)
        assert again.run.training == recorded.training
        assert again.fit == ()
    assert (recorded.training.kernels, recorded.training.micro_batch) == ("fused", 4)


@pytest.mark.usefixtures("with_extra")
def test_the_order_puts_fused_kernels_first_and_asks_nothing_else_of_them() -> None:
    run = judged(*LLAMA, "regime=lora", STATED).run
    facts = judged(*LLAMA, "regime=lora", STATED).facts

    plain = fit.with_kernels(run, "plain", "plain", fit.Open())
    assert fit.slowness(run, facts) / fit.slowness(plain, facts) == pytest.approx(0.62, abs=0.05)  # 463 of 745 ms: results/speed/h200_speed.jsonl


@pytest.mark.usefixtures("with_extra")
def test_8_bit_products_take_the_fused_kernels_with_them_and_are_never_chosen() -> None:
    found = judged(*LLAMA, "regime=lora", STATED, "training.fp8=true")

    assert (found.run.training.fp8, found.run.training.kernels, found.run.training.loss) == (True, "fused", "fused")
    assert any(note.startswith("training.fp8=true: ") for note in found.notes)
    assert not judged(*LLAMA, "regime=lora", STATED).run.training.fp8


FAMILY = ("model=llama3.2_1b", "model.init=random", "model.path=null", "model.architecture.model_type=ctrl", "node=h200_141")


@pytest.mark.parametrize("given", ["training.gradient_checkpointing=null", "training.gradient_checkpointing=auto"])
@pytest.mark.parametrize("where", [(), ("training.fit=off",), ("node=cpu",)])
def test_a_family_that_cannot_recompute_keeps_its_activations_where_nothing_else_is_stated(given: str, where: tuple[str, ...]) -> None:
    """It was settled as true, which the rules refuse for such a family."""
    composed = compose([*SOURCE, *FAMILY, given, *where])
    node = node_of(composed).node

    run = settled(composed, node)

    assert run.training.gradient_checkpointing is False
    assert incompatibilities(run) == []
    assert kept_activations(run) == ("training.gradient_checkpointing=false: transformers cannot compute the activations of this family again.",)
    assert settled(compose([*SOURCE, *FAMILY[:3], given, *where]), node).training.gradient_checkpointing is True


@pytest.mark.usefixtures("without_extra")
def test_what_is_chosen_for_such_a_family_never_recomputes_and_says_why() -> None:
    composed = compose([*SOURCE, *FAMILY])
    facts = judged("model=llama3.2_1b", "node=h200_141").facts
    run, left = settled(composed, node_of(composed).node), left_open(composed, 1)
    assert left is not None

    chosen, reasons = fit.fitted(run, facts, lambda candidate: verdict.judge(candidate, facts, estimate(candidate, facts)), None, left)

    assert chosen.training.gradient_checkpointing is False
    assert "training.gradient_checkpointing=false: transformers cannot compute the activations of this family again" in reasons


TWO_FULL = ("model=llama3.2_1b", "node=h200_141", "node.gpus=2", "regime=full", "training.fit=auto", "training.effective_batch=2", "sharding=fsdp2")


def fitted_on_two(*stated: str, kept_fits: bool = True) -> tuple[Run, tuple[str, ...]]:
    """Where only FSDP2 is permitted."""
    composed = compose([*SOURCE, *TWO_FULL, *stated])
    run, left = settled(composed, node_of(composed).node), left_open(composed, 2)
    facts = judged("model=llama3.2_1b", "node=h200_141").facts
    assert left is not None

    def permitting(candidate: Run) -> verdict.Verdict:
        found = verdict.judge(candidate, facts, estimate(candidate, facts))
        split = isinstance(candidate.sharding, Fsdp)
        return replace(found, permitted=split and (kept_fits or reshards(candidate.sharding)))

    return fit.fitted(run, facts, permitting, None, left)


@pytest.mark.usefixtures("without_extra")
@pytest.mark.parametrize(
    ("stated", "kept_fits", "chosen_value", "said"),
    [
        ((), True, False, "sharding=fsdp2 sharding.reshard_after_forward=false: "),
        ((), False, None, "sharding=fsdp2: "),
        (("sharding.reshard_after_forward=true",), True, True, "sharding=fsdp2: "),
    ],
)
def test_fsdp2_keeps_what_it_gathered_where_that_fits_and_the_key_is_open(
    stated: tuple[str, ...], kept_fits: bool, chosen_value: bool | None, said: str
) -> None:
    """Two H200s kept 96.9 % of the rate of one, instead of 94.9."""
    run, reasons = fitted_on_two(*stated, kept_fits=kept_fits)

    assert isinstance(run.sharding, Fsdp)
    assert run.sharding.reshard_after_forward is chosen_value
    assert any(reason.startswith(said) for reason in reasons), reasons


@pytest.mark.usefixtures("without_extra")
def test_a_stated_fsdp2_keeps_what_it_gathered_without_being_asked() -> None:
    stated = (*TWO_FULL[:-3], "sharding=fsdp2")
    found = judged(*stated)
    assert isinstance(found.run.sharding, Fsdp)
    assert found.run.sharding.reshard_after_forward is False
    assert "sharding=fsdp2 sharding.reshard_after_forward=false: first in the order of speed" in found.fit
    off = judged(*stated, "training.fit=off").run.sharding
    assert isinstance(off, Fsdp)
    assert off.reshard_after_forward is None
