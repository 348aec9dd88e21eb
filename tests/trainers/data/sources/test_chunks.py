"""Records are handed out in chunks, from the formats that are read lazily as from the others."""

import json
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from conf.data_layout import Layout
from conf.data_registry import Source
from trainers.data.sources.chunks import chunks_of, record_count
from trainers.data.sources.rows import BrokenJson, parsed
from trainers.errors import DataError

ROWS = [{"instruction": f"q{number}", "output": f"a{number}"} for number in range(5)]


def write(path: Path) -> Source:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    elif path.suffix == ".csv":
        path.write_text("instruction,output\n" + "".join(f"{row['instruction']},{row['output']}\n" for row in ROWS))
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS))
    else:
        path.write_text(json.dumps(ROWS))
    return Source(name=path.name, file=path)


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".csv", ".parquet"])
def test_every_format_gives_the_same_records_in_chunks(tmp_path: Path, ending: str) -> None:
    chunks = list(chunks_of([write(tmp_path / f"a{ending}")], None, "answers", size=2))
    assert [len(chunk.records) for chunk in chunks] == [2, 2, 1]
    assert [parsed(record) for chunk in chunks for _, record in chunk.records] == ROWS


@pytest.mark.parametrize("limits", [(None, 3), (3, None), (3, 4), (4, 3)])
def test_a_set_is_cut_to_its_first_records_over_the_files_of_its_folder(tmp_path: Path, limits: tuple[int | None, int | None]) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (folder / name).write_text("\n".join(json.dumps({"text": f"{name} {number}"}) for number in range(2)))
    source = Source(name="set", file=folder, samples=limits[0])
    chunks = list(chunks_of([source], limits[1], "text"))
    assert [parsed(record) for chunk in chunks for _, record in chunk.records] == [
        {"text": "a.jsonl 0"},
        {"text": "a.jsonl 1"},
        {"text": "b.jsonl 0"},
    ]
    assert [Path(chunk.origin).name for chunk in chunks] == ["a.jsonl", "b.jsonl"]


def test_lines_keep_their_numbers_over_blank_ones_and_a_mark_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\n  \n{"text": "b"}')
    [chunk] = chunks_of([Source(name="a", file=tmp_path / "a.jsonl")], None, "text")
    assert [(number, parsed(record)) for number, record in chunk.records] == [(1, {"text": "a"}), (4, {"text": "b"})]
    assert chunk.place(4) == f"{tmp_path}/a.jsonl, line 4"


@pytest.mark.parametrize(
    ("line", "column", "reason"),
    [
        (b'{"a": 1', 8, "broken JSON"),
        (b'{"a": "\xff"}', 8, "byte 0xff is not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), 1, "byte 0xff is not UTF-8"),
        (b"[" * 100_000, 1, "nested too deeply"),
    ],
)
def test_a_line_that_cannot_be_parsed_tells_its_column(line: bytes, column: int, reason: str) -> None:
    with pytest.raises(BrokenJson, match=reason) as broken:
        parsed(line)
    assert broken.value.column == column


def test_the_layout_is_that_of_the_first_record_that_has_one(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"instruction\n{"strange": 1}\n{"instruction": "q", "output": "a"}\n')
    [chunk] = chunks_of([Source(name="a", file=tmp_path / "a.jsonl")], None, "answers")
    assert chunk.layout.holds == "answers"
    assert len(chunk.records) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no records"),
        (b"{\n{\n", r"line 1, column 2: broken JSON.*No record of this file can be read"),
        (b'{"x": 1}\n', "fit no known"),
        (b"null\n", "line 1: the record is null.*No record of this file"),
    ],
)
def test_a_file_without_a_usable_record_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=rf"(?s)a\.jsonl.*{message}"):
        list(chunks_of([Source(name="a", file=tmp_path / "a.jsonl")], None, "answers"))


def test_a_parquet_file_with_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    texts = pyarrow.array([b"\xff"], pyarrow.binary()).view(pyarrow.binary())
    broken = pyarrow.Array.from_buffers(pyarrow.string(), 1, texts.buffers())
    pyarrow.parquet.write_table(pyarrow.table({"text": broken}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet cannot be read as Parquet"):
        list(chunks_of([Source(name="a", file=tmp_path / "a.parquet")], None, "text"))


def test_lines_are_counted_for_the_time_left_and_other_formats_are_not(tmp_path: Path) -> None:
    lines = write(tmp_path / "a.jsonl")
    assert record_count([lines]) == 4  # line ends; the last line here has none
    assert record_count([lines, write(tmp_path / "b.json")]) is None


TOOLS = [
    {
        "messages": [{"role": "user", "content": "w?", "calls": [{"name": "weather", "arguments": {"city": "Paris"}}]}],
        "note": None,
        "tags": ["a", None],
    },
    {"messages": [{"role": "user", "content": "t?", "calls": [{"name": "time", "arguments": {"zone": "CET"}}]}], "note": "n", "tags": []},
]


@pytest.mark.parametrize("hub", [False, True], ids=["file", "hub"])
def test_arrow_invents_no_keys_that_a_record_did_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: bool) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    file = tmp_path / "set" / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(TOOLS), file)
    layout = Layout("openai")
    source = Source("tools", hub_id=str(tmp_path / "set"), layout=layout) if hub else Source("tools", file=file, layout=layout)
    [chunk] = chunks_of([source], None, "answers")
    assert [record for _, record in chunk.records] == TOOLS


@pytest.mark.parametrize("compression", ["gz", "zst"])
@pytest.mark.parametrize("ending", [".json", ".jsonl", ".csv", ".parquet"])
def test_a_compressed_file_gives_the_records_of_the_file(tmp_path: Path, ending: str, compression: str) -> None:
    source = compress(write(tmp_path / f"a{ending}"), compression)
    chunks = list(chunks_of([source], None, "answers", size=2))
    assert [parsed(record) for chunk in chunks for _, record in chunk.records] == ROWS
    assert record_count([source]) is None


@pytest.mark.parametrize("compression", ["gz", "zst"])
@pytest.mark.parametrize("ending", [".json", ".jsonl", ".csv", ".parquet"])
def test_a_compressed_file_that_is_cut_or_of_other_bytes_is_named(tmp_path: Path, ending: str, compression: str) -> None:
    source = compress(write(tmp_path / f"a{ending}"), compression)
    assert source.file is not None
    for damaged in (source.file.read_bytes()[:-12], b"other bytes"):
        source.file.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"a{ending}.{compression}: cannot be"):
            list(chunks_of([source], None, "answers"))


def compress(source: Source, compression: str) -> Source:
    assert source.file is not None
    file = source.file.with_name(f"{source.file.name}.{compression}")
    with pyarrow.output_stream(str(file), compression="detect") as stream:
        stream.write(source.file.read_bytes())
    return Source(name=file.name, file=file)
