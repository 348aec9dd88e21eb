import random
from collections import Counter
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, replace

import pytest
import yaml

from conf.choices import choice
from conf.schema import Run
from conf.shardings import SHARDINGS
from launcher.errors import ConfigError
from launcher.facts.model import ModelFacts, model_facts
from launcher.facts.node import settled_node
from launcher.gate.proposals import alternatives, regime_matrix, sharding_matrix
from launcher.gate.settle import settled
from launcher.gate.verdict import Verdict, judge
from launcher.memory.estimate import estimate
from launcher.rules.pairs import incompatibilities
from launcher.rules.ranges import check_values
from tests.described import composed, with_facts

COMPOSED = 12  # each takes a tenth of a second
# Every move that a job without training.fit can be offered.
PROPOSED_KEYS = {
    "checkpoint.keep",
    "data.cutoff",
    "evaluation.micro_batch",
    "node",
    "node.gpus",
    "optim",
    "regime",
    "regime.bits",
    "sharding",
    "training.accumulation",
    "training.attention",
    "training.dataloader_workers",
    "training.gradient_checkpointing",
    "training.loss",
    "training.micro_batch",
}
MODELS = ["qwen2.5_0.5b", "llama3.2_1b", "qwen2.5_7b", "llama3.1_8b", "qwen3_8b", "llama2_13b", "mixtral_8x7b"]


def checked(*overrides: str) -> tuple[Run, ModelFacts]:
    check_values(composed("data=demo", *overrides))
    return with_facts("data=demo", *overrides)


def judged(run: Run, facts: ModelFacts, free: tuple[int, ...] | None = None, free_disk: int | None = None) -> Verdict:
    assert incompatibilities(run) == []
    return judge(run, facts, estimate(run, facts), free, free_disk)


def proposals(*overrides: str):
    run, facts = checked(*overrides)
    return alternatives(run, facts, lambda changed: judged(changed, facts))


@dataclass(frozen=True)
class Job:
    model: str
    overrides: tuple[str, ...]
    run: Run
    facts: ModelFacts
    free: int | None  # bytes of every GPU that nobody holds
    free_disk: int | None

    def judge(self, run: Run) -> Verdict:
        """As the verb plan judges variants: what is free on the GPUs counts on the same node only."""
        free = (self.free,) if self.free is not None and run.node == self.run.node else None
        return judged(run, self.facts, free, self.free_disk)


def random_overrides(source: random.Random) -> list[str]:
    """Overrides that name few GPUs for what they ask."""
    regimes = ["full", "full training.precision=bf16", "freeze", "lora regime.rank=64", "qlora", "qlora regime.bits=8"]
    return [
        *f"regime={source.choice(regimes)}".split(),
        f"node={source.choice(['t4_16', 'rtx4090_24', 'a100_40', 'l40s_48', 'h100_80'])}",
        f"node.gpus={source.choice([1, 2, 4, 8])}",
        *source.choice([[], ["node.host_memory=250000000000"], ["node.host_memory=30000000000"]]),
        f"sharding={source.choice(['ddp', 'ddp', 'zero1', 'zero2', 'zero3'])}",
        f"optim={source.choice(['adamw', 'adamw', 'adafactor', 'sgd'])}",
        f"data.cutoff={source.choice([512, 2048, 4096, 8192])}",
        f"training.micro_batch={source.choice([1, 2, 4, 8])}",
        f"training.accumulation={source.choice([1, 2, 3])}",
        f"training.gradient_checkpointing={source.choice(['true', 'false'])}",
        f"training.attention={source.choice(['sdpa', 'sdpa', 'eager'])}",
        f"training.dataloader_workers={source.choice([0, 4])}",
        f"evaluation.micro_batch={source.choice([1, 8])}",
        f"checkpoint.keep={source.choice([1, 2, 5])}",
    ]


def written(run: Run, overrides: Iterable[str]) -> Run:
    """`run` changed by overrides, as composition applies them but a hundred times faster."""
    for key, value in (text.split("=", 1) for text in sorted(overrides, key=lambda text: "." in text.split("=")[0])):
        group, _, field = key.partition(".")
        if field:
            setattr(getattr(run, group), field, yaml.safe_load(value))
        else:
            setattr(run, key, deepcopy(choice(key, value)))
    return settled(run, settled_node(run.node, run.node.gpus or 0))


def base(model: str) -> Run:
    return composed(f"model={model}", "data=demo", "node=h100_80")


