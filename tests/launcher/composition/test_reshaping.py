"""Other micro-batches or ranks on a resume: allowed where each step stays what it was, refused with what to do where it would not."""

from pathlib import Path

import pytest

from conf.run_dir import RunDir, save_run
from launcher.composition.recorded import resumed_run
from launcher.composition.reshaping import reshaping_lines
from launcher.errors import ConfigError
from launcher.facts.node import settled_node
from launcher.gate.settle import settled
from tests.described import described

DEMO = ("model=demo", "data=demo", "node=cpu", "training.micro_batch=4", "training.accumulation=2")  # on 2 ranks: 16 samples a step


def resumed(folder: Path, started: tuple[str, ...], *overrides: str):
    """(the recorded run, the settled one that goes on)."""
    before = described(*DEMO, *started)
    save_run(before, RunDir(folder))
    after = resumed_run(RunDir(folder), overrides)
    return before, settled(after, settled_node(after.node, 0))


@pytest.mark.parametrize(
    ("given", "form"),
    [
        (("training.micro_batch=2",), (2, 2, 4)),
        (("training.micro_batch=8",), (8, 2, 1)),
        (("cluster.ranks_per_node=1",), (4, 1, 4)),
        (("cluster.ranks_per_node=4", "training.micro_batch=1"), (1, 4, 4)),
        (("training.micro_batch=2", "training.accumulation=4"), (2, 2, 4)),
    ],
)
def test_accumulation_follows_so_that_a_step_keeps_its_samples(given: tuple[str, ...], form: tuple[int, int, int], tmp_path: Path) -> None:
    before, after = resumed(tmp_path, (), *given)
    assert (after.training.micro_batch, after.cluster.ranks_per_node, after.training.accumulation) == form
    assert after.training.effective_batch == before.training.effective_batch == 16
    assert reshaping_lines(before, after)[0].startswith("batch: micro-batch 4 x 2 ranks x accumulation 2 -> micro-batch ")


def test_the_same_portions_are_no_change(tmp_path: Path) -> None:
    before, after = resumed(tmp_path, (), "training.micro_batch=4")
    assert after.training == before.training
    assert reshaping_lines(before, after) == []


def test_checkpointing_may_change_alone(tmp_path: Path) -> None:
    before, after = resumed(tmp_path, ("training.gradient_checkpointing=false",), "training.gradient_checkpointing=true")
    assert after.training.gradient_checkpointing is True
    assert reshaping_lines(before, after) == []


