"""What data.sets may name, and which files are data files."""

from pathlib import Path

import pytest

from conf.data_registry import DataError, Source
from conf.data_sets import ENDINGS, ending_of, evaluation_sources, files_in, left_out, limit_of, parts_of, sources_of, split_of
from launcher.composition.compose import compose
from trainers.data.sources.formats import FORMATS


def test_there_is_a_reader_for_every_ending() -> None:
    assert tuple(FORMATS) == ENDINGS


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
    for name in ("b.json", "a.jsonl", "README.md", ".c.json", "load.py", "e.jsonl.gz", "f.parquet.zst", "g.md.gz", "h.gz"):
        (tmp_path / name).write_text("[]")
    (tmp_path / "d.json").mkdir()
    assert [path.name for path in files_in(tmp_path)] == ["a.jsonl", "b.json", "e.jsonl.gz", "f.parquet.zst"]


def test_a_folder_without_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no file ending in .json"):
        files_in(tmp_path)


def test_a_file_that_is_not_there_or_not_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<a/>")
    with pytest.raises(DataError, match=r"gone.json does not exist"):
        ending_of(tmp_path / "gone.json")
    with pytest.raises(DataError, match=r"Files ending in .xml are not read. Give a file ending in .json, .jsonl, .csv, .parquet, .txt"):
        ending_of(tmp_path / "a.xml")


@pytest.mark.parametrize(("own", "asked", "limit"), [(None, None, None), (3, None, 3), (None, 4, 4), (3, 4, 3), (4, 3, 3)])
def test_the_smaller_limit_holds(own: int | None, asked: int | None, limit: int | None) -> None:
    assert limit_of(Source("mine", samples=own), asked) == limit


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *[
            ("train.jsonl", "train"),
            ("train-00000-of-00002.parquet", "train"),
            ("squad_training.json", "train"),
            ("Test.csv", "test"),
            ("test.jsonl.gz", "test"),
        ],
        *[("validation.jsonl", "validation"), ("squad.dev.jsonl", "validation"), ("val_2.jsonl", "validation"), ("my-eval.jsonl", "test")],
        *[("data.jsonl", None), ("trains.jsonl", None), ("contest.jsonl", None), ("a_test_of_time.jsonl", None), ("devices.jsonl", None)],
    ],
)
def test_the_name_of_a_file_tells_its_split(name: str, split: str | None) -> None:
    assert split_of(Path("folder", name)) == split


@pytest.mark.parametrize(
    ("files", "trained", "evaluated"),
    [
        (["test.jsonl", "train.jsonl"], ["train.jsonl"], ["test.jsonl"]),
        (["dev.jsonl", "test.jsonl", "train-0.jsonl", "train-1.jsonl"], ["train-0.jsonl", "train-1.jsonl"], ["dev.jsonl"]),
        (["more.jsonl", "test.jsonl"], ["more.jsonl"], ["test.jsonl"]),
        (["a.jsonl", "b.jsonl"], ["a.jsonl", "b.jsonl"], ["a.jsonl", "b.jsonl"]),
        (["test-0.jsonl", "test-1.jsonl"], ["test-0.jsonl", "test-1.jsonl"], ["test-0.jsonl", "test-1.jsonl"]),  # there is nothing else to train on
    ],
)
def test_the_files_of_a_folder_that_are_named_as_splits_are_splits(
    tmp_path: Path, files: list[str], trained: list[str], evaluated: list[str]
) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    data = compose(["model=demo", "data=files", f"data.sets=[{tmp_path}]", f"data.evaluation_sets=[{tmp_path}]"]).data
    [training], [evaluation] = sources_of(data.sets, data), evaluation_sources(data)
    assert [part.file for part in parts_of(training)] == [tmp_path / name for name in trained]
    assert [part.file for part in parts_of(evaluation)] == [tmp_path / name for name in evaluated]
    assert left_out(data) == [tmp_path / name for name in files if name not in (*trained, *evaluated)]
    data.evaluation_sets = []
    assert left_out(data) == [tmp_path / name for name in files if name not in trained]


def test_every_file_of_a_folder_that_stays_out_is_named(tmp_path: Path) -> None:
    read, others = ["a.jsonl", "b.csv", "e.JSONL"], ["d.tsv", "sub/c.jsonl", "test.jsonl"]
    for name in (*read, *others, ".h.jsonl", ".cache/g.jsonl", "readme.md", "LICENSE"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    data = compose(["model=demo", "data=files", f"data.sets=[{tmp_path}]"]).data
    assert [part.file for part in parts_of(sources_of(data.sets, data)[0])] == [tmp_path / name for name in read]
    assert left_out(data) == [tmp_path / name for name in others]
    data.sets = [str(tmp_path), str(tmp_path / "sub")]
    assert left_out(data) == [tmp_path / name for name in ("d.tsv", "test.jsonl")]


def test_a_folder_with_a_registry_is_not_read_as_data(tmp_path: Path) -> None:
    folder = tmp_path / "我的数据"
    folder.mkdir()
    (folder / "a.json").write_text("[]")
    data = compose(["model=demo", "data=files", f"data.sets=['{folder}']"]).data
    for other in ("[]", "{]", '{"features": {"text": {"dtype": "string"}}}'):  # no registry
        (folder / "dataset_info.json").write_text(other)
        assert [source.file for source in sources_of(data.sets, data)] == [folder]
    (folder / "dataset_info.json").write_text('{"a": {"file_name": "a.json"}, "b": {"hf_hub_url": "org/name"}}')
    with pytest.raises(
        DataError, match=rf"has a registry \(dataset_info.json\). Set data.folder={folder} and name entries of it in data.sets: a, b\. To"
    ):
        sources_of(data.sets, data)


def test_an_entry_may_name_the_split_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / "a" / name).write_text("{}")
    (tmp_path / "dataset_info.json").write_text('{"m": {"file_name": "a", "split": "test"}, "n": {"file_name": "a", "split": "validation"}}')
    data = compose(["model=demo", "data=files", "data.sets=[m]", f"data.folder={tmp_path}"]).data
    tests, absent = sources_of(["m", "n"], data)
    assert [part.file for part in parts_of(tests)] == [tmp_path / "a" / "test.jsonl"]
    with pytest.raises(DataError, match=r"holds no file of the split validation"):
        parts_of(absent)


def test_one_file_has_no_splits(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"data.sets: mine: split=test is named, but .*a.jsonl is one file. Name a folder of splits"):
        parts_of(Source("mine", file=tmp_path / "a.jsonl", split="test"))