STAGES = {
    **{stage: (f"stage={stage}",) for stage in ("pt", "rm", "dpo", "kto", "orpo", "simpo")},
    "ppo": ("stage=ppo", "stage.reward_model=judge", "stage.response_length=512"),
    "grpo": ("stage=grpo", "stage.generations=2", "stage.kl_coef=0.1", "stage.response_length=512"),
}


def can_start(model: str, overrides: list[str]) -> bool:
    try:
        return incompatibilities(written(base(model), overrides)) == []
    except ConfigError:  # answers that are no whole groups
        return False


def refused_job(source: random.Random, stage: tuple[str, ...] = ()) -> Job:
    while True:
        model, overrides = source.choice(MODELS), [*random_overrides(source), *stage]
        if not can_start(model, overrides):
            continue
        run = written(base(model), overrides)
        free = source.choice([None, None, int((run.node.gpu_memory or 0) * source.uniform(0.3, 1))])
        free_disk = source.choice([None, None, int(10 ** source.uniform(8, 12))])
        job = Job(model, tuple(overrides), run, model_facts(run.model.architecture, "test"), free, free_disk)
        if not job.judge(run).permitted:
            return job


@pytest.mark.parametrize(("jobs", "seed"), [(80, 4), pytest.param(1000, 13, marks=pytest.mark.long)])
def test_every_proposal_for_random_refused_jobs_is_permitted_and_keeps_the_effective_batch(jobs: int, seed: int):
    source = random.Random(seed)
    proposed: Counter[str] = Counter()
    for _ in range(jobs):
        proposed.update(checked_proposals(refused_job(source)))
    assert proposed.keys() >= PROPOSED_KEYS


def checked_proposals(job: Job) -> Counter[str]:
    """The keys that are proposed for it."""
    changes = alternatives(job.run, job.facts, job.judge)
    assert len({change.overrides for change in changes}) == len(changes) <= 5
    for change in changes:
        again = written(base(job.model), [*job.overrides, *change.overrides])
        verdict = job.judge(again)
        assert verdict.permitted, (job.overrides, change.overrides, [check.sentence for check in verdict.checks])
        assert verdict.headroom == change.headroom >= 0
        assert again != job.run
        assert again.training.effective_batch == job.run.training.effective_batch
        assert change.note
    return Counter(text.split("=")[0] for change in changes for text in change.overrides)


@pytest.mark.parametrize("jobs", [6, pytest.param(120, marks=pytest.mark.long)])
@pytest.mark.parametrize("stage", STAGES)
def test_every_proposal_for_refused_jobs_of_every_stage_is_permitted(stage: str, jobs: int):
    source = random.Random(stage)

    proposed = [checked_proposals(refused_job(source, STAGES[stage])) for _ in range(jobs)]

    assert any(proposed)
    assert ("training.loss" in Counter(key for keys in proposed for key in keys)) <= (stage == "pt")


def test_the_reference_of_dpo_can_be_asked_before_training():
    # 8 B weights in bf16 with gradients and two states are 64 GB of 141; a copy of 16 GB and 7 GB of logits beside them are too much with 60 GB held
    run, facts = checked("model=llama3.1_8b", "stage=dpo", "regime=full", "training.precision=bf16", "node=h200_141", "data.cutoff=512")
    with_copy = estimate(run, facts).required
    free = (with_copy - 10 * 2**30,)

    changes = alternatives(run, facts, lambda changed: judged(changed, facts, free if changed.node == run.node else None))

    assert changes[0].overrides == ("stage.precompute_reference=true",)
    assert with_copy - changes[0].peak >= 2 * facts.parameters


def test_a_sample_of_proposals_composes_to_what_was_judged():
    source = random.Random(11)
    for _ in range(COMPOSED):
        job, changes = refused_job(source), ()
        while not changes:
            job = refused_job(source)
            changes = alternatives(job.run, job.facts, job.judge)
        change = source.choice(changes)
        again, _ = checked(f"model={job.model}", *job.overrides, *change.overrides)
        assert replace(again, name=job.run.name) == replace(written(base(job.model), [*job.overrides, *change.overrides]), name=job.run.name)
        assert job.judge(again).permitted


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


def test_where_the_disk_alone_refuses_fewer_checkpoints_come_first():
    run, facts = checked("model=llama3.2_1b", "node=h200_141", "checkpoint.keep=5")
    one_less = estimate(run, facts).disk - 1

    changes = alternatives(run, facts, lambda changed: judged(changed, facts, free_disk=one_less))

    assert changes[0].overrides == ("checkpoint.keep=2",)
    assert changes[0].note == "only 2 checkpoints are kept"


