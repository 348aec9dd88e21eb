"""Steps, tokens, disk and time, from what local files tell before anything is read by a library."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from conf.schema import Data, Run
from launcher.errors import DataError
from launcher.facts.data import trained_samples
from launcher.facts.model import ModelFacts, architecture_source, model_facts, read_architecture
from launcher.gate.expectations import Expectations, expect, refuse_too_few
from launcher.memory.estimate import MemoryEstimate, estimate
from tests.described import described


@cache
def composed(*overrides: str) -> Run:
    return described("model=demo", "data=demo", "node=cpu", *overrides)


@cache
def facts_and_estimate() -> tuple[ModelFacts, MemoryEstimate]:
    run = composed()
    facts = model_facts(read_architecture(run.model), architecture_source(run.model))
    return facts, estimate(run, facts)


def expected(*overrides: str) -> Expectations:
    return expect(composed(*overrides), *facts_and_estimate())


def data_of(folder: Path, *sets: str) -> Data:
    return replace(composed().data, sets=list(sets), folder=str(folder))


def test_steps_are_epochs_of_whole_and_broken_batches() -> None:
    # 2000 less 10 %: 1800; 3 epochs of ceil(1800 / (7 x 2 ranks)) = 129
    found = expected("training.micro_batch=7", "training.epochs=3", "data.validation_share=0.1")
    assert (found.samples, found.steps) == (1800, 387)
    assert found.tokens == 387 * 14 * 64


def test_broken_epochs_are_rounded_up() -> None:
    assert expected("training.epochs=0.5", "training.micro_batch=100").steps == 5  # ceil(0.5 x ceil(1800 / 200))


def test_stated_steps_win() -> None:
    found = expected("training.max_steps=7")
    assert (found.steps, found.sources[0]) == (7, "steps: training.max_steps")


def test_held_out_samples_are_rounded_as_the_trainer_rounds_them() -> None:
    assert expected("data.max_samples=26", "data.validation_share=0.1").samples == 23  # 2.6 are 3


def test_packed_samples_cannot_be_counted_before_they_are_read() -> None:
    found = expected("data.packing=true")
    assert (found.steps, found.tokens, found.seconds) == (None, None, None)


def test_texts_are_rows_of_the_cutoff_whose_number_their_count_does_not_tell(tmp_path: Path) -> None:
    """One long document fills many batches."""
    (tmp_path / "a.jsonl").write_text('{"text": "long"}\n')
    run = composed("stage=pt", "training.micro_batch=8")
    given = replace(run, data=data_of(tmp_path, "a.jsonl"), training=replace(run.training, max_steps=None))
    assert trained_samples(given) is None
    refuse_too_few(given, trained_samples(given))
    assert expect(given, *facts_and_estimate()).steps is None
    with pytest.raises(DataError, match=r"b\.jsonl does not exist"):
        trained_samples(replace(given, data=data_of(tmp_path, "b.jsonl")))


def test_time_needs_rates_of_the_node() -> None:
    unknown = expected("training.max_steps=7")
    assert (unknown.seconds, unknown.step.missing) == (None, ("the rates of CPUs were not measured",))
    on_gpu = expected("node=h100_80", "node.gpus=2", "training.max_steps=7")
    assert on_gpu.peak_flops == 2 * 989e12
    assert on_gpu.seconds == 7 * on_gpu.step.seconds
    assert on_gpu.as_dict()["step"]["tokens_per_second"] == on_gpu.step.tokens / on_gpu.step.seconds


def test_checkpoints_and_model_are_the_disk() -> None:
    _, predicted = facts_and_estimate()
    assert expected().disk == predicted.disk


def test_samples_that_cannot_be_counted_leave_the_steps_open(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("instruction,output\nq,a\n")
    run = composed()
    said = expect(replace(run, data=data_of(tmp_path, "a.csv"), training=replace(run.training, max_steps=None)), *facts_and_estimate())
    assert (said.steps, said.sources[0]) == (None, "steps: not known before the data is read")


def test_a_time_that_is_not_known_says_why(tmp_path: Path) -> None:
    """Was: no peak rate is known for this node, whatever was missing."""
    (tmp_path / "a.csv").write_text("instruction,output\nq,a\n")
    run = composed("node=h100_80")
    unread = replace(run, data=data_of(tmp_path, "a.csv"), training=replace(run.training, max_steps=None))
    found = expect(unread, *facts_and_estimate())
    assert (found.seconds, found.step.missing) == (None, ())  # of a step it is known
    slow = replace(run, node=replace(run.node, tflops=None))
    assert expect(slow, *facts_and_estimate()).step.missing == ("node.tflops of this node is not known",)
