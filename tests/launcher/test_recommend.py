import random
from collections.abc import Iterable
from copy import deepcopy

import yaml

from conf.schema import Run
from launcher.compatibility import incompatibilities
from launcher.compose import compose
from launcher.gate import Verdict, judge
from launcher.memory.estimate import estimate
from launcher.model_facts import ModelFacts, model_facts
from launcher.moves import choice
from launcher.recommend import alternatives, regime_matrix
from launcher.settle import check_values, settle

JOBS = 200
MODELS = ["qwen2.5_0.5b", "llama3.2_1b", "qwen2.5_7b", "llama3.1_8b", "qwen3_8b", "llama2_13b", "mixtral_8x7b"]


def described(*overrides: str) -> tuple[Run, ModelFacts]:
    run = compose(["data=demo", *overrides])
    check_values(run)
    run = settle(run, run.node)
    assert run.model.architecture is not None
    return run, model_facts(run.model.architecture, "test")


def judged(run: Run, facts: ModelFacts) -> Verdict:
    assert incompatibilities(run) == []
    return judge(run, facts, estimate(run, facts))


def proposals(*overrides: str):
    run, facts = described(*overrides)
    return alternatives(run, facts, lambda changed: judged(changed, facts))


def random_job(source: random.Random) -> list[str]:
    """Overrides that name few GPUs for what they ask."""
    regime = source.choice(["regime=full", "regime=full training.precision=bf16", "regime=freeze", "regime=lora regime.rank=64", "regime=qlora"])
    node = source.choice(["t4_16", "rtx4090_24", "a100_40", "l40s_48", "h100_80"])
    return [
        *regime.split(),
        f"node={node}",
        f"node.gpus={source.choice([1, 2, 4, 8])}",
        *source.choice([[], ["node.host_memory=250000000000"]]),
        f"sharding={source.choice(['ddp', 'ddp', 'zero2', 'zero3'])}",
        f"optim={source.choice(['adamw', 'adamw', 'adafactor'])}",
        f"data.cutoff={source.choice([512, 2048, 4096, 8192])}",
        f"training.micro_batch={source.choice([1, 2, 4, 8])}",
        f"training.accumulation={source.choice([1, 2])}",
        f"training.gradient_checkpointing={source.choice(['true', 'false'])}",
    ]


def written(run: Run, overrides: Iterable[str]) -> Run:
    """`run` with overrides, as composition applies them but a hundred times faster."""
    run = deepcopy(run)
    for key, value in (text.split("=", 1) for text in sorted(overrides, key=lambda text: "." in text.split("=")[0])):
        group, _, field = key.partition(".")
        if field:
            setattr(getattr(run, group), field, yaml.safe_load(value))
        else:
            setattr(run, key, deepcopy(choice(key, value)))
    return settle(run, run.node)


def test_every_proposal_for_two_hundred_random_refused_jobs_is_permitted_and_keeps_the_effective_batch():
    source = random.Random(7)
    bases = {model: compose([f"model={model}", "data=demo", "node=h100_80"]) for model in MODELS}
    proposed = 0
    for _ in range(JOBS):
        model, overrides, run, facts = refused_job(source, bases)
        for change in alternatives(run, facts, lambda changed, facts=facts: judged(changed, facts)):
            again = written(bases[model], [*overrides, *change.overrides])
            verdict = judged(again, facts)
            assert verdict.permitted, (overrides, change.overrides, [check.sentence for check in verdict.checks])
            assert verdict.headroom == change.headroom >= 0
            assert again.training.effective_batch == run.training.effective_batch
            proposed += 1
    assert JOBS < proposed <= 5 * JOBS


def test_proposals_compose_to_what_was_judged():
    source = random.Random(11)
    bases = {model: compose([f"model={model}", "data=demo", "node=h100_80"]) for model in MODELS}
    for _ in range(4):
        model, overrides, run, facts = refused_job(source, bases)
        for change in alternatives(run, facts, lambda changed, facts=facts: judged(changed, facts)):
            again, _ = described(f"model={model}", *overrides, *change.overrides)
            assert again.regime == written(bases[model], [*overrides, *change.overrides]).regime
            assert judged(again, facts).permitted
            assert again.training.effective_batch == run.training.effective_batch


