"""Takes the pictures of docs/guides/board.md from a real board over real runs, which it trains first.

python -m docs.make_board_pictures                 (needs playwright and Chromium; takes five minutes on two cores)
python -m docs.make_board_pictures --look FOLDER   every page at three widths and in both languages, into that folder, to be looked at
--runs FOLDER takes the runs that an earlier call has trained there, and keeps them; without it they are trained and removed.
Chinese pages need a font of Chinese, such as Debian's fonts-wqy-microhei.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

DOCS = Path(__file__).resolve().parent
IMAGES = DOCS / "images"
REGIMEN = (sys.executable, "-m", "launcher")
DEMO = ("recipe=demo", "training.max_steps=60", "evaluation.interval=20", "checkpoint.interval=40")
SWEEP = ("-m", "recipe=demo", "training.max_steps=30", "evaluation.interval=10", "optim.lr=1e-4,5e-4", "training.micro_batch=4,100000")
LONG = ("recipe=demo", "training.max_steps=100000", "checkpoint.interval=1000")
TOO_LARGE = (("model", "llama3.1_8b"), ("data", "demo"), ("regime", "full"), ("node", "a100_80"))
WIDE, NARROW = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
PATIENCE = 600_000  # milliseconds
WIDTHS, LANGUAGES = (360, 1280, 3840), ("en-US", "zh-CN")


def train(folder: Path, site: dict[str, str]) -> None:
    """Two runs and a sweep, of which two points are refused."""
    for words in (DEMO, (*DEMO, "optim.lr=5e-4"), SWEEP):
        subprocess.run([*REGIMEN, "train", *words], cwd=folder, env=site, check=False, stdout=subprocess.DEVNULL)


@contextmanager
def queue_at_work(folder: Path, site: dict[str, str]) -> Iterator[None]:
    """A run of the queue, and one that waits for its end."""
    for _ in range(2):
        subprocess.run([*REGIMEN, "queue", "add", *LONG], cwd=folder, env=site, check=True, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        listed = subprocess.run([*REGIMEN, "queue", "--json"], cwd=folder, env=site, check=True, capture_output=True, text=True).stdout
        for entry in sorted(json.loads(listed), key=lambda entry: entry["state"] == "running"):  # none begins when the one before it ends
            ends = {"waiting": ("queue", "remove", str(entry["number"])), "running": ("stop", str(entry["run_folder"]))}
            if entry["state"] in ends:
                subprocess.run([*REGIMEN, *ends[entry["state"]]], cwd=folder, env=site, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def browser_at(folder: Path, site: dict[str, str]) -> Iterator[tuple[Any, str]]:
    """A browser, and the address of a board over the folder."""
    with subprocess.Popen([*REGIMEN, "board"], cwd=folder, env=site, stdout=subprocess.PIPE, text=True) as board:
        try:
            assert board.stdout is not None
            address = [board.stdout.readline().strip() for _ in range(2)][1]
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
                yield browser, address
                browser.close()
        finally:
            board.terminate()


class Page:
    """One page of the board, which goes from address to address."""

    def __init__(self, browser: Any, address: str, **how: Any) -> None:
        self.context = browser.new_context(**how)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.goto(address)
        self.page.wait_for_selector("table.runs")
        self.ids = self.page.eval_on_selector_all(".compared", "boxes => boxes.map(box => box.value)")

    def show(self, address: str, until: str) -> Any:
        self.page.evaluate("address => { location.hash = address }", address)
        self.page.wait_for_selector(until)
        return self.page

    def node(self) -> Any:
        """With ranks at work."""
        return self.show("#/node", "#now td:text-is('training')")

    def each(self) -> Iterator[str]:
        """The name of each page but that of the node, once it is shown."""
        finished = str(self.page.get_attribute("table.runs tr:has(.finished) th a", "href"))
        for name, address, until in (
            ("runs", "#/runs", "table.runs"),
            ("run", finished, "#charts .uplot"),
            *(
                (tab, f"{finished}/{tab}", f'main:has(.tabs a[href$="/{tab}"][aria-current]) #tab > *')
                for tab in ("memory", "samples", "plan", "checkpoints", "events")
            ),
            ("compare", f"#/compare?r={','.join(self.ids[-3:])}", "main:has(figure .uplot) #keys td"),
        ):
            self.show(address, until)
            self.page.wait_for_load_state("networkidle")
            yield name
        self.show("#/sweeps", "a[href^='#/sweeps/']").click("main a[href^='#/sweeps/']")
        self.page.wait_for_selector(".timeline")
        yield "sweep"
        self.show("#/data", "#look-at").click("[data-look=generated]")
        self.page.wait_for_selector("#report .preview")
        yield "data"
        self.show("#/new", "#permitted.finished")
        for group, choice in TOO_LARGE:
            self.page.select_option(f"#choice-{group}", choice)
        self.page.wait_for_selector("#proposals button")
        self.page.evaluate("scrollTo(0, 0)")
        yield "new"


def look_pages(browser: Any, address: str) -> Iterator[tuple[str, Page]]:
    """What stands at the end of a file's name, and a page."""
    for width in WIDTHS:
        for language in LANGUAGES:
            scheme = "dark" if width == WIDTHS[0] else "light"
            page = Page(browser, address, viewport={"width": width, "height": 1000}, locale=language, color_scheme=scheme)
            yield f"{width}_{language}", page
            page.context.close()


def take(folder: Path, site: dict[str, str], looked: Path | None) -> None:
    """The page of the node beside a run of the queue, the others after its end: it takes the time of the browser."""
    with browser_at(folder, site) as (browser, address):
        with queue_at_work(folder, site):
            if looked is None:
                Page(browser, address, viewport=WIDE, locale="en-US").node().screenshot(path=IMAGES / "board_node.png")
            else:
                looked.mkdir(parents=True, exist_ok=True)
                for end, page in look_pages(browser, address):
                    page.node().screenshot(path=looked / f"node_{end}.png", full_page=True)
        if looked is None:
            pictures(browser, address)
        else:
            for end, page in look_pages(browser, address):
                for name in page.each():
                    page.page.screenshot(path=looked / f"{name}_{end}.png", full_page=True)


def pictures(browser: Any, address: str) -> None:
    page = Page(browser, address, viewport=WIDE, locale="en-US")
    for name in page.each():
        if name in ("run", "new", "compare", "sweep", "data"):
            page.page.screenshot(path=IMAGES / f"board_{name}.png")
    page = Page(browser, address, viewport=NARROW, locale="zh-CN", color_scheme="dark")
    page.show(str(page.page.get_attribute("table.runs tr:has(.finished) th a", "href")), "#charts .uplot").screenshot(
        path=IMAGES / "board_narrow.png"
    )


def make(folder: Path, looked: Path | None) -> None:
    where = {"XDG_RUNTIME_DIR": f"{folder}/.runtime", "XDG_STATE_HOME": f"{folder}/.state", "PYTHONPATH": str(DOCS.parent), "OMP_NUM_THREADS": "1"}
    site = {key: value for key, value in os.environ.items() if key != "SSH_CONNECTION"} | where
    if not (folder / "outputs").is_dir():
        train(folder, site)
    take(folder, site, looked)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--look", type=Path)
    parser.add_argument("--runs", type=Path)
    given = parser.parse_args()
    if given.runs is not None:
        given.runs.mkdir(parents=True, exist_ok=True)
        make(given.runs, given.look)
    else:
        with tempfile.TemporaryDirectory(prefix="fine-tuning-") as name:
            make(Path(name), given.look)
