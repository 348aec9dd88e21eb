"""The page of data sets: which are there, and the report of `regimen data validate` as it was given."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.board.actions import Done
from launcher.board.board import Board
from launcher.board.data import LEARNED, report
from launcher.board.pages import rendered
from tests.boards import Running, board

PAYLOAD = "<img src=x onerror=alert(1)>"
PREVIEW = f"sample, learned text between ⟦ and ⟧:\n{PAYLOAD} 2 + 2 ⟦4<|end|>⟧ \x1b[31mred ⟦again⟧"
SET = {"name": PAYLOAD, "records": 1000, "samples": 998, "unusable": 2, "dropped": 0, "truncated": 5, "tokens": 12345, "learned_tokens": 678}


def found(folder: Path) -> str:
    survey = {"sets": [SET], "lengths": {"least": 3, "50 %": 20, "most": 99}, "cutoff": 64, "over_cutoff": 5}
    problems = {"total": 2, "first": [{"place": "my.jsonl, line 12", "what": PAYLOAD}]}
    values = {"train": survey, "evaluation": None, "problems": problems, "disagreements": [PAYLOAD], "previews": [PREVIEW]}
    return json.dumps({**values, "picture": str(folder / "lengths.png")})


def test_the_report_is_that_of_the_command_with_the_same_mask(tmp_path: Path) -> None:
    (tmp_path / "lengths.png").write_bytes(b"\x89PNG")
    values = report(Done(0, "regimen data validate", found(tmp_path)), Board(tmp_path, None, "here"))
    shown = rendered("data_report.html.j2", "en", {"command": "regimen data validate", **values})
    assert [part for part in values["previews"][0] if LEARNED.fullmatch(part)] == ["⟦4<|end|>⟧", "⟦again⟧"]
    assert "".join(values["previews"][0]) == PREVIEW.replace("\x1b[31m", "")
    assert "<mark>⟦4&lt;|end|&gt;⟧</mark>" in shown
    assert "my.jsonl, line 12" in shown
    assert "12,345" in shown
    assert "data:image/png;base64,iVBORw==" in shown
    assert PAYLOAD not in shown
    assert "\x1b" not in shown


def test_a_picture_outside_of_the_folders_is_not_read(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "lengths.png").write_bytes(b"\x89PNG")
    assert report(Done(0, "", found(tmp_path)), Board(inside, inside / "outputs", "here"))["picture"] == ""


def test_what_the_command_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    values = report(Done(4, "", "", "regimen: my.jsonl, line 12: this line is not a JSON object.\n"), Board(tmp_path, None, "here"))
    assert values["error"] == "regimen: my.jsonl, line 12: this line is not a JSON object."
    assert "line 12" in rendered("data_report.html.j2", "zh", {"command": "", **values})


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    place = tmp_path_factory.mktemp("work")
    (place / "data").mkdir()
    (place / "data" / "mine.jsonl").write_text('{"text": "a"}\n')
    (place / "data" / "linked.jsonl").symlink_to("/etc/passwd")
    entries = {PAYLOAD: {"file_name": "mine.jsonl"}, "broken": {"formatting": "nothing", "file_name": "x.json"}}
    (place / "data" / "dataset_info.json").write_text(json.dumps(entries))
    with board(place) as started:
        yield started


def test_the_page_lists_the_registry_and_the_files_beside_it(running: Running) -> None:
    shown = running.get("/data").text
    assert all(f'data-look="{name}"' in shown for name in ("generated", "mine.jsonl"))
    assert "linked.jsonl" not in shown
    assert 'data-look="broken"' not in shown
    assert "formatting" in shown
    assert PAYLOAD not in shown


def test_a_registry_that_is_a_link_out_of_the_folders_is_refused(running: Running) -> None:
    place = running.folder / "strange"
    place.mkdir()
    (place / "dataset_info.json").symlink_to("/etc/passwd")
    answer = running.get("/data?folder=strange")
    assert (answer.status, "root:" in answer.text, "outside of the folders" in answer.text) == (422, False, True)


def test_a_folder_outside_and_a_form_that_leads_there_are_refused(running: Running) -> None:
    for folder in ("/etc", "../..", "/proc/self", "~root", "nothing%00x", "a" * 5000):
        assert running.get(f"/data?folder={folder}").status == 422
    for form in (
        {"data": "files", "data.sets": '["/etc/passwd"]'},
        {"data.folder": "/etc"},
        {"hydra.run.dir": "/tmp"},
        {"model._target_": "os.system"},
    ):
        assert running.post("/data/look", {"form": form}).status == 422
    assert running.post("/data/look", {"form": []}).status == 422
    assert running.get("/data?folder=nothing").status == 200
