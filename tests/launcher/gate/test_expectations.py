"""Steps, tokens, disk and time, from what local files tell before anything is read by a library."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from conf.constants import GENERATED_SAMPLES
from conf.schema import Data, Run
from launcher.composition.compose import compose
from launcher.errors import DataError
from launcher.facts.data import DATA_FILES, count_samples, trained_samples
from launcher.facts.model import ModelFacts, architecture_source, model_facts, read_architecture
from launcher.facts.node import settled_node
from launcher.gate.expectations import Expectations, expect, refuse_too_few
from launcher.gate.settle import settled
from launcher.memory.estimate import MemoryEstimate, estimate
from trainers.data.sources.generated import generated_records
from trainers.data.sources.records import READERS


@cache
def composed(*overrides: str) -> Run:
    run = compose(["model=demo", "data=demo", "node=cpu", *overrides])
    return settled(run, settled_node(run.node, run.node.gpus))


@cache
def described() -> tuple[ModelFacts, MemoryEstimate]:
    run = composed()
    facts = model_facts(read_architecture(run.model), architecture_source(run.model))
    return facts, estimate(run, facts)


def expected(*overrides: str) -> Expectations:
    return expect(composed(*overrides), *described())


def data_of(folder: Path, *sets: str, max_samples: int | None = None) -> Data:
    return replace(composed().data, sets=list(sets), folder=str(folder), max_samples=max_samples)


def test_the_generated_set_is_as_large_as_it_is_said_to_be() -> None:
    assert len(generated_records().rows) == GENERATED_SAMPLES == 2000


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
    assert expect(given, *described()).steps is None
    with pytest.raises(DataError, match=r"b\.jsonl does not exist"):
        trained_samples(replace(given, data=data_of(tmp_path, "b.jsonl")))


def test_time_needs_a_peak_rate() -> None:
    assert expected("training.max_steps=7").seconds is None
    on_gpu = expected("node=h100_80", "node.gpus=2", "training.max_steps=7")
    facts, _ = described()
    assert on_gpu.peak_flops == 2 * 989e12
    assert on_gpu.seconds is not None
    assert on_gpu.seconds >= 7 * on_gpu.flops_per_token * 2 * 64 / (0.4 * 2 * 989e12)
    assert facts.layers == 2


def test_checkpoints_and_model_are_the_disk() -> None:
    _, predicted = described()
    assert expected().disk == predicted.disk


def test_records_of_local_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n\n{"x": 2}\n')
    (tmp_path / "b.json").write_text(json.dumps([{"x": 1}] * 5))
    assert count_samples(data_of(tmp_path, "a.jsonl", "b.json")) == 7
    assert count_samples(data_of(tmp_path, "a.jsonl", "b.json", "generated", max_samples=3)) == 8  # 2 + 3 + 3


@pytest.mark.parametrize("entry", ["a.csv", "a.txt", "a.parquet", "folder", "folder.json"])
def test_what_the_trainers_read_and_only_a_library_counts_is_left_to_them(entry: str, tmp_path: Path) -> None:
    place = tmp_path / entry
    if entry.startswith("folder"):
        place.mkdir()
    else:
        place.write_text("instruction,output\nq,a\n")
    assert count_samples(data_of(tmp_path, entry)) is None


def test_the_endings_of_data_files_are_those_that_the_trainers_read() -> None:
    assert tuple(READERS) == DATA_FILES


def test_a_registered_set_is_counted_in_its_file(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text("\ufeff" + json.dumps([1, 2]), encoding="utf-8")
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": {"file_name": "b.json"}, "hub": {"hf_hub_url": "org/name"}}))
    assert count_samples(data_of(tmp_path, "mine")) == 2
    assert count_samples(data_of(tmp_path, "mine", "hub")) is None


@pytest.mark.parametrize("text", ["{", '{"a": 1}\n{"a": 2}\n', '{"a": 1}'])
def test_a_json_file_of_another_kind_is_left_to_its_reader(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    assert count_samples(data_of(tmp_path, "a.json")) is None


def test_a_large_list_is_not_read_whole_only_to_be_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.gate.expectations.LARGEST_LIST", 6)
    (tmp_path / "a.json").write_text("[1, 2]")  # 6 bytes
    (tmp_path / "b.json").write_text("[1, 2 ]")  # 7 bytes
    assert count_samples(data_of(tmp_path, "a.json")) == 2
    assert count_samples(data_of(tmp_path, "b.json")) is None
    run = composed()
    said = expect(replace(run, data=data_of(tmp_path, "b.json"), training=replace(run.training, max_steps=None)), *described())
    assert (said.steps, said.sources[0]) == (None, "steps: unknown data")


def test_a_hub_set_is_not_counted(tmp_path: Path) -> None:
    assert count_samples(data_of(tmp_path, "tatsu-lab/alpaca")) is None


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("missing.jsonl", "data.sets: missing.jsonl: missing.jsonl does not exist"),
        ("alpca", "alpca is neither in"),
        ("lost", "lost.json does not exist"),
    ],
)
def test_a_set_that_is_not_there_is_told(entry: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text(json.dumps({"lost": {"file_name": "lost.json"}}))
    with pytest.raises(DataError) as refused:
        count_samples(data_of(tmp_path, entry))
    assert said in str(refused.value)


def test_a_broken_registry_is_told_with_line_and_column(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text('{\n "a": {,}\n}')
    with pytest.raises(DataError, match=r"dataset_info\.json, line 2, column 8: no valid JSON"):
        count_samples(data_of(tmp_path, "a"))
