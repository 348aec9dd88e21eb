"""How the command line is read."""

import pytest

from launcher.cli import main, parsed_arguments


def test_overrides_may_stand_before_between_and_after_options() -> None:
    read = parsed_arguments(["plan", "a=1", "--json", "b=2", "--config-dir", "x", "c=3"])
    assert read.overrides == ["a=1", "b=2", "c=3"]
    assert read.json
    assert [str(folder) for folder in read.config_dir] == ["x"]


@pytest.mark.parametrize("argv", [["plan", "a=1", "--jsn", "b=2"], ["stop", "RUN", "OTHER"], ["nope"], []])
def test_what_is_no_option_is_refused_with_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert "regimen" in capsys.readouterr().err


def test_a_plan_is_shown_in_one_way_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["plan", "--json", "--matrix"])
    assert "argument --matrix: not allowed with argument --json" in capsys.readouterr().err
