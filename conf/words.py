"""How the launcher and the ranks both say a time, and how a line finds room for what it says."""

from collections.abc import Sequence

BAR_WIDTH = 20  # characters of a bar, so that a line of 80 has room for the words beside it
BETWEEN = " · "


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def fitted(parts: Sequence[str], width: int) -> str:
    """As many of the parts as one line has room for, from the first; a part is shown whole or not at all."""
    shown = parts[0]
    for part in parts[1:]:
        if len(shown) + len(BETWEEN) + len(part) > width:
            break
        shown += BETWEEN + part
    return shown
