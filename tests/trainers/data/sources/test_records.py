"""Files are read whole, or one message says where they are broken."""

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from trainers.data.sources.records import read_file, refuse_bad_rows
from trainers.errors import DataError


def written(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def test_json_lists_count_records_from_one(tmp_path: Path):
    records = read_file(written(tmp_path / "a.json", '[{"x": 1}, {"x": 2}]'))
    assert records.rows == [(1, {"x": 1}), (2, {"x": 2})]
    assert records.place(2) == f"{tmp_path}/a.json, record 2"


def test_json_lines_keep_their_line_numbers_over_blank_lines_and_odd_separators(tmp_path: Path):
    records = read_file(written(tmp_path / "a.jsonl", '{"x": "a\u2028b"}\n\n{"x": 2}\n'))
    assert records.rows == [(1, {"x": "a\u2028b"}), (3, {"x": 2})]
    assert records.place(3) == f"{tmp_path}/a.jsonl, line 3"


def test_parquet_gives_the_same_records(tmp_path: Path):
    rows = [{"instruction": "a", "history": [["q", "r"]]}, {"instruction": "b", "history": None}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read_file(tmp_path / "a.parquet").rows == [(1, rows[0]), (2, rows[1])]


def test_csv_values_are_text_and_may_hold_new_lines_and_long_texts(tmp_path: Path):
    long = "w" * 200_000  # the csv module alone would refuse more than 131,072 characters
    records = read_file(written(tmp_path / "a.csv", f'instruction,output,label\n"a\u2028, ""b""\nc",,true\nq,{long},false\n'))
    assert records.rows == [
        (3, {"instruction": 'a\u2028, "b"\nc', "output": "", "label": "true"}),
        (4, {"instruction": "q", "output": long, "label": "false"}),
    ]


def test_each_line_of_a_text_file_that_is_not_blank_is_a_document(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes("one\u2028still one\r\n\n  \ntwo".encode())
    assert read_file(tmp_path / "a.txt").rows == [(1, {"text": "one\u2028still one"}), (4, {"text": "two"})]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '[{"x": 1},\n {"x" 2}]', r"a.json, line 2, column 7: broken JSON: Expecting ':' delimiter"),
        ("a.json", '{"x": 1}\n{"x": 2}', r"line 2, column 1: broken JSON: Extra data. If it holds one object per line, name it .jsonl"),
        ("a.json", '{"x": 1}', r"a.json holds object, not a list of records"),
        ("a.json", "[]", r"a.json holds no records"),
        ("a.jsonl", "", r"a.jsonl holds no records"),
        ("a.jsonl", '{"x": 1}\n{"x": }\n{', r"(?s)a.jsonl: 2 of 3 rows cannot be used:.*line 2, column 7: broken JSON.*line 3, column 2"),
        ("a.parquet", "no parquet", r"a.parquet cannot be read as Parquet"),
        ("a.xml", "<x/>", r"Files ending in .xml are not read. Give a file ending in .json, .jsonl, .csv, .parquet, .txt"),
        ("a.csv", "x,y\n1,2\n3\n4,5,6\n", r"(?s)a.csv: 2 of 3 rows cannot be used:.*line 3: has fewer values.*line 4: has more values"),
        ("a.csv", 'x,y\n1,"2\n', r"a.csv, line 2: broken CSV: unexpected end of data. Quote values"),
        ("a.csv", "x,y\n", r"a.csv holds no records"),
        ("a.txt", "\n \n", r"a.txt holds no records"),
        ("a.json", "[" * 100_000, r"a.json: its JSON is nested too deeply"),
    ],
)
def test_a_broken_file_is_named_with_the_place(tmp_path: Path, name: str, content: str, message: str):
    with pytest.raises(DataError, match=message):
        read_file(written(tmp_path / name, content))


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"gone.json does not exist"):
        read_file(tmp_path / "gone.json")


def test_bytes_that_are_no_text_are_named_with_their_line(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(b'{"x": 1}\n{"x": "\xff"}')
    with pytest.raises(DataError, match=r"a.jsonl, line 2: byte 16 is not UTF-8"):
        read_file(tmp_path / "a.jsonl")


def test_twenty_bad_rows_are_listed_and_all_are_counted():
    with pytest.raises(DataError) as error:
        refuse_bad_rows("f.json", [f"record {number}: bad" for number in range(1, 26)], 100, "Mend them.")
    lines = str(error.value).split("\n")
    assert lines[0] == "f.json: 25 of 100 rows cannot be used:"
    assert lines[20:] == ["  record 20: bad", "  and 5 more", "Mend them."]
