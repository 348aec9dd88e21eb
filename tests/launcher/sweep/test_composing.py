"""The quick ways of a grid, against the plain ones: every point is composed and judged as a run alone would be."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from conf.schema import Composed
from launcher.composition.compose import compose
from launcher.errors import RegimenError, Unsafe
from launcher.gate.judge import Judged, judge_run
from launcher.sweep.composing import Composer, is_light
from launcher.sweep.judging import WITHOUT_BYTES, Judging
from tests.described import composed

CHOICES = [
    ["recipe=demo", "node=cpu", "node.host_memory=16GB"],
    ["model=llama3.1_8b", "data=demo", "node=h100_80", "node.gpus=8", "training.effective_batch=64"],
    ["model=qwen2.5_0.5b", "data=demo", "node=t4_16", "node.gpus=2", "regime=full"],
    ["model=demo", "data=demo", "stage=dpo", "node=cpu"],
    ["recipe=demo", "node=cpu", "output=${name}/x"],
]
VALUES = {
    "optim.lr": ["1e-4", "0.0003", "0", "-1", "abc", "null", "1_0"],
    "optim.weight_decay": ["0.1", "0", "inf"],
    "optim.warmup": ["0.1", "10", "1.0"],
    "training.seed": ["1", "2", "1.5", "true"],
    "training.micro_batch": ["1", "4", "null"],
    "training.fit": ["auto", "off"],
    "regime.rank": ["8", "16", "0"],
    "regime.alpha": ["32", "16.5"],
    "regime.dora": ["true", "false", "1"],
    "data.cutoff": ["256", "1024", "2048"],
    "data.packing": ["true", "false"],
    "evaluation.at_end": ["true", "null"],
    "evaluation.interval": ["0", "50"],
    "stage.beta": ["0.1", "0.5"],
    "checkpoint.interval": ["7", "100"],
    "name": ["a", "b-c"],
    "sharding": ["ddp", "zero3"],
}


def drawn(generator: random.Random) -> list[str]:
    keys = generator.sample(sorted(VALUES), generator.randint(1, 4))
    return [*generator.choice(CHOICES), *(f"{key}={generator.choice(VALUES[key])}" for key in keys)]


def plainly(overrides: Sequence[str]) -> Composed | RegimenError:
    try:
        return compose(overrides)
    except RegimenError as error:
        return error


def test_a_point_is_composed_as_a_run_alone_and_refused_with_the_same_words() -> None:
    generator, composer, quick, refused = random.Random(16), Composer([]), 0, 0
    for _ in range(80):
        overrides = drawn(generator)
        plain, found = plainly(overrides), composer.composed_or_refusal(overrides)
        assert (type(found), str(found)) == (type(plain), str(plain)), overrides
        assert isinstance(found, RegimenError) or found == plain, overrides
        quick += isinstance(plain, Composed) and any(map(is_light, overrides))
        refused += isinstance(plain, RegimenError)
    assert quick > 20
    assert refused > 10


def judged_plainly(run: Composed) -> Judged | str:
    try:
        return judge_run(run)
    except RegimenError as error:
        return str(error)


def test_a_point_is_judged_as_a_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among them many that differ in nothing that a byte depends on, which are judged once."""
    monkeypatch.setattr("launcher.gate.judge.free_disk", lambda output: 10**12)  # other processes write meanwhile
    generator, judging, asked = random.Random(3), Judging([]), 0
    for _ in range(60):
        base = generator.choice(CHOICES[:4])
        free = [f"{key}={generator.choice(values)}" for key, values in (("optim.lr", ["1e-4", "3e-4"]), ("training.seed", ["1", "2"]))]
        run = composed(*base, *free, f"data.cutoff={generator.choice(['256', '1024'])}", f"optim.warmup={generator.choice(['0.1', '0.2'])}")
        plain = judged_plainly(run)
        if isinstance(plain, str):
            with pytest.raises(RegimenError) as refusal:
                judging.judge(run)
            assert str(refusal.value) == plain
        else:
            asked += 1
            assert judging.judge(run) == plain, base
    assert asked > 40
    assert len(judging.judged) < asked / 3


def test_the_limits_of_a_value_hold_for_a_point_whose_twin_was_judged() -> None:
    judging = Judging([])
    judging.judge(composed("recipe=demo", "node=cpu"))
    with pytest.raises(RegimenError, match=r"optim\.lr=-1"):
        judging.judge(composed("recipe=demo", "node=cpu", "optim.lr=-1.0"))
    assert "optim.lr" in WITHOUT_BYTES


def test_what_another_key_refers_to_is_composed_plainly(tmp_path: Path) -> None:
    overrides = ["recipe=demo", "node=cpu", "name=rank${regime.rank}"]
    found = [Composer([]).composed_or_refusal([*overrides, f"regime.rank={rank}"]) for rank in (8, 16)]
    assert [one.name for one in found if isinstance(one, Composed)] == ["rank8", "rank16"]


def test_a_number_that_is_a_secret_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "123456789")
    assert isinstance(Composer([]).composed_or_refusal(["recipe=demo", "training.seed=123456789"]), Unsafe)


@pytest.mark.parametrize(
    ("text", "light"),
    [
        ("optim.lr=1e-4", True),
        ("training.seed=3", True),
        ("data.packing=true", True),
        ("regime=lora", False),
        ("optim.lr=${training.seed}", False),
        ("data.sets=[a]", False),
        ("model.path=a", False),
        ("node.host_memory=16", False),
        ("optim.lr=1e-4,2e-4", False),
    ],
)
def test_only_a_number_or_a_truth_of_one_key_is_light(text: str, light: bool) -> None:
    assert is_light(text) == light
