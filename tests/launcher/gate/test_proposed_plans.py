"""Every proposal for a refused run is itself permitted by the same plan, composed anew from what a user would paste."""

import json
import random
import shlex
from pathlib import Path

import pytest

from launcher.cli import main
from launcher.errors import RegimenError
from launcher.gate.pasting import left_out, pasted
from launcher.verbs.plan import proposals, unstarted

MODELS = ("qwen2.5_0.5b", "llama3.2_1b", "qwen2.5_7b", "llama3.1_8b", "qwen3_8b", "llama2_13b", "mixtral_8x7b")
STAGES = (
    *["stage=sft"] * 4,
    *("stage=pt", "stage=rm", "stage=dpo", "stage=orpo", "stage=simpo"),
    "stage=kto training.micro_batch=4 evaluation.micro_batch=2",
    "stage=ppo stage.reward_model=org/judge",
    "stage=grpo stage.rewards=[brevity] stage.generations=2 training.micro_batch=2",
)
REGIMES = (
    *("regime=full", "regime=full training.precision=bf16", "regime=freeze", "regime=freeze regime.layers=0 regime.new_blocks=4"),
    *("regime=freeze regime.modules=[lm_head]", "regime=lora regime.rank=64", "regime=lora regime.init=pissa", "regime=lora regime.dora=true"),
    *("regime=qlora", "regime=qlora regime.bits=8"),
)
NODES = (
    *(f"node={name} node.gpus={count}" for name in ("t4_16", "rtx4090_24", "a100_40", "l40s_48", "h100_80") for count in (1, 2, 4, 8)),
    *("node=t4_16 node.gpus=2 node.host_memory=30000000000", "node=l40s_48 node.gpus=4 node.host_memory=250000000000"),
    *("node=cpu node.host_memory=20000000000", "node=cpu node.host_memory=4000000000"),
)
FURTHER = (
    *("", "", "training.fit=auto training.effective_batch=64", "training.accumulation=2", "training.loss=chunked", "training.kernels=fused"),
    *("data.packing=true", "cluster=slurm cluster.nodes=2 cluster.time=08:00:00", "cluster.ranks_per_node=1", "backend=accelerate"),
    *("data.streaming=true data.validation_share=0", "optim=galore optim.rank=64", "optim=badam", "stage.precompute_reference=true"),
)


def random_overrides(source: random.Random) -> list[str]:
    """A run that asks for much on few GPUs; many contradict themselves, and are passed over."""
    choices = [source.choice(axis).split() for axis in (STAGES, REGIMES, NODES, FURTHER)]
    given = [word for words in choices for word in words]
    drawn = [
        f"sharding={source.choice(['ddp', 'ddp', 'zero1', 'zero2', 'zero3', 'fsdp2'])}",
        f"optim={source.choice(['adamw', 'adamw', 'adafactor', 'sgd', 'muon', 'lion'])}",
        f"data.cutoff={source.choice([512, 2048, 4096])}",
        f"data.max_samples={source.choice([2000, 64, 20])}",
        f"training.micro_batch={source.choice([1, 2, 4, 8])}",
        f"training.gradient_checkpointing={source.choice(['true', 'false'])}",
        f"evaluation.micro_batch={source.choice([2, 8])}",
        f"checkpoint.keep={source.choice([1, 5])}",
    ]
    named = {text.partition("=")[0] for text in given}
    fixed = [f"model={source.choice(MODELS)}", "data=demo", "data.template=alpaca", "training.max_steps=20"]
    return [*fixed, *given, *(text for text in drawn if text.partition("=")[0] not in named)]


@pytest.mark.parametrize(("jobs", "seed"), [(5, 7), pytest.param(100, 8, marks=pytest.mark.long)])
def test_what_is_proposed_for_random_refused_jobs_is_permitted_by_the_same_plan(jobs: int, seed: int) -> None:
    source = random.Random(seed)
    refused = proposed = 0
    while refused < jobs:
        given = random_overrides(source)
        try:
            decided = unstarted(given, []).judged
        except RegimenError:  # choices that cannot work together
            continue
        if decided.verdict.permitted:
            continue
        refused += 1
        for change in proposals(decided, given):
            proposed += 1
            again = unstarted(pasted(given, change.overrides), []).judged
            assert again.verdict.permitted, (shlex.join(given), change.overrides, again.verdict)
    assert proposed >= jobs


def test_no_node_is_proposed_whose_ranks_the_samples_do_not_fill() -> None:
    """18 samples are fewer than 8 ranks x 4, and enough for 4 ranks x 4."""
    given = [
        *("model=qwen2.5_7b", "data=demo", "data.template=alpaca", "data.max_samples=20", "training.micro_batch=4", "training.max_steps=20"),
        *("regime=full", "sharding=zero3", "node=t4_16", "node.gpus=1"),
    ]
    found = proposals(unstarted(given, []).judged, given)
    assert found
    for change in found:
        assert unstarted(pasted(given, change.overrides), []).judged.verdict.permitted


def test_keys_that_the_proposed_choice_does_not_have_are_left_out() -> None:
    given = ["model=demo", "regime=freeze", "regime.layers=0", "regime.modules=[norm]", "optim.lr=1e-4", "sharding.bucket_mb=1"]
    proposed = ["regime=lora", "sharding=zero3", "optim=adamw_8bit"]
    assert left_out(given, proposed) == ["regime.layers", "regime.modules", "sharding.bucket_mb"]
    assert pasted(given, proposed) == ["model=demo", "optim.lr=1e-4", *proposed]


REFUSED = ("model=llama3.1_8b", "data=demo", "data.template=alpaca", "node=a100_40", "node.gpus=1", "regime=freeze", "regime.layers=30")


def test_the_plan_for_programs_holds_the_proposals_of_a_refused_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    own = tmp_path / "a b"
    (own / "recipe").mkdir(parents=True)
    (own / "recipe" / "mine.yaml").write_text("# @package _global_\nname: mine\n")
    assert main(["plan", *REFUSED, "--json", "--config-dir", str(own)]) == 3
    told = json.loads(capsys.readouterr().out)["proposals"]
    assert told
    for proposal in told:
        assert set(proposal) == {"overrides", "need", "headroom", "cost", "command"}
        words = shlex.split(proposal["command"])
        assert words[:4] == ["regimen", "train", "--config-dir", str(own)]
        assert set(proposal["overrides"]) <= set(words)
        assert main(["plan", *words[2:], "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["verdict"]["permitted"]
        assert found["memory"]["required"] == proposal["need"]
        assert found["verdict"]["headroom"] == proposal["headroom"]
        assert proposal["cost"]
    [adapter] = [proposal for proposal in told if proposal["overrides"][0] == "regime=lora"][:1]
    assert "regime.layers" not in adapter["command"]


def test_the_plan_for_people_says_which_keys_to_leave_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *REFUSED]) == 3
    told = capsys.readouterr().out.split("\n  regime=lora\n")[1]
    assert "; leave out regime.layers" in " ".join(told.split("\n  ")[0:3])


def test_a_permitted_plan_proposes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "recipe=demo", "node=cpu", "--json"]) == 0
    assert "proposals" not in json.loads(capsys.readouterr().out)
