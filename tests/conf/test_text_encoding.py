"""Files and names that are not in UTF-8: the message says what they are in, and has a command that makes them readable."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from conf.text_encoding import other_encoding, other_name

RECORDS = json.dumps([{"instruction": "什么是合同？", "output": "当事人之间的协议。"}], ensure_ascii=False)


@pytest.mark.parametrize(
    ("encoding", "named"),
    [("gbk", "GB18030"), ("gb18030", "GB18030"), ("utf-16", "UTF-16"), ("utf-16-le", "UTF-16LE"), ("utf-16-be", "UTF-16BE"), ("utf-32", "UTF-32")],
)
def test_the_command_of_the_message_makes_the_file_readable(encoding: str, named: str, tmp_path: Path) -> None:
    file = tmp_path / "my 法律.json"
    file.write_bytes(RECORDS.encode(encoding))
    told = other_encoding(file, file.read_bytes())
    assert told is not None
    assert named in told
    subprocess.run(["bash", "-c", told[told.index("iconv") :]], check=True)
    assert (tmp_path / "my 法律_utf8.json").read_text(encoding="utf-8").removeprefix("\ufeff") == RECORDS


def test_a_compressed_file_is_unpacked_first() -> None:
    told = other_encoding(Path("a.jsonl.gz"), RECORDS.encode("gbk"))
    assert told is not None
    assert told.endswith("gzip -dc a.jsonl.gz | iconv -f GB18030 -t UTF-8 > a_utf8.jsonl")


@pytest.mark.parametrize(
    "head",
    [
        RECORDS.encode(),
        RECORDS.encode()[:-20],  # cut within a character, as the beginning of a long file is
        b"",
        b"[",
        "déjà vu: les élèves naïfs préfèrent le café".encode("latin-1"),
        b'{"a": "\xff\xfe\xff"}',
        RECORDS.encode() + "合同".encode("gbk"),  # of two encodings, neither is the file's
        "これは日本語のテキストです。漢字もある。".encode("shift-jis"),
        "什麼是合約？當事人之間的協議。".encode("big5"),
    ],
)
def test_what_shows_no_other_encoding_is_left_to_the_reader(head: bytes) -> None:
    assert other_encoding(Path("a.jsonl"), head) is None


@pytest.mark.parametrize("name", ["中文 数据", "a'中"])
def test_the_command_for_a_name_in_gbk_renames_it(name: str, tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/" + name.encode("gbk"))
    said = other_name(f"{tmp_path}/{os.fsdecode(name.encode('gbk'))}/a.jsonl")
    assert said is not None
    assert f"In GB18030 (GBK, GB2312) it reads {name!r}. Rename it: mv " in said
    subprocess.run(["bash", "-c", said[said.index("mv ") :]], check=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_name_in_utf_8_is_left_alone() -> None:
    assert other_name("数据/法律 📜.json") is None
