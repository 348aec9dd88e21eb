"""Times as people read them, and what is red."""

import io

import pytest

from launcher.words import age, red_alarms


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        *((-3, "0 s"), (0.4, "0 s"), (119.9, "119 s"), (120, "2 min"), (2362, "39 min"), (7199, "119 min"), (7200, "2 h")),
        *((172_799, "47 h"), (172_800, "2 days")),
    ],
)
def test_an_age_is_said_in_one_unit(seconds: float, words: str) -> None:
    assert age(seconds) == words


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


PLAN = "verdict: REFUSED (gate.mode=enforce)\n  pass  DISK      REFUSEDLY\n  FAIL  GPU_PEAK  a FAIL here is a word"
RED = PLAN.replace("REFUSED (", "\x1b[1;31mREFUSED\x1b[0m (").replace("  FAIL  ", "\x1b[1;31m  FAIL\x1b[0m  ")


def test_what_fails_is_red_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert red_alarms(PLAN, Terminal()) == RED
    assert red_alarms(PLAN, io.StringIO()) == PLAN


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_that_declines_colours_gets_none(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(variable, value)
    assert red_alarms(PLAN, Terminal()) == PLAN


def test_states_that_need_help_are_red_in_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert (
        red_alarms("demo/a  failed    2/10  The ranks failed here.", Terminal()) == "demo/a  \x1b[1;31mfailed\x1b[0m    2/10  The ranks failed here."
    )
    assert red_alarms("fail  g++  is not there", Terminal()) == "\x1b[1;31mfail\x1b[0m  g++  is not there"
