"""The memory of a plan as a picture."""

from pathlib import Path

import pytest

from launcher import cli
from launcher.verbs.pictures import draw_errors


def test_a_plan_is_drawn_and_nothing_is_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "memory.png"
    assert cli.main(["plan", "node=a100_40", f"output={tmp_path / 'out'}", "--picture", str(picture)]) == 0
    assert capsys.readouterr().out == f"picture: {picture}\n"
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert not (tmp_path / "out").exists()


def test_a_refused_run_is_drawn_too_and_ends_as_refused(tmp_path: Path) -> None:
    picture = tmp_path / "memory.png"
    assert cli.main(["plan", "model=llama2_70b", "data=demo", "regime=full", "node=rtx4090_24", "--picture", str(picture)]) == 3
    assert picture.exists()


def test_a_folder_is_no_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--picture", str(tmp_path)]) == 74
    assert f"--picture {tmp_path} cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "begins"), [("memory.svg", b"<?xml"), ("memory.pdf", b"%PDF"), ("memory.JPG", b"\xff\xd8\xff")])
def test_the_end_of_the_name_chooses_the_kind_of_picture(name: str, begins: bytes, tmp_path: Path) -> None:
    assert cli.main(["plan", "node=a100_40", "--picture", str(tmp_path / name)]) == 0
    assert (tmp_path / name).read_bytes().startswith(begins)


@pytest.mark.parametrize("name", ["memory", "memory.bmp", "memory.png.txt"])
@pytest.mark.parametrize("verb", [["plan"], ["memory", "report", "here"], ["data", "validate"]])
def test_a_kind_of_picture_that_is_not_written_is_refused_with_those_that_are(
    name: str, verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*verb, "--picture", str(tmp_path / name)]) == 2
    assert f"--picture {tmp_path / name} does not say a kind of picture that can be written. End its name with one of .png" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_legend_of_errors_lies_beside_the_frame_and_hides_no_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import pyplot

    drawn = []
    monkeypatch.setattr(pyplot, "close", drawn.append)
    draw_errors({"full bf16": [("host", 0.01)], "lora bf16": [("host", -0.01)]}, "errors", tmp_path / "errors.png")
    monkeypatch.undo()
    [figure] = drawn
    [axes], [legend] = figure.axes, figure.legends
    assert legend.get_window_extent().x0 >= axes.get_window_extent().x1
    pyplot.close(figure)
