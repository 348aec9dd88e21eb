"""Samples as local files tell of them, counted as the trainers will read them."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from conf.constants import GENERATED_SAMPLES
from conf.data_sets import sources_of
from conf.schema import Data
from conf.stages import STAGES
from launcher.composition.compose import compose
from launcher.errors import ConfigError, DataError
from launcher.facts.data import count_samples, trained_samples
from tests.described import described
from trainers.data.samples.sets import read_sets
from trainers.data.sources.chunks import chunks_of
from trainers.data.sources.generated import generated_rows

ROW = {"instruction": "q", "output": "a"}
PAIR = {"prompt": "q", "chosen": "a", "rejected": "b"}


@cache
def composed() -> Data:
    return compose(["model=demo", "data=files", "data.sets=[x]"]).data


def data_of(folder: Path, *sets: str, max_samples: int | None = None) -> Data:
    return replace(composed(), sets=list(sets), folder=str(folder), max_samples=max_samples)


def write_lines(path: Path, records: int, record: object = ROW) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{json.dumps(record)}\n" * records)


def register(folder: Path, **entries: object) -> None:
    (folder / "dataset_info.json").write_text(json.dumps(entries))


def refused(ask: Callable[[], object]) -> str:
    with pytest.raises((DataError, ValueError)) as error:
        ask()
    return str(error.value)


def test_the_generated_set_is_as_large_as_it_is_said_to_be() -> None:
    assert len(list(generated_rows())) == GENERATED_SAMPLES == 2000


def test_records_of_local_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n\n{"x": 2}\n')
    (tmp_path / "b.json").write_text(json.dumps([{"x": 1}] * 5))
    assert count_samples(data_of(tmp_path, "a.jsonl", "b.json"), "sft") == 7
    assert count_samples(data_of(tmp_path, "a.jsonl", "b.json", "generated", max_samples=3), "sft") == 8  # 2 + 3 + 3


@pytest.mark.parametrize("entry", ["a.csv", "a.txt", "a.parquet", "a.jsonl.gz", "a.json.zst"])
def test_what_only_a_library_counts_is_left_to_the_trainers(entry: str, tmp_path: Path) -> None:
    (tmp_path / entry).write_text("instruction,output\nq,a\n")
    assert count_samples(data_of(tmp_path, entry), "sft") is None


def test_a_registered_set_is_counted_in_its_file(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text("\ufeff" + json.dumps([1, 2]), encoding="utf-8")
    register(tmp_path, mine={"file_name": "b.json"}, hub={"hf_hub_url": "org/name"})
    assert count_samples(data_of(tmp_path, "mine"), "sft") == 2
    assert count_samples(data_of(tmp_path, "mine", "hub"), "sft") is None


@pytest.mark.parametrize("text", ["{", '{"a": 1}\n{"a": 2}\n', '{"a": 1}', "[" * 100_000])
def test_a_json_file_of_another_kind_is_left_to_its_reader(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    assert count_samples(data_of(tmp_path, "a.json"), "sft") is None


def test_a_large_list_is_not_read_whole_only_to_be_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.facts.data.LARGEST_LIST", 6)
    (tmp_path / "a.json").write_text("[1, 2]")  # 6 bytes
    (tmp_path / "b.json").write_text("[1, 2 ]")  # 7 bytes
    assert count_samples(data_of(tmp_path, "a.json"), "sft") == 2
    assert count_samples(data_of(tmp_path, "b.json"), "sft") is None


def test_a_hub_set_is_not_counted(tmp_path: Path) -> None:
    assert count_samples(data_of(tmp_path, "tatsu-lab/alpaca"), "sft") is None


@pytest.mark.parametrize(
    ("name", "stage", "records"),
    [
        ("five", "sft", 5),
        ("two_of_five", "sft", 2),
        ("folder", "sft", 7),
        ("six_of_folder", "sft", 6),
        ("a.jsonl", "sft", 5),
        ("pairs", "kto", 8),
        ("pairs.jsonl", "kto", 8),
        ("pairs.jsonl", "dpo", 4),
        ("three_pairs", "kto", 6),
        ("generated", "sft", 5),  # the registry has the first word
        ("labelled.json", "kto", 3),
    ],
)
def test_as_many_samples_are_counted_as_are_read(name: str, stage: str, records: int, tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", 5)
    write_lines(tmp_path / "folder" / "a.jsonl", 4)
    write_lines(tmp_path / "folder" / "b.jsonl", 3)
    write_lines(tmp_path / "pairs.jsonl", 4, PAIR)
    (tmp_path / "labelled.json").write_text(json.dumps([{"prompt": "q", "completion": "a", "label": True}] * 3))
    pairs = {"file_name": "pairs.jsonl", "ranking": True, "columns": {"prompt": "prompt"}}
    register(
        tmp_path,
        five={"file_name": "a.jsonl"},
        two_of_five={"file_name": "a.jsonl", "num_samples": 2},
        six_of_folder={"file_name": "folder", "num_samples": 6},
        pairs=pairs,
        three_pairs={**pairs, "num_samples": 3},
        generated={"file_name": "a.jsonl"},
    )
    data = data_of(tmp_path, name)
    assert count_samples(data, stage) == len(read_sets(data, STAGES[stage].reads)) == records


@pytest.mark.parametrize(
    "name",
    [
        *["a_text", "list_of_files", "unknown_key", "images", "empty_folder", "other_ending", "nothing", "both", "b.jsonl", "utf16.jsonl"],
        *["gone.jsonl", "alpca", "org/name/third", "/gone/folder", "", "empty.jsonl"],
    ],
)
def test_what_the_trainers_refuse_is_refused_with_the_same_words_before_they_start(name: str, tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", 5)
    write_lines(tmp_path / "b.jsonl", 5)
    write_lines(tmp_path / "empty.jsonl", 0)
    (tmp_path / "utf16.jsonl").write_text('{"instruction": "q", "output": "a"}', encoding="utf-16")
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.xml").write_text("<a/>")
    register(
        tmp_path,
        a_text="a.jsonl",
        list_of_files={"file_name": ["a.jsonl"]},
        unknown_key={"file_nme": "a.jsonl"},
        images={"file_name": "a.jsonl", "columns": {"images": "i"}},
        empty_folder={"file_name": "folder"},
        other_ending={"file_name": "a.xml"},
        nothing={"file_name": "gone.json"},
        both={"file_name": "a.jsonl", "hf_hub_url": "org/name"},
        **{"b.jsonl": {"file_name": "a.jsonl"}},
    )
    data = data_of(tmp_path, name)
    theirs = refused(lambda: list(chunks_of(sources_of(data.sets, data), None, "answers")))
    assert refused(lambda: count_samples(data, "sft")) == theirs


@pytest.mark.parametrize("registry", [b"[]", b'{"mine": "\xff"}', b'{\n "a": {,}\n}', b"[" * 100_000])
def test_a_broken_registry_is_told_alike_by_both_sides(registry: bytes, tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_bytes(registry)
    data = data_of(tmp_path, "mine")
    theirs = refused(lambda: sources_of(data.sets, data))
    assert str(tmp_path / "dataset_info.json") in theirs
    with pytest.raises(DataError) as ours:
        count_samples(data, "sft")
    assert str(ours.value) == theirs


def test_no_sets_are_a_matter_of_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.sets is empty"):
        count_samples(data_of(tmp_path), "sft")


STREAMED = ("data.streaming=true", "training.max_steps=5")


@pytest.mark.parametrize("how", [(), ("data.mixing=interleave_over",), STREAMED, ("stage=pt",)], ids=["joined", "mixed", "streamed", "texts"])
@pytest.mark.parametrize("key", ["sets", "evaluation_sets"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.jsonl", "gone.jsonl does not exist"),
        ("empty.jsonl", "empty.jsonl holds no records"),
        ("org/name/third", "org/name/third is neither"),
        ("lost", "gone.json does not exist"),
    ],
)
def test_a_set_that_is_not_there_is_found_before_a_run_starts(how: tuple[str, ...], key: str, name: str, message: str, tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", 5)
    write_lines(tmp_path / "empty.jsonl", 0)
    register(tmp_path, lost={"file_name": "gone.json"})
    sets = {"sets": ["a.jsonl"], "evaluation_sets": []} | {key: ["a.jsonl", name]}
    run = described("model=demo", "data=files", "data.sets=[x]", "node=cpu", f"data.folder={tmp_path}", *how)
    with pytest.raises(DataError, match=message):
        trained_samples(replace(run, data=replace(run.data, **sets)))
