"""The frame around every verb: exit code and message of each kind of end."""

import errno
import json
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from conf.request import Chat, Sampling, Trained, load_chat, save_request
from conf.run_dir import RunDir, save_run
from conf.schema import Run
from tests.described import described
from trainers.errors import DataError
from trainers.ranks.causes import cause_of
from trainers.verbs.frame import naming_the_target, perform

REQUEST = Chat(Trained("/run", "/run/model", None), None, Sampling(1, 0.0, 1.0, 0))
FULL = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")  # recorded on a full tmpfs, safetensors 0.8.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    run_dir = RunDir(tmp_path)
    save_run(described("model=demo", "data=demo", "node=cpu"), run_dir)
    save_request(REQUEST, tmp_path)
    monkeypatch.setattr(sys, "argv", ["chat", str(tmp_path)])
    return run_dir


def test_a_verb_is_given_the_run_and_what_is_asked(folder: RunDir) -> None:
    seen: list[object] = []
    assert perform(load_chat, lambda run, request: seen.extend([run.model.name, request])) == 0
    assert seen == ["demo", REQUEST]
    assert not folder.exits.exists()


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DataError("row 3 is broken"), 4, "row 3 is broken"),
        (FULL, 74, "--to"),
        (OSError(errno.ENOSPC, "No space left on device"), 74, "--to"),
        (MemoryError(), 80, "Lower --batch"),
        (RuntimeError("unexpected"), 1, "RuntimeError: unexpected"),
    ],
)
def test_each_kind_of_end_has_its_code_and_message(
    folder: RunDir, error: Exception, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(run: Run, request: Chat) -> None:
        raise error

    assert perform(load_chat, work) == code
    entry = json.loads(folder.exit_file(0).read_text())
    assert entry["code"] == code
    assert message in entry["message"]
    assert ("Traceback" in capsys.readouterr().err) == (code == 1)  # a bug shows where it is


def test_ctrl_c_is_no_failure_with_a_message(folder: RunDir) -> None:
    def work(run: Run, request: Chat) -> None:
        raise KeyboardInterrupt

    assert perform(load_chat, work) == 130
    assert not folder.exits.exists()


def test_a_place_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ValueError, match=r"file/x cannot be created: Not a directory\. Name another place with --to"),
        naming_the_target(tmp_path / "file" / "x"),
    ):
        (tmp_path / "file" / "x").mkdir()


def test_a_full_disk_is_told_whoever_wrote() -> None:
    assert cause_of(FULL)[0] == 74
    assert cause_of(SafetensorError("header too small"))[0] == 1
