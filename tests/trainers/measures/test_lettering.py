"""Text of pictures in fonts that have its characters."""

import pytest
from matplotlib.font_manager import fontManager

from trainers.measures.lettering import USUAL, characters_of, lettering, usual_file, without


def test_what_the_usual_font_has_is_left_alone() -> None:
    assert lettering("demo-à 2026") == ("demo-à 2026", [USUAL])
    assert lettering("two\nlines\tapart") == ("two\nlines\tapart", [USUAL])


def test_a_character_that_another_installed_font_has_is_drawn_in_that_font() -> None:
    """STIXNonUnicode comes with matplotlib and has private characters that DejaVu has not."""
    [file] = [font.fname for font in fontManager.ttflist if font.name == "STIXNonUnicode" and "Bol" not in font.fname and "Ita" not in font.fname]
    letter = chr(min(characters_of(file) - characters_of(usual_file())))
    text, fonts = lettering(f"a {letter}")
    assert text == f"a {letter}"
    assert fonts[0] == USUAL
    assert len(fonts) == 2
    assert not fonts[1].startswith("Last Resort")  # which draws a box for every character


def test_what_no_font_has_is_cut_out_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = "\U0010fffd"
    assert lettering(f"a{nowhere}{nowhere}-b") == ("a…-b", [USUAL])
    assert f"No font on this machine has the characters {nowhere}" in capsys.readouterr().err
    assert without("法律-法", "法律") == "…-…"


def test_a_font_file_that_is_gone_has_no_characters() -> None:
    assert characters_of("/nowhere/font.ttf") == set()
