"""Columns that the registry names and no record has."""

import json
from pathlib import Path

import pytest

from conf.data_sets import sources_of
from conf.schema import Data
from launcher.composition.compose import compose
from trainers.data.samples.sets import read_sets
from trainers.data.sources.chunks import chunks_of
from trainers.errors import DataError

ROW = {"instruction": "q", "input": "i", "output": "a"}


def registered(folder: Path, columns: dict[str, str], **values: object) -> Data:
    (folder / "dataset_info.json").write_text(json.dumps({"mine": {"file_name": "set", "columns": columns}}))
    data = compose(["model=demo", "data=files", "data.sets=[mine]", f"data.folder={folder}"]).data
    for key, value in values.items():
        setattr(data, key, value)
    return data


def write(folder: Path, *files: list[dict[str, str]]) -> None:
    (folder / "set").mkdir()
    for number, rows in enumerate(files):
        (folder / "set" / f"{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


MISSPELT = {"prompt": "instruction", "query": "inptu", "response": "output"}
SPARSE = {"prompt": "instruction", "response": "output", "system": "system"}
REFUSED = r"data.sets: mine: the registry names the column inptu, which no record has. The records have: instruction, input, output. Fix `columns`"


@pytest.mark.parametrize("limit", [None, 1])
def test_a_column_that_no_record_has_is_refused_with_those_that_are_there(tmp_path: Path, limit: int | None) -> None:
    write(tmp_path, [ROW] * 3)
    data = registered(tmp_path, MISSPELT, max_samples=limit)
    with pytest.raises(DataError, match=REFUSED):
        list(chunks_of(sources_of(data.sets, data), data.max_samples, "answers"))
    with pytest.raises(DataError, match=REFUSED):
        read_sets(data, "answers")


@pytest.mark.parametrize("limit", [None, 1])
def test_a_column_that_one_record_of_any_file_has_is_enough(tmp_path: Path, limit: int | None) -> None:
    write(tmp_path, [ROW] * 3, [ROW, {**ROW, "system": "s"}])
    data = registered(tmp_path, SPARSE, max_samples=limit)
    assert sum(len(chunk.records) for chunk in chunks_of(sources_of(data.sets, data), data.max_samples, "answers")) == (limit or 5)
    assert len(read_sets(data, "answers")) == (limit or 5)


def test_columns_that_the_registry_does_not_name_may_be_absent(tmp_path: Path) -> None:
    write(tmp_path, [ROW])
    (tmp_path / "dataset_info.json").write_text('{"mine": {"file_name": "set"}}')  # alpaca: its system and history are optional
    data = compose(["model=demo", "data=files", "data.sets=[mine]", f"data.folder={tmp_path}"]).data
    assert len(read_sets(data, "answers")) == 1
