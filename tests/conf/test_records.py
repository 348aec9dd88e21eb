"""One damaged line costs no more than itself, and is counted."""

import random
from pathlib import Path

import pytest

from conf.journal import is_event
from conf.records import FEW_LINES, columns_of_steps, is_step, parse_lines, parsed, read_lines, read_object

WHOLE = b'{"step": 1, "of": 4, "time": 3.5, "loss": 2.0}\n'


@pytest.mark.parametrize(
    "line",
    [b"\n", b"{\n", b"[1]\n", b"null\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n", b'{"step": 1}\n', b'{"step": true, "of": 4}\n',
     b'{"step": 1, "of": 4, "loss": "low"}\n', b'{"step": 1, "of": 4, "time": 1e400}\n', b'{"step": 1, "of": 4, "eta_seconds": NaN}\n'],
)  # fmt: skip
def test_a_damaged_line_is_left_out_and_counted(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(WHOLE + line + WHOLE)
    read = read_lines(tmp_path / "lines", is_step)
    assert ([entry["loss"] for entry in read.entries], read.damaged) == ([2.0, 2.0], 1)


def test_a_torn_last_line_is_left_for_later(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(WHOLE + WHOLE[:-5])
    assert read_lines(tmp_path / "lines", is_step).damaged == 0
    assert len(read_lines(tmp_path / "lines", is_step).entries) == 1


def test_a_loss_may_be_no_number(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b'{"step": 1, "of": 4, "loss": NaN}\n')
    assert read_lines(tmp_path / "lines", is_step).damaged == 0


def test_an_end_says_its_code_and_why(tmp_path: Path) -> None:
    lines = ['{"time": 1, "event": "end"}', '{"time": 1, "event": "end", "exit_code": 0, "message": ""}', '{"time": 1, "event": "start", "job": 5}']
    (tmp_path / "lines").write_text("".join(f"{line}\n" for line in lines))
    read = read_lines(tmp_path / "lines", is_event)
    assert ([entry["event"] for entry in read.entries], read.damaged) == (["end"], 2)


def test_a_folder_in_the_place_of_a_file_is_damage(tmp_path: Path) -> None:
    assert read_lines(tmp_path, is_event).damaged == 1
    assert read_object(tmp_path, is_event) is None
    assert read_lines(tmp_path / "absent", is_event).damaged == 0
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "absent", is_event)


GOOD = [b'{"step": 1, "of": 9, "loss": 2.5}', b'{"step": 2, "of": 9, "loss": NaN, "time": 5.0}', b'{"step": 3, "of": 9, "eval_loss": 1}']
BAD = [b'{"step": 4,', b"", b"[1", b"2]", b"3", b"null", b'{"step": true, "of": 9}', b'{"step": 5, "of": 9, "loss": "low"}', b"\xff", b"[" * 100_000]


@pytest.mark.parametrize("seed", range(40))
def test_lines_that_are_read_at_once_are_those_that_are_read_one_by_one(seed: int) -> None:
    drawn = random.Random(seed)
    lines = [drawn.choice(GOOD if drawn.random() < 0.8 else BAD) for _ in range(drawn.randint(0, 12))]
    one_by_one = [parsed(line, is_step) for line in lines]
    read = parse_lines(b"".join(line + b"\n" for line in lines), is_step)
    assert str(read.entries) == str([entry for entry in one_by_one if entry is not None])
    assert read.damaged == one_by_one.count(None)


ODD = [b'{"step": 7, "of": 9, "time": -1}', b'{"step": 7, "of": 9, "time": NaN}', b'{"step": 7, "of": 9.0}', b'{"of": 9, "loss": 1}', b"{}"]


@pytest.mark.parametrize("seed", range(10))
def test_steps_by_key_are_those_that_are_read_line_by_line(seed: int) -> None:
    drawn = random.Random(seed)
    kinds = GOOD if seed % 2 else [*GOOD, *BAD, *ODD]
    lines = [drawn.choice(kinds) for _ in range(drawn.choice([0, 5, 3 * FEW_LINES]))]
    text = b"".join(line + b"\n" for line in lines)
    by_key = [dict(zip(columns, row, strict=True)) for columns in columns_of_steps(text) for row in zip(*columns.values(), strict=True)]
    assert repr(by_key) == repr(parse_lines(text, is_step).entries)  # a NaN is not equal to itself
