"""The plan that README.md shows is what the command prints."""

import re
import shlex
from pathlib import Path

import pytest

from launcher.cli import main

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n\$ regimen (plan [^\n]+)\n(.*?)^```$", README.replace("\\\n", " "), re.MULTILINE | re.DOTALL)


def test_there_is_one() -> None:
    assert len(BLOCKS) == 1


@pytest.mark.parametrize(("command", "shown"), BLOCKS)
def test_every_line_stands_where_it_is_printed(command: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`...` stands for lines that are left out."""
    main(shlex.split(command))
    printed = capsys.readouterr().out
    assert not re.search(r"\.{3}$", printed, re.MULTILINE)
    for part in shown.split("...\n"):
        assert part.strip("\n")
        assert f"\n{part}" in f"\n{printed}", part
        printed = printed[printed.index(part) + len(part) :]


@pytest.mark.parametrize(("command", "shown"), BLOCKS)
def test_it_fits_a_terminal(command: str, shown: str) -> None:
    assert max(map(len, shown.splitlines())) <= 80
