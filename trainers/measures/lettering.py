"""Text in pictures: in a font that has its characters, or without those that no font here has."""

import sys
from collections.abc import Iterable
from typing import NamedTuple

USUAL = "DejaVu Sans"  # comes with matplotlib
BOXES_ALONE = "Last Resort"  # a font of matplotlib's that draws a box for every character there is


class Lettering(NamedTuple):
    text: str
    fonts: list[str]  # families, of which matplotlib takes for each character the first that has it


def lettering(text: str) -> Lettering:
    """The text and fonts that draw it without boxes; what no font has is cut out and said."""
    usual = characters_of(usual_file())
    strange = dict.fromkeys(letter for letter in text if not letter.isspace() and ord(letter) not in usual)
    if not strange:
        return Lettering(text, [USUAL])
    family = family_with(strange)
    if family is not None:
        return Lettering(text, [USUAL, family])
    print(
        f"No font on this machine has the characters {''.join(strange)}, so the picture's title ({text.splitlines()[0]}) shows … in their place. "
        "Install a font that has them, for example Noto Sans CJK.",
        file=sys.stderr,
        flush=True,
    )
    return Lettering(without(text, strange), [USUAL])


def without(text: str, strange: Iterable[str]) -> str:
    """One … for each row of characters that cannot be drawn."""
    shown = "".join("…" if letter in strange else letter for letter in text)
    while "……" in shown:
        shown = shown.replace("……", "…")
    return shown


def usual_file() -> str:
    from matplotlib.font_manager import findfont

    return str(findfont(USUAL))


def family_with(letters: Iterable[str]) -> str | None:
    """The first installed family whose font has all of them."""
    from matplotlib.font_manager import fontManager

    wanted = {ord(letter) for letter in letters}
    fonts = (font for font in fontManager.ttflist if not font.name.startswith(BOXES_ALONE))
    return next((str(font.name) for font in fonts if wanted <= characters_of(font.fname)), None)


def characters_of(file: str) -> set[int]:
    """Code points of a font file; none where it is gone or damaged."""
    from matplotlib.ft2font import FT2Font

    try:
        return set(FT2Font(file).get_charmap())
    except (OSError, RuntimeError):
        return set()
