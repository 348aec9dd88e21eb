"""Run folders with damaged files: every verb says what it can, and none of them is a bug of regimen. One bad folder hides no other run."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from conf import journal
from conf.exit_codes import BUG
from conf.run_dir import RunDir
from launcher.cli import main
from launcher.gate.judge import judge_recorded
from launcher.launch import execute, lock
from launcher.launch.plan import plan_for
from tests.described import composed

FOLDERS = 300  # read by `regimen status`
EVERY_VERB = 40  # of these, each with every verb that reads a run folder

TEXTS = ["", "\n", "{", "[]", "null", "5", '"text"', "{}", '{"time": "never", "event": 3}', '{"step": "one"}', "[" * 50_000, "\x00" * 20, "a: [b"]


def whole_folder(path: Path) -> RunDir:
    """A run that was started, trained two steps and failed, with every file that a verb of the launcher reads."""
    run_dir = RunDir(path)
    run_dir.path.mkdir(parents=True)
    execute.write_plan(plan_for(judge_recorded(composed("model=demo", "data=demo", "node=cpu")), run_dir), {})
    journal.record(run_dir, journal.Started("here", argv=("python",)))
    run_dir.progress.write_text("".join(json.dumps({"step": step, "of": 9, "time": 5.0, "loss": 2.5, "eta_seconds": 3.0}) + "\n" for step in (1, 2)))
    run_dir.doing.write_text('{"time": 5.0, "doing": "training"}\n')
    run_dir.exit_file(0).write_text('{"rank": 0, "code": 80, "message": "said", "time": 6.0}')
    run_dir.layout_file(0).write_text('{"rank": 0}')
    run_dir.memory.write_text('{"sentence": "met.", "predicted": null}')
    run_dir.samples.write_text('[{"when": "before", "prompt": "p", "answer": "a"}]')
    dead = replace(lock.this_process(), pid=2**22)  # no kernel gives that number
    run_dir.lock.write_text(json.dumps(asdict(dead)))
    run_dir.stop.write_text("stop\n")
    journal.record(run_dir, journal.Ended(80, "said"))
    return run_dir


def damages(rng: random.Random) -> Callable[[Path], None]:
    """One way to damage a file."""

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size + 1)])

    def flip(path: Path) -> None:
        text = bytearray(path.read_bytes())
        for _ in range(rng.choice([1, 3, 30])):
            text[rng.randrange(len(text))] = rng.randrange(256)
        path.write_bytes(bytes(text))

    def other(path: Path) -> None:
        path.write_text(rng.choice(TEXTS))

    def insert(path: Path) -> None:
        lines = path.read_text(encoding="latin-1").splitlines()  # a run folder also holds bytes that are no text
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(TEXTS))
        path.write_text("\n".join(lines) + "\n", encoding="latin-1")

    def remove(path: Path) -> None:
        path.unlink()

    def folder(path: Path) -> None:
        path.unlink()
        path.mkdir()

    def value(path: Path) -> None:
        """Another value in the place of one: a file of the right form that says the wrong kind of thing."""
        text = path.read_text(encoding="latin-1")
        old = rng.choice(
            [part for part in ('"end"', "80", "5.0", '"said"', "null", "2.5", "true", "demo", '"aa"', "1") if part in text] or [text[:1]]
        )
        path.write_text(
            text.replace(old, rng.choice(["[]", "{}", "null", '"x"', "-1", "1e999", "NaN", "99999999999999999999999"])), encoding="latin-1"
        )

    return rng.choice([cut, flip, other, insert, remove, folder, value])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("outputs")
    whole = whole_folder(root / "whole" / "0")
    for number in range(FOLDERS):
        rng = random.Random(number)
        copy = root / "damaged" / str(number)
        shutil.copytree(whole.path, copy)
        files = [path for path in sorted(copy.rglob("*")) if path.is_file() and path.stat().st_size]
        for path in rng.sample(files, rng.choice([1, 1, 2, 4])):
            damages(rng)(path)
    return root


def verdict(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main([*words])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_every_run_is_listed_beside_damaged_ones(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = verdict("status", "--output", str(folders), "--json", capsys=capsys)
    assert code == 0, said
    listed = {Path(entry["run_folder"]): entry for entry in json.loads(said)}
    there = [path.parent for path in folders.glob("*/*/run.yaml")]
    assert sorted(listed) == sorted(there)
    assert listed[folders / "whole" / "0"]["state"] == "failed"
    assert listed[folders / "whole" / "0"]["damaged"] == ""
    assert verdict("status", "--output", str(folders), capsys=capsys)[0] == 0


def test_each_run_can_be_asked_for_alone(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bugs = []
    for path in sorted((folders / "damaged").iterdir()):
        code, said = verdict("status", str(path), capsys=capsys)
        if code == BUG or "Traceback" in said:
            bugs.append((path.name, said[-300:]))
    assert bugs == []


@pytest.mark.parametrize("verb", [["train", "--dry-run"], ["stop"], ["export"], ["memory", "report"], ["clean"]], ids=" ".join)
def test_no_verb_takes_damage_for_a_bug(verb: list[str], folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bugs = []
    for number in range(EVERY_VERB):
        path = folders / "damaged" / str(number)
        code, said = verdict(*verb, f"resume={path}" if verb[0] == "train" else str(path), capsys=capsys)
        if code == BUG or "Traceback" in said:
            bugs.append((number, said[-300:]))
    assert bugs == []
