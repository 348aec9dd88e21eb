"""Files are read whole, or one message says where they are broken."""

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from conf.data_registry import Source
from trainers.data.sources.records import Records, opened, refuse_bad_rows
from trainers.data.sources.rows import Row, RowError, parsed, place_within
from trainers.errors import DataError


def written(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def file(path: Path) -> Records:
    return opened(Source("mine", file=path), "answers")


def read(path: Path) -> list[Row]:
    return [(number, parsed(record)) for number, record in file(path).rows]


def problems(path: Path) -> list[str]:
    found = []
    for number, record in file(path).rows:
        try:
            parsed(record)
        except RowError as error:
            found.append(f"{number}{place_within(error)}: {error}")
    return found


def test_json_lists_count_records_from_one(tmp_path: Path):
    records = file(written(tmp_path / "a.json", '[{"x": 1}, {"x": 2}]'))
    assert list(records.rows) == [(1, {"x": 1}), (2, {"x": 2})]
    assert records.place(2) == f"{tmp_path}/a.json, record 2"


def test_json_lines_keep_their_line_numbers_over_blank_lines_and_odd_separators(tmp_path: Path):
    path = written(tmp_path / "a.jsonl", '{"x": "a\u2028b"}\n\n{"x": 2}\n')
    assert read(path) == [(1, {"x": "a\u2028b"}), (3, {"x": 2})]
    assert file(path).place(3) == f"{tmp_path}/a.jsonl, line 3"


def test_parquet_gives_the_same_records(tmp_path: Path):
    rows = [{"instruction": "a", "history": [["q", "r"]]}, {"instruction": "b", "history": None}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [(1, rows[0]), (2, rows[1])]


def test_csv_values_are_text_and_may_hold_new_lines_and_long_texts(tmp_path: Path):
    long = "w" * 200_000  # the csv module alone would refuse more than 131,072 characters
    rows = read(written(tmp_path / "a.csv", f'instruction,output,label\n"a\u2028, ""b""\nc",,true\nq,{long},false\n'))
    assert rows == [
        (3, {"instruction": 'a\u2028, "b"\nc', "output": "", "label": "true"}),
        (4, {"instruction": "q", "output": long, "label": "false"}),
    ]


def test_each_line_of_a_text_file_that_is_not_blank_is_a_document(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes("one\u2028still one\r\n\n  \ntwo".encode())
    assert read(tmp_path / "a.txt") == [(1, {"text": "one\u2028still one"}), (4, {"text": "two"})]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '[{"x": 1},\n {"x" 2}]', r"a.json, line 2, column 7: broken JSON: Expecting ':' delimiter"),
        ("a.json", '{"x": 1}\n{"x": 2}', r"line 2, column 1: broken JSON: Extra data. If it holds one object per line, name it .jsonl"),
        ("a.json", '{"x": 1}', r"a.json holds an object, not a list of records"),
        ("a.parquet", "no parquet", r"a.parquet cannot be read as Parquet"),
        ("a.xml", "<x/>", r"Files ending in .xml are not read. Give a file ending in .json, .jsonl, .csv, .parquet, .txt"),
        ("a.csv", 'x,y\n1,"2\n', r"a.csv, line 2: broken CSV: unexpected end of data. Quote values"),
        ("a.json", "[" * 100_000, r"a.json: its JSON is nested too deeply"),
    ],
)
def test_a_broken_file_is_named_with_the_place(tmp_path: Path, name: str, content: str, message: str):
    with pytest.raises(DataError, match=message):
        read(written(tmp_path / name, content))


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"gone.json does not exist"):
        read(tmp_path / "gone.json")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", b'{"x": 1}\n{"x": }\n{', ["2, column 7: broken JSON: Expecting value", "3, column 2: broken JSON: Expecting property name"]),
        ("a.jsonl", b'{"x": 1}\n{"x": "\xff"}', ["2, column 8: byte 0xff is not UTF-8"]),
        ("a.jsonl", b'{"x": 1, "x": 2}\n{"x": 1}', ["1: the key 'x' stands twice in one object, and only its last value would be read"]),
        ("a.jsonl", b'{"m": [{"x": 1, "x": 2}]}', ["1: the key 'x' stands twice"]),
        ("a.json", b'[{"x": 1}, {"m": [{"x": 1, "x": 2}]}]', ["2: the key 'x' stands twice"]),
        ("a.csv", b"x,y\n1,2\n3\n4,5,6\n", ["3: has fewer values than the first line has names", "4: has more values than the first line has names"]),
        ("a.txt", b"one\n\xff\n", ["2: byte 0 of it is not UTF-8"]),
    ],
)
def test_a_record_that_cannot_be_read_is_named_and_its_neighbours_are_kept(tmp_path: Path, name: str, content: bytes, expected: list[str]):
    (tmp_path / name).write_bytes(content)
    found = problems(tmp_path / name)
    assert len(found) == len(expected)
    assert all(problem.startswith(begin) for problem, begin in zip(found, expected, strict=True))


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, ending: str):
    path = tmp_path / f"a{ending}"
    if ending == ".csv":
        path.write_text("x,y,x\n1,2,3\n")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_arrays([pyarrow.array(["1"])] * 3, names=["x", "y", "x"]), path)
    with pytest.raises(DataError, match=rf"a{ending} has more than one column of the name 'x'. Give each column"):
        read(path)


def test_bytes_of_a_csv_file_that_are_no_text_are_named_with_their_line(tmp_path: Path):
    (tmp_path / "a.csv").write_bytes(b"x,y\n1,\xff\n")
    with pytest.raises(DataError, match=r"a.csv, line 2: byte 2 of it is not UTF-8"):
        read(tmp_path / "a.csv")


def test_twenty_bad_rows_are_listed_and_all_are_counted():
    with pytest.raises(DataError) as error:
        refuse_bad_rows("f.json", [f"record {number}: bad" for number in range(1, 26)], 100, "Mend them.")
    lines = str(error.value).split("\n")
    assert lines[0] == "f.json: 25 of 100 rows cannot be used:"
    assert lines[20:] == ["  record 20: bad", "  and 5 more", "Mend them."]
