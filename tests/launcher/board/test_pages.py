"""Texts, templates and the libraries of the pages."""

import ast
import hashlib
import json
import re
from pathlib import Path

from launcher.board import actions, new, node, pages, runs, sweeps, views
from launcher.board.app import SERVED, STATIC
from launcher.board.axes import AXES
from launcher.launch.status import ACTIVE, END_STATES
from launcher.queue.entries import OVER
from launcher.sweep import table

TEMPLATES = pages.FOLDER / "templates"
OWN = ("app.js", "chart.js", "data.js", "form.js", "matrix.js")
TEXT_KEY = re.compile(r"""\b(?:t|say)\(["'](\w+)["']\)""")


def test_every_text_is_there_in_every_language() -> None:
    for key, said in pages.texts().items():
        assert set(said) == set(pages.LANGUAGES), key
        assert all(isinstance(text, str) and text.strip() for text in said.values()), key


def test_every_text_that_a_page_asks_for_is_there_and_no_other() -> None:
    sources = [*TEMPLATES.glob("*.j2"), *(STATIC / name for name in SERVED if name in OWN)]
    asked = {key for path in sources for key in TEXT_KEY.findall(path.read_text(encoding="utf-8"))}
    of_runs = (*ACTIVE, *END_STATES.values(), "failed", "dead", "unknown")
    states = {f"state_{state.replace(' ', '_')}" for state in (*of_runs, *OVER, "waiting", *table.STATES, "ended", "unfinished")}
    words = {*actions.ACTIONS, *node.QUEUE_ACTIONS, *sweeps.SWEEP_ACTIONS, *views.MEMORY_ROWS, "training_sets", "evaluation_sets"}
    axes = {f"over_{axis}" for axis in AXES}
    named = {*states, *words, *axes, *(f"tab_{tab}" for tab in runs.TABS), *(f"form_{form}" for form in new.COMMAND_FORMS)}
    assert asked | named == set(pages.texts())


def test_the_language_is_the_first_one_that_the_browser_names() -> None:
    assert [pages.language_of(text) for text in ("zh-CN,zh;q=0.9,en;q=0.8", "en-US,zh", "de,zh;q=0.3", "", "fr")] == ["zh", "en", "zh", "en", "en"]


def test_a_secret_is_masked_before_it_is_escaped() -> None:
    page = pages.rendered("odd.html.j2", "en", {"odd": "see https://x.example/?a=1&token=abcdefgh12345"})
    assert "abcdefgh" not in page


def test_the_vendored_files_are_those_that_were_noted() -> None:
    notes = json.loads((STATIC / "vendored.json").read_text())
    assert {(note["package"], note["license"]) for note in notes} == {("htmx.org", "0BSD"), ("uplot", "MIT")}
    files = {name: file["sha256"] for note in notes for name, file in note["files"].items()}
    assert files == {name: hashlib.sha256((STATIC / name).read_bytes()).hexdigest() for name in files}
    assert {path.name for path in STATIC.iterdir()} == {*files, *SERVED, "vendored.json"}


def test_no_page_names_another_host_and_no_script_or_style_stands_in_a_page() -> None:
    ours = [*TEMPLATES.glob("*.j2"), *(STATIC / name for name in OWN), STATIC / "style.css"]
    for path in ours:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?:https?:)?//[a-z]+\.[a-z]", text), path
        if path.suffix == ".j2":
            assert not re.search(r"<style|\sstyle=|\son\w+=|hx-on|javascript:|\|\s*safe", text), path
            assert all('src="static/' in script for script in re.findall(r"<script[^>]*>", text)), path


def test_nothing_of_the_board_writes_markup_by_hand() -> None:
    """What escapes is Jinja in templates and textContent in scripts."""
    scripts = "".join((STATIC / name).read_text() for name in OWN)
    assert not re.search(r"innerHTML\s*=|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", scripts)
    calls = {
        node.func.id
        for path in Path(pages.FOLDER).glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"Markup", "eval", "exec"}
