"""Example files of LLaMA-Factory, of every stage: the keys that they give, and batch, steps, warmup and learning rates, worked out by hand."""

from dataclasses import replace
from functools import cache
from math import cos, pi

import pytest

from conf.schedules import rate, warmup_steps
from conf.schema import Run
from launcher.composition.compose import compose
from launcher.composition.names import known_keys
from launcher.gate.expectations import expected_steps
from launcher.gate.settle import with_batch
from launcher.moving.draft import Draft
from launcher.moving.translate import LLAMA_FACTORY
from launcher.verbs.import_checks import overrides_of, refuse_wrong_values
from tests.described import described
from tests.launcher.moving.llamafactory_files import FILES, REFUSED_FILES, arguments

COUNTED = [source for source, meant in FILES.items() if meant.steps is not None]
SAMPLES = 1000


@cache
def translated(source: str) -> Draft:
    draft = LLAMA_FACTORY.translate(FILES[source].arguments)
    refuse_wrong_values(draft)
    return draft


@cache
def run_of(source: str) -> Run:
    """The run on two ranks, with a model and data that are there."""
    values = {**translated(source).values, "data.sets": ["a"]}
    values.pop("data.max_samples", None)
    composed = compose(overrides_of(values))
    settled = described("model=demo", "data=demo", "node=cpu", "cluster.ranks_per_node=2")
    return replace(settled, training=with_batch(composed.training, 2), optim=composed.optim, data=composed.data, stage=composed.stage)


def test_there_are_forty_files_and_every_stage_is_among_them() -> None:
    assert len(FILES) + len(REFUSED_FILES) >= 60
    assert len(FILES) >= 50
    assert {translated(source).values["stage"] for source in FILES} == {"pt", "sft", "rm", "ppo", "dpo", "kto", "orpo"}
    assert len({source.partition("@")[0] for source in (*FILES, *REFUSED_FILES)}) == len(FILES) + len(REFUSED_FILES)


@pytest.mark.parametrize("source", FILES)
def test_a_file_gives_the_keys_that_mean_the_same(source: str) -> None:
    draft, keys = translated(source), FILES[source].keys
    assert draft.refused == []
    assert {key: draft.values.get(key) for key in keys} == dict(keys)
    assert set(FILES[source].arguments) == set(draft.outcomes)
    assert set(draft.values) <= set(known_keys())


@pytest.mark.parametrize("source", REFUSED_FILES)
def test_what_cannot_mean_the_same_is_refused_by_name(source: str) -> None:
    changes, names = REFUSED_FILES[source]
    assert sorted(name for name, _ in LLAMA_FACTORY.translate(arguments(changes)).refused) == names


@pytest.mark.parametrize("source", COUNTED)
def test_batch_steps_and_warmup_are_those_worked_out_by_hand(source: str) -> None:
    run, by_hand = run_of(source), FILES[source].steps
    assert by_hand is not None
    trained = round(SAMPLES * (1 - run.data.validation_share))
    steps = expected_steps(run, trained)
    assert steps == by_hand.steps
    assert (run.training.micro_batch * run.training.accumulation * 2, warmup_steps(run.optim, steps)) == (by_hand.batch, by_hand.warmup)


@pytest.mark.parametrize("source", COUNTED)
def test_the_learning_rates_are_those_of_the_schedule_of_the_file(source: str) -> None:
    """With which a step is made: it rises by equal parts until the peak, and falls by half a cosine, by equal parts, or not at all."""
    run, by_hand = run_of(source), FILES[source].steps
    assert by_hand is not None
    steps, warmup, peak = by_hand.steps, by_hand.warmup, by_hand.peak
    half = (steps - warmup) // 2
    falls = {"cosine": lambda share: 0.5 * (1 + cos(pi * share)), "linear": lambda share: 1 - share, "constant_with_warmup": lambda share: 1.0}
    fall = falls[FILES[source].arguments.get("lr_scheduler_type", "linear")]
    found = [rate(run.optim, step, steps) for step in (1, warmup + 1, warmup + 1 + half, steps)]
    after = [fall(done / (steps - warmup)) for done in (half, steps - 1 - warmup)]
    assert found == pytest.approx([0 if warmup else peak, peak, *(peak * share for share in after)], rel=1e-9, abs=1e-15)
    if warmup > 1:
        assert rate(run.optim, 2, steps) == pytest.approx(peak / warmup)
