"""The lines of README and docs/guides/after_training.md after a training do what the page says, on a run as `make demo` leaves it.

They run as they stand, in the order of the page, in the folder above `outputs`. A user's own files are made here: my_questions.json and my_tasks.
What only the hub has is left out by two rules, as tests have no network: `--push OWNER/NAME` is taken off the line, and `evaluate` of tasks that
download their sets is parsed alone.
"""

import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from conf.run_dir import RunDir
from launcher.cli import main, parsed_arguments
from tests.in_process import run_verbs_here
from tests.page_commands import Command, commands

pytest.importorskip("lm_eval", reason="lm-eval is an extra")

PAGES = ("README.md", "docs/guides/after_training.md")
VERBS = ("export", "predict", "evaluate", "chat")
QUESTION = {"instruction": "What is 1 + 2?", "output": "1 + 2 = 3."}
TASK = {
    "task": "my_task",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_target": 0,
    "doc_to_choice": "{{choices}}",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}


def lines() -> list[Command]:
    """docs/guides/after_training.md first: README names fewer options of the same verbs."""
    found = [command for command in commands() if command.page in PAGES and command.words[:1] == ("regimen",) and command.words[1] in VERBS]
    return sorted((command for command in found if len(command.words) > 2 and "RUN" not in command.words), key=lambda one: one.page, reverse=True)


def offline(words: Sequence[str]) -> list[str] | None:
    """The line without what only the hub has; None: nothing of it is left."""
    if words[0] == "evaluate" and "--include" not in words:
        return None
    at = words.index("--push") if "--push" in words else len(words)
    return [*words[:at], *words[at + 2 :]]


@pytest.fixture
def folder(demo: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder above `outputs`, with the files that the lines call the user's own."""
    place = demo.path.parents[2]
    monkeypatch.chdir(place)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    run_verbs_here(monkeypatch)
    for made in (place / "my_data", place / "my_tasks"):
        made.mkdir()
    for questions in (place / "my_questions.json", place / "my_data" / "my_questions.json"):
        questions.write_text(json.dumps([QUESTION, {"instruction": "What is 2 + 2?", "output": "2 + 2 = 4."}]))
    asked = place / "my_tasks" / "asked.jsonl"
    asked.write_text(json.dumps({"question": QUESTION["instruction"], "choices": [QUESTION["output"], "Seven."]}) + "\n")
    (place / "my_tasks" / "my_task.yaml").write_text(yaml.safe_dump({**TASK, "dataset_kwargs": {"data_files": {"test": str(asked)}}}))
    return place


def made_by(act: Callable[[], int], folder: Path) -> tuple[int, set[str]]:
    """The exit code, and the files that are new."""
    before = files_in(folder)
    code = act()
    return code, files_in(folder) - before


def files_in(folder: Path) -> set[str]:
    return {os.path.relpath(path, folder) for path in folder.rglob("*") if path.is_file()}


# What each verb leaves, and what it prints. A chat leaves nothing but its answers.
LEFT = {"export": "model.safetensors", "predict": "scores.json", "evaluate": "final-my_task.json"}
SAID = {"export": "exported: ", "predict": "rouge1", "evaluate": "acc", "chat": ""}


def test_the_lines_after_a_training_do_what_the_pages_say(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    ran = []
    for command in lines():
        verb, *rest = command.words[1:]
        words = offline([verb, *rest])
        parsed_arguments([verb, *rest])
        if words is None:
            continue
        monkeypatch.setattr("sys.stdin", io.StringIO("What is 3 + 4?\n"))
        code, new = made_by(lambda words=words: main(words), folder)
        said = capfd.readouterr()
        assert code == 0, (command.name, said)
        assert "regimen: " not in said.err, command.name
        left = "adapter_model.safetensors" if "--adapter" in words else LEFT.get(verb)
        assert left is None or any(Path(file).name == left for file in new), (command.name, new)
        assert SAID[verb] in said.out, (command.name, said)
        assert said.out.strip(), command.name
        assert verb != "chat" or not new, (command.name, new)
        ran.append(verb)
    assert {verb: ran.count(verb) for verb in VERBS} == {"export": 4, "predict": 5, "evaluate": 1, "chat": 3}
    [run] = (folder / "outputs" / "demo").glob("2026*")
    assert (run / "exports" / "final-merged" / "model.safetensors").is_file()  # as the page says beside the first line
    assert (folder / "before" / "scores.json").is_file()
