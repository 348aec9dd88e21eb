"""The search of a log, against a plain one over lines."""

import random
from pathlib import Path

import pytest

from launcher.board import searching
from launcher.board.files import read_plain
from launcher.board.searching import Found, search


def every_part(path: Path, words: str) -> list[Found]:
    """The answers that a page asks for one after the other."""
    parts = [found_in(path, words, 0)]
    while not parts[-1].over:
        parts.append(found_in(path, words, parts[-1].end))
    return parts


def found_in(path: Path, words: str, start: int) -> Found:
    found = search(path, words, start)
    assert found is not None
    return found


@pytest.mark.parametrize(("block", "lines", "most"), [(2**22, 200, 2**27), (64, 200, 2**27), (64, 3, 2**27), (200, 5, 500)])
def test_each_line_with_the_words_is_found_once_however_the_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, lines: int, most: int
) -> None:
    for name, value in {"BLOCK": block, "MOST_LINES": lines, "MOST_BYTES": most}.items():
        monkeypatch.setattr(searching, name, value)
    drawn, log = random.Random(block), tmp_path / "rank-0.txt"
    written = [f"{number} {'x' * drawn.randint(0, 40)} {'Error Error: 中文' if number % 7 == 3 else 'fine'}" for number in range(100)]
    log.write_text("\n".join(written) + "\n")
    wanted = [line for line in written if "error: 中" in line.lower()]
    parts = every_part(log, "ERROR: 中")
    found = [line for part in parts for line in part.lines]
    if lines == 200:  # what follows a full answer begins at the words, in the midst of a line
        assert [line.text for line in found] == wanted
    assert len(found) == len(wanted)
    assert all(log.read_bytes()[line.at :].lower().startswith("error: 中".encode()) for line in found)
    assert all(len(part.lines) <= lines for part in parts)


def test_words_in_a_line_that_is_longer_than_what_is_read_at_once_are_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "BLOCK", 64)
    log = tmp_path / "rank-0.txt"
    for before in range(50, 80):
        log.write_bytes(b"." * before + b"words" + b"." * 500)
        assert [line.at for part in every_part(log, "words") for line in part.lines] == [before]


def test_what_is_shown_of_a_line_stands_around_the_words(tmp_path: Path) -> None:
    log = tmp_path / "rank-0.txt"
    log.write_bytes(b"a" * 1000 + b"\x1b[31mwords\x1b[0m\x07" + b"b" * 1000 + b"\n")
    [line] = found_in(log, "words", 0).lines
    assert line.text.startswith("a" * 100)
    assert "words\\x07bbb" in line.text
    assert len(line.text) < 600


def test_a_link_a_pipe_and_no_words_find_nothing(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("words\n")
    (tmp_path / "link.txt").symlink_to(tmp_path / "log.txt")
    assert search(tmp_path / "link.txt", "words", 0) is None
    assert search(tmp_path / "log.txt", "", 0) is None
    assert found_in(tmp_path / "log.txt", "words", 10**9).over


@pytest.mark.parametrize("between", [106, 140, 150, 200, 4000, 4090, 4200])
def test_no_part_of_a_secret_is_shown_wherever_it_is_cut(tmp_path: Path, between: int) -> None:
    secret, log = "hf_" + "a1B2c3D4e5" * 4, tmp_path / "rank-0.txt"
    log.write_text(f"before {secret} {'.' * between} needle {'.' * (between + 200)} {secret} behind\n" + "needle and more\n")
    for start in range(len(f"before {secret} ")):
        found = found_in(log, "NEEDLE", start).lines
        assert [("needle" in line.text, "a1B2c3" in line.text) for line in found] == [(True, False)] * 2
    assert all(secret[4:20] not in line.text for line in found_in(log, secret[4:20], 0).lines)


def test_a_window_of_a_file_begins_and_ends_with_whole_lines(tmp_path: Path) -> None:
    log = tmp_path / "rank-0.txt"
    log.write_text("".join(f"line {number} hf_{'a1B2c3D4e5' * 4}\n" for number in range(1000)))
    for around in range(20_000, 20_070):
        window = read_plain(log, 400, around)
        assert window is not None
        lines = window.text.splitlines()
        assert len(lines) >= 5
        assert all(line.startswith("line ") and line.endswith("e5") for line in lines)
        assert log.read_bytes()[window.left_out :].startswith(lines[0].encode())
        assert window.left_out + len(window.text) + window.after == window.size