def test_memory_that_others_hold_counts_on_this_node_and_not_on_another():
    run, facts = checked("model=llama3.1_8b", "node=a100_40", "data.cutoff=512", "training.micro_batch=4")
    free = (20 * 2**30,)
    assert judged(run, facts).permitted

    changes = alternatives(run, facts, lambda changed: judged(changed, facts, free if changed.node == run.node else None))

    here = [change for change in changes if not any(text.startswith("node") for text in change.overrides)]
    assert here
    assert len(here) < len(changes)
    assert all(change.peak * 1.01 <= free[0] for change in here)


def test_attention_without_its_matrix_is_the_first_thing_to_try():
    # eager attention of 32 heads keeps 8192 x 8192 scores of every layer that it does not compute twice
    changes = proposals("model=llama3.2_1b", "node=a100_40", "data.cutoff=8192", "training.attention=eager", "training.gradient_checkpointing=false")

    assert changes[0].overrides == ("training.attention=sdpa",)


def test_one_rank_is_offered_nothing_that_splits():
    changes = proposals("model=llama3.1_8b", "regime=full", "node=h100_80", "gate.floor=advisory", "data.cutoff=512")

    assert [text for change in changes for text in change.overrides if text.startswith("sharding=")] == ["sharding=zero2_offload"]


def test_a_shorter_cutoff_says_that_it_changes_the_data():
    changes = proposals(
        "model=qwen2.5_7b", "regime=qlora", "node=t4_16", "data.cutoff=2048", "training.micro_batch=4", "training.gradient_checkpointing=false"
    )

    shorter = [change for change in changes if any(text.startswith("data.cutoff=") for text in change.overrides)]
    assert shorter
    assert all("changes the data" in change.note for change in shorter)


def test_a_cpu_node_is_offered_fewer_processes():
    changes = proposals("model=llama3.2_1b", "node=cpu", "node.host_memory=2000000000", "data.cutoff=256", "gate.floor=advisory")

    assert changes[0].overrides[-1] == "cluster.ranks_per_node=1"


def test_the_matrix_shows_every_regime_with_table_prediction_and_verdict():
    run, facts = checked("model=llama3.1_8b", "node=h100_80", "regime=lora", "data.cutoff=2048")

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
    assert rows[0].short.startswith("lacks ")
    assert rows[0].predicted > rows[1].predicted > rows[3].predicted > rows[5].predicted


def test_the_matrix_of_a_run_in_fp32_compares_fp32_with_fp32():
    """Was: full in bf16 beside adapters in fp32, whose buffers under ZeRO-2 are twice as large: full seemed to need less."""
    run, facts = checked("recipe=demo", "node=h100_80")

    rows = {row.name: row.predicted for row in regime_matrix(run, facts, lambda changed: judged(changed, facts))}

    assert rows["full, fp32"] >= rows["freeze, fp32"] >= rows["lora, fp32"] > rows["full, 16 bits"]


def test_the_matrix_shows_what_cannot_work_under_the_sharding_with_its_reason():
    run, facts = checked("model=llama3.1_8b", "node=h100_80", "node.gpus=2", "sharding=zero3")

    rows = {row.name: row for row in regime_matrix(run, facts, lambda changed: judged(changed, facts))}

    assert "before HQQ can pack them" in rows["qlora, 2 bits"].why
    assert (rows["qlora, 2 bits"].predicted, rows["qlora, 2 bits"].short) == (None, "not possible")
    assert not rows["qlora, 2 bits"].permitted
    assert rows["qlora, 8 bits"].permitted
    assert rows["qlora, 4 bits"].permitted


def test_the_matrix_of_shardings_holds_that_of_each_and_leads_there():
    given = ("model=llama3.1_8b", "node=h100_80", "node.gpus=2", "sharding=zero2")
    run, facts = checked(*given)

    columns = sharding_matrix(run, facts, lambda changed: judged(changed, facts))

    assert columns["zero2"] == regime_matrix(run, facts, lambda changed: judged(changed, facts))
    assert [row.name for row in columns["zero2"] if not row.overrides] == ["lora"]
    assert set(columns) == {*SHARDINGS}
    for sharding, at in (("zero3", 1), ("ddp", 5), ("fsdp2", 3)):
        cell = columns[sharding][at]
        there, _ = checked(
            *(text for text in given if text.partition("=")[0] not in {each.partition("=")[0] for each in cell.overrides}), *cell.overrides
        )
        assert there.sharding.name == sharding
        assert judged(there, facts).permitted == cell.permitted
    reason = columns["zero3"][-1].why
    assert "before HQQ can pack them" in reason
