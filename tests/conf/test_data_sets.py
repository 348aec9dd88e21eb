"""What data.sets may name, and which files are data files."""

from pathlib import Path

import pytest

from conf.data_registry import DataError, Source
from conf.data_sets import ENDINGS, ending_of, files_in, limit_of, sources_of
from launcher.composition.compose import compose
from trainers.data.sources.records import READERS


def test_there_is_a_reader_for_every_ending() -> None:
    assert tuple(READERS) == ENDINGS


def test_a_name_is_an_entry_before_it_is_anything_else_and_a_file_before_it_is_a_hub_id(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text('{"org/name": {"file_name": "a.json"}, "generated": {"file_name": "b.json"}}')
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "folder").mkdir()
    names = ["org/name", "generated", "org/folder", "org/c.jsonl", "org/hub"]
    data = compose(["model=demo", "data=files", "data.sets=[x]", f"data.folder={tmp_path}"]).data
    assert [source.file or source.hub_id for source in sources_of(names, data)] == [
        *[tmp_path / "a.json", tmp_path / "b.json", tmp_path / "org" / "folder", tmp_path / "org" / "c.jsonl"],
        "org/hub",
    ]


def test_a_folder_gives_its_data_files_by_name(tmp_path: Path) -> None:
    for name in ("b.json", "a.jsonl", "README.md", ".c.json", "load.py"):
        (tmp_path / name).write_text("[]")
    (tmp_path / "d.json").mkdir()
    assert [path.name for path in files_in(tmp_path)] == ["a.jsonl", "b.json"]


def test_a_folder_without_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the folder holds no file ending in .json"):
        files_in(tmp_path)


def test_a_file_that_is_not_there_or_not_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<a/>")
    with pytest.raises(DataError, match=r"gone.json: there is no such file"):
        ending_of(tmp_path / "gone.json")
    with pytest.raises(DataError, match=r"files ending in .xml are not read. Give a file ending in .json, .jsonl, .csv, .parquet, .txt"):
        ending_of(tmp_path / "a.xml")


@pytest.mark.parametrize(("own", "asked", "limit"), [(None, None, None), (3, None, 3), (None, 4, 4), (3, 4, 3), (4, 3, 3)])
def test_the_smaller_limit_holds(own: int | None, asked: int | None, limit: int | None) -> None:
    assert limit_of(Source("mine", samples=own), asked) == limit
