"""training.fit=auto: the order, what it permits, what it refuses, and that a resume keeps what was chosen."""

import json
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from conf.choices import choice
from conf.run_dir import RunDir, load_run, save_run
from conf.schema import Run
from launcher.cli import main
from launcher.composition.compose import compose
from launcher.errors import ConfigError
from launcher.facts.model import ModelFacts
from launcher.gate.changes import trained, with_micro_batch
from launcher.gate.fit import candidates, fitted, named, slowness
from launcher.gate.judge import judge_recorded, judge_run
from launcher.gate.proposals import alternatives
from launcher.gate.variants import judging_like
from launcher.gate.verdict import Verdict, judge
from launcher.memory.estimate import estimate
from launcher.timing.step import step_time
from tests.described import with_facts

HUB_DATA = ["data=files", "data.sets=[org/name]"]  # nothing is counted, so nothing bounds the micro-batch
AUTO = ["training.fit=auto", "training.effective_batch=64"]


def described(*overrides: str) -> tuple[Run, ModelFacts, Callable[[Run], Verdict]]:
    run, facts = with_facts(*HUB_DATA, *AUTO, *overrides)
    return run, facts, lambda candidate: judge(candidate, facts, estimate(candidate, facts))


def chosen(*overrides: str) -> tuple[tuple[int, int | None, bool, str], tuple[str, ...]]:
    run, reasons = fitted(*described(*overrides))
    training = run.training
    assert training.effective_batch == 64
    return (training.micro_batch, training.accumulation, training.gradient_checkpointing, run.sharding.name), reasons


def test_where_everything_fits_the_micro_batch_grows_to_saturation_and_no_further():
    # 8 x 2048 tokens are the 16,384 from which on no larger micro-batch is looked at
    taken, reasons = chosen("model=llama3.2_1b", "node=h200_141", "data.cutoff=2048", "sharding=zero3")

    assert taken == (8, 8, False, "ddp")
    assert [reason.split(":")[0] for reason in reasons[1:]] == ["training.micro_batch=8", "training.gradient_checkpointing=false", "sharding=ddp"]
    assert re.fullmatch(
        r"micro-batch 8, no gradient checkpointing, sharding=ddp comes first in the order of speed of the \d+ permitted of 24 combinations",
        reasons[0],
    )


def test_what_kept_the_next_faster_choice_out_is_said_with_its_numbers():
    taken, reasons = chosen("model=llama3.1_8b", "node=h100_80", "data.cutoff=2048")

    assert taken == (2, 32, False, "ddp")
    assert reasons[1].startswith("training.micro_batch=2: micro-batch 4 instead would come before it, but GPU_PEAK: a GPU needs ")
    assert reasons[1].endswith("79.65 GiB is there.")  # 81,559 MiB


@pytest.mark.parametrize(("node", "taken"), [("h200_141", (3, "ddp")), ("a100_80", (False, "zero1")), ("a100_40", (True, "zero2"))])
def test_no_more_is_split_than_the_gpus_ask_for(node: str, taken: tuple[bool | int, str]):
    # Bytes of 8.03 billion parameters on a GPU of eight, in bf16: ddp 8 each, 64 GB; zero1 2 + 2 + (2 + 4) / 8, 38 GB; zero2 2 + 8 / 8, 24 GB;
    # fsdp2 8 / 8, 8 GB. On 141 GB passes of four samples with 3 of 32 layers computed again come before passes of two without.
    found, _ = chosen("model=llama3.1_8b", "regime=full", "training.precision=bf16", f"node={node}", "node.gpus=8", "gate.floor=advisory")

    assert found[2:] == taken


def test_the_order_is_that_of_the_predicted_seconds():
    run, facts, _ = described("model=llama3.1_8b", "regime=full", "node=h100_80", "node.gpus=2", "data.cutoff=512")
    run = trained(run, gradient_checkpointing=False)

    assert run.sharding.name == "ddp"
    assert slowness(run, facts) == step_time(run, facts).seconds
    assert slowness(with_micro_batch(run, 2), facts) < slowness(run, facts)  # half as many passes wait for the host
    # forward 1, backward 2, the layers' forward again: up to a third more, and what the host does around layers
    recomputed = trained(with_micro_batch(run, 32), gradient_checkpointing=True)
    assert 1.2 < slowness(recomputed, facts) / slowness(with_micro_batch(run, 32), facts) < 1.4
    forms = [slowness(replace(run, sharding=choice("sharding", name)), facts) for name in ("ddp", "zero1", "zero2", "zero3", "zero3_offload")]
    assert forms == sorted(forms)