def refused_job(source: random.Random, bases: dict[str, Run]) -> tuple[str, list[str], Run, ModelFacts]:
    while True:
        model, overrides = source.choice(MODELS), random_job(source)
        run = written(bases[model], overrides)
        assert run.model.architecture is not None
        facts = model_facts(run.model.architecture, "test")
        if not judged(run, facts).permitted:
            return model, overrides, run, facts


def test_a_job_that_fits_is_left_alone():
    assert proposals("model=llama3.2_1b", "node=h200_141") == ()


def test_the_cheapest_sufficient_change_comes_first_and_is_not_repeated_with_more():
    # 12 bytes of loss per logit: 8192 tokens x 128256 are 11.7 GiB of the 24 that adapters on 1 B weights take with a plain loss
    changes = proposals("model=llama3.2_1b", "node=t4_16", "data.cutoff=8192", "data.validation_share=0", "gate.margin=0.1")

    assert changes[0].overrides == ("training.loss=fused",)
    assert all("training.loss=fused" not in change.overrides for change in changes[1:])


def test_checkpointing_and_a_smaller_batch_are_combined_where_one_is_not_enough():
    changes = proposals("model=llama3.1_8b", "node=rtx4090_24", "data.cutoff=2048", "training.micro_batch=4", "training.gradient_checkpointing=false")

    combined = {"training.gradient_checkpointing=true", "training.micro_batch=1", "training.accumulation=4"}
    assert any(set(change.overrides) == combined for change in changes)


def test_a_job_below_the_published_floor_is_offered_another_regime_or_node():
    changes = proposals("model=llama3.1_8b", "regime=full", "node=h100_80")

    assert changes[0].overrides == ("regime=lora",)
    assert any("node=h200_141" in change.overrides for change in changes)


def test_a_shorter_cutoff_says_that_it_changes_the_data():
    changes = proposals(
        "model=qwen2.5_7b", "regime=qlora", "node=t4_16", "data.cutoff=2048", "training.micro_batch=4", "training.gradient_checkpointing=false"
    )

    shorter = [change for change in changes if any(text.startswith("data.cutoff=") for text in change.overrides)]
    assert shorter
    assert all("changes the data" in change.note for change in shorter)


def test_a_cpu_node_is_offered_fewer_processes():
    changes = proposals("model=llama3.2_1b", "node=cpu", "node.host_memory=8000000000", "data.cutoff=256", "gate.floor=advisory")

    assert changes[0].overrides[-1] == "cluster.ranks_per_node=1"


def test_the_matrix_shows_every_regime_with_table_prediction_and_verdict():
    run, facts = described("model=llama3.1_8b", "node=h100_80", "regime=lora", "data.cutoff=2048")

    rows = regime_matrix(run, facts, lambda changed: judged(changed, facts))

    assert [(row.name, row.permitted) for row in rows] == [
        ("full, mixed precision", False),
        ("full, 16 bits", True),
        ("freeze", True),
        ("lora", True),
        ("qlora, 8 bits", True),
        ("qlora, 4 bits", True),
        ("qlora, 2 bits", True),
    ]
    assert rows[3].overrides == ()
    assert rows[0].why
    assert rows[0].predicted > rows[1].predicted > rows[3].predicted > rows[5].predicted


def test_the_matrix_shows_what_cannot_work_under_the_sharding_with_its_reason():
    run, facts = described("model=llama3.1_8b", "node=h100_80", "node.gpus=2", "sharding=zero3")

    rows = {row.name: row for row in regime_matrix(run, facts, lambda changed: judged(changed, facts))}

    assert "before HQQ can pack them" in rows["qlora, 2 bits"].why
    assert not rows["qlora, 2 bits"].permitted
    assert rows["qlora, 8 bits"].permitted
    assert rows["qlora, 4 bits"].permitted