@pytest.mark.parametrize(
    ("started", "given", "said"),
    [
        (
            (),
            ("training.micro_batch=3",),
            "training.micro_batch 4 -> 3: each step of this run has 16 samples, which 2 ranks with training.micro_batch=3 cannot share evenly. "
            "Set training.micro_batch=1, 2, 4 or 8.",
        ),
        (
            (),
            ("cluster.ranks_per_node=3",),
            "cluster.ranks_per_node 2 -> 3: each step of this run has 16 samples, which 3 ranks cannot share evenly. "
            "Set cluster.ranks_per_node=1, 2, 4, 8 or 16.",
        ),
        ((), ("cluster.ranks_per_node=8",), "which 8 ranks with training.micro_batch=4 cannot share evenly. Set training.micro_batch=1 or 2."),
        ((), ("cluster.nodes=3",), "which 6 ranks cannot share evenly. Set cluster.nodes=1."),
        (("sharding=zero3",), ("sharding.whole_layers=true",), "sharding.whole_layers: recorded null, given true"),
        ((), ("training.micro_batch=2", "training.accumulation=2"), "Leave training.accumulation out, and it is computed."),
        ((), ("training.effective_batch=8",), "training.effective_batch: recorded 16, given 8"),
        (("stage=kto",), ("training.micro_batch=2",), "training.micro_batch 4 -> 2: stage=kto estimates the divergence"),
        (("data.streaming=true", "training.max_steps=9"), ("cluster.ranks_per_node=1",), "the order of samples would change"),
        (
            ("sharding=zero2", "optim=adamw_8bit"),
            ("cluster.ranks_per_node=1",),
            "cluster.ranks_per_node 2 -> 1: optim=adamw_8bit keeps states that belong to whole tensors or blocks of them, and they cannot be divided "
            "anew. Resume under sharding=zero2 on 2 ranks",
        ),
        (("stage=ppo",), ("sharding=zero3",), "sharding ddp -> zero3: stage=ppo trains beside further models"),
        (("optim=muon", "regime=full"), ("sharding=zero3",), "optim=muon keeps states that belong to whole tensors"),
        (("sharding=zero2",), ("sharding=zero2_offload",), "sharding=zero2_offload keeps states in host memory"),
        (("sharding=zero3_offload",), ("cluster.ranks_per_node=1",), "sharding=zero3_offload keeps states in host memory"),
        (("sharding=zero2",), ("sharding=zero4",), "sharding=zero4 cannot be chosen on a resume. Choose one of: ddp, zero1, zero2"),
        (("sharding=zero2",), ("sharding=ddp", "sharding.whole_layers=true"), "sharding.whole_layers is not a key of this run."),
    ],
)
def test_what_would_change_a_step_is_refused_before_anything_is_loaded(
    started: tuple[str, ...], given: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        resumed(tmp_path, started, *given)
    assert said in str(refused.value)


def test_under_zero_micro_batches_may_change(tmp_path: Path) -> None:
    _, after = resumed(tmp_path, ("sharding=zero2",), "training.micro_batch=1")
    assert after.training.accumulation == 8


@pytest.mark.parametrize("weight", ["0", "0.5"])
def test_pairs_may_pass_in_other_portions(weight: str, tmp_path: Path) -> None:
    _, after = resumed(tmp_path, ("stage=dpo", f"stage.sft_weight={weight}"), "training.micro_batch=1")
    assert after.training.accumulation == 8


@pytest.mark.parametrize(
    ("started", "given", "said"),
    [
        ("zero2", ("sharding=zero3",), "sharding: zero2 on 2 ranks -> zero3 on 2 ranks."),
        ("zero2", ("cluster.ranks_per_node=1",), "sharding: zero2 on 2 ranks -> zero2 on 1 rank."),
        ("ddp", ("sharding=zero3", "cluster.ranks_per_node=1"), "sharding: ddp on 2 ranks -> zero3 on 1 rank."),
    ],
)
def test_states_are_laid_out_anew_under_another_sharding_and_for_zero_on_other_ranks(
    started: str, given: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    before, after = resumed(tmp_path, (f"sharding={started}",), *given)
    assert after.sharding == described(*DEMO, *(word for word in (f"sharding={started}", *given) if word.startswith("sharding="))).sharding
    assert reshaping_lines(before, after)[0].startswith(said)
    assert after.training.effective_batch == before.training.effective_batch


def test_plain_ranks_of_another_number_and_a_sharding_that_is_named_again_are_laid_out_as_they_were(tmp_path: Path) -> None:
    before, after = resumed(tmp_path, ("sharding=ddp",), "cluster.ranks_per_node=1", "sharding=ddp")
    assert [line.split(":")[0] for line in reshaping_lines(before, after)] == ["batch"]


def test_keys_of_the_new_sharding_may_be_given_with_it(tmp_path: Path) -> None:
    _, after = resumed(tmp_path, ("sharding=zero2",), "sharding=zero3", "sharding.whole_layers=true")
    assert (after.sharding.name, after.sharding.whole_layers) == ("zero3", True)


def test_a_run_without_a_checkpoint_has_nothing_to_lay_out_anew(tmp_path: Path) -> None:
    before, after = resumed(tmp_path, ("sharding=zero2",), "sharding=zero3")
    [line] = reshaping_lines(before, after, saved=False)
    assert line == (
        "sharding: zero2 on 2 ranks -> zero3 on 2 ranks. The run has no checkpoint yet, so it starts at step 1, and nothing is laid out anew."
    )


def test_as_many_ranks_on_other_nodes_change_nothing_that_is_worth_a_line(tmp_path: Path) -> None:
    before, after = resumed(tmp_path, ("cluster.nodes=2", "cluster.ranks_per_node=1"), "cluster.nodes=1", "cluster.ranks_per_node=2")
    assert (after.cluster.nodes, after.cluster.ranks_per_node, after.training.accumulation) == (1, 2, 2)
    assert reshaping_lines(before, after) == []