def test_of_equally_fast_combinations_the_one_with_more_memory_left_comes_first():
    run, facts, judge_run = described("model=llama3.2_1b", "node=h200_141", "data.cutoff=16384")

    assert fitted(run, facts, judge_run)[0].training.micro_batch == 1  # 16,384 tokens already


def random_job(source: random.Random) -> list[str]:
    return [
        f"model={source.choice(['qwen2.5_0.5b', 'llama3.2_1b', 'llama3.1_8b', 'mixtral_8x7b'])}",
        f"regime={source.choice(['full', 'lora', 'qlora', 'freeze'])}",
        f"node={source.choice(['t4_16', 'rtx4090_24', 'a100_40', 'h100_80', 'h200_141'])}",
        f"node.gpus={source.choice([1, 2, 8])}",
        f"data.cutoff={source.choice([512, 2048, 8192])}",
        f"training.loss={source.choice(['plain', 'fused'])}",
        f"gate.floor={source.choice(['strict', 'advisory'])}",
    ]


def test_the_choice_is_the_fastest_permitted_of_all_combinations_and_keeps_the_batch():
    source, permitted = random.Random(5), 0
    for _ in range(12):
        run, facts, judge_run = described(*random_job(source))
        found, reasons = fitted(run, facts, judge_run)
        possible = [slowness(candidate, facts) for candidate in candidates(run, None) if judge_run(candidate).permitted]
        training = found.training
        assert training.micro_batch * (training.accumulation or 0) * (found.cluster.ranks_per_node or 0) == training.effective_batch == 64
        assert judge_run(found).permitted == bool(possible)
        assert reasons[0].startswith("none of the") != bool(possible)
        if possible:
            whole = isinstance(training.gradient_checkpointing, bool)  # a part of the layers is faster than all, and not among the candidates
            assert slowness(found, facts) == min(possible) if whole else slowness(found, facts) < min(possible)
        permitted += bool(possible)
    assert 2 < permitted < 12


def test_where_nothing_fits_the_one_that_misses_least_is_shown():
    run, facts, judge_run = described("model=llama3.2_1b", "regime=full", "node=cpu", "node.host_memory=4000000000", "gate.floor=advisory")
    found, reasons = fitted(run, facts, judge_run)
    every = list(candidates(run, None))

    assert reasons == (f"none of the {len(every)} combinations is permitted; {named(found)} comes closest",)
    assert judge_run(found).headroom == max(judge_run(candidate).headroom for candidate in every) < 0


def test_where_the_published_table_alone_refuses_the_fastest_that_fits_is_shown():
    # the table asks 18 GB a billion parameters, 144.7 GB, and an H100 has 85.5; with the states in host memory the job would run
    on_h100 = ("model=llama3.1_8b", "regime=full", "node=h100_80")
    run, facts, judge_run = described(*on_h100, "gate.floor=strict")
    shown, reasons = fitted(run, facts, judge_run)

    assert [check.rule for check in judge_run(shown).checks if not check.passed] == ["PUBLISHED_FLOOR"]
    fits = [each for each in candidates(run, None) if all(check.passed for check in judge_run(each).checks if check.rule == "GPU_PEAK")]
    assert shown == min(fits, key=lambda candidate: slowness(candidate, facts))
    assert reasons[0].startswith("none of the 24 combinations is permitted")


def test_known_data_bounds_the_micro_batch():
    run, facts, judge_run = described("model=llama3.2_1b", "node=h200_141", "node.gpus=2", "data.cutoff=512")

    assert fitted(run, facts, judge_run, samples=11)[0].training.micro_batch == 4  # 5 samples a rank; 4 divides its 32
    assert fitted(run, facts, judge_run, samples=1)[0].training.micro_batch == 1  # the data is refused afterwards


def test_fields_of_the_given_sharding_stay_when_it_is_chosen():
    run, facts, judge_run = described("model=llama3.2_1b", "node=h200_141", "node.gpus=2", "sharding.bucket_mb=100")

    sharding = fitted(run, facts, judge_run)[0].sharding
    assert (sharding.name, vars(sharding)["bucket_mb"]) == ("ddp", 100)


def test_a_cpu_node_is_offered_no_host_offload():
    run, _, _ = described("model=llama3.2_1b", "node=cpu", "node.host_memory=64000000000")

    assert {candidate.sharding.name for candidate in candidates(run, None)} == {"ddp", "zero1", "zero2", "zero3"}


def planned(*overrides: str) -> list[str]:
    return ["model=llama3.2_1b", *HUB_DATA, "node=h200_141", "training.max_steps=10", "node.host_memory=500000000000", *overrides]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.fit=auto"], r"training\.effective_batch has no value\. Set it"),
        ([*AUTO, "training.accumulation=4"], r"training\.accumulation, but training\.accumulation=4 is given\. Leave one"),
        ([*AUTO, "node.gpus=6"], r"not a multiple of micro_batch 1 x 6 ranks\. Use 60\.$"),
        ([*AUTO, "training.loss=fused", "node=cpu"], r"training\.loss=fused does not work in this run\. .* Set training\.loss=chunked\."),
    ],
)
def test_what_cannot_be_fitted_is_one_clear_error(overrides: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        judge_run(compose(planned(*overrides)))


def test_a_sharding_that_could_not_work_is_replaced_and_not_refused():
    found = judge_run(compose(planned(*AUTO, "regime=qlora", "regime.bits=8", "node.gpus=2", "sharding=fsdp2")))

    assert found.run.sharding.name == "ddp"


def test_a_gate_that_is_off_does_not_let_the_choice_outgrow_the_gpu():
    fitting = judge_run(compose(planned(*AUTO, "model=llama3.1_8b", "gate.mode=enforce"))).run.training
    assert judge_run(compose(planned(*AUTO, "model=llama3.1_8b", "gate.mode=off"))).run.training == fitting


def test_a_recorded_run_keeps_its_choice_on_another_machine(tmp_path: Path):
    save_run(judge_run(compose(planned(*AUTO))).run, RunDir(tmp_path))
    recorded = load_run(RunDir(tmp_path))
    assert (recorded.training.fit, recorded.training.micro_batch, recorded.training.accumulation) == ("auto", 8, 8)

    smaller = judge_recorded(replace(recorded, node=replace(recorded.node, gpu_memory=24 * 2**30)))

    assert smaller.run.training == recorded.training
    assert smaller.run.sharding == recorded.sharding
    assert smaller.fit == ()
    with pytest.raises(ConfigError, match=r"but training\.accumulation=8 is given"):  # nowhere is a recorded run fitted unnoticed
        judge_run(recorded)


def test_a_resume_is_planned_as_it_was_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save_run(judge_run(compose(planned(*AUTO))).run, RunDir(tmp_path))

    code = main(["plan", "--json", f"resume={tmp_path}", *AUTO])

    plan = json.loads(capsys.readouterr().out)
    assert (code, plan["run"]["training"]["micro_batch"], plan["fit"]) == (0, 8, [])


def test_the_plan_says_what_was_chosen_and_why(capsys: pytest.CaptureFixture[str]):
    assert main(["plan", *planned(*AUTO)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "64 samples a step (micro-batch 8 x 1 rank x accumulation 8)" in text
    assert " training.fit=auto: micro-batch 8, no gradient checkpointing, sharding=ddp comes first in the order of speed of the " in text

    assert main(["plan", "--json", *planned(*AUTO)]) == 0
    assert json.loads(capsys.readouterr().out)["fit"][0].startswith("micro-batch 8, ")


def test_pasted_proposals_are_fitted_anew_and_permitted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**13))
    source, pasted = random.Random(3), 0
    while pasted < 4:
        overrides = [*AUTO, *HUB_DATA, "training.max_steps=10", *random_job(source)]
        decided = judge_run(compose(overrides))
        for change in alternatives(decided.run, decided.facts, judging_like(decided))[:2] if not decided.verdict.permitted else ():
            assert "training.accumulation" not in {text.split("=")[0] for text in change.overrides}
            again = judge_run(compose([*overrides, *change.overrides]))
            assert again.verdict.permitted, (overrides, change.overrides)
            assert again.run.training.effective_batch == 64
            pasted += 1
