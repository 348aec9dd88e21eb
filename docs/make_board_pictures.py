"""Takes the pictures of docs/board.md from a real board over real runs, which it trains first.

python -m docs.make_board_pictures     (needs playwright and Chromium; takes two minutes on two cores)
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

DOCS = Path(__file__).resolve().parent
IMAGES = DOCS / "images"
REGIMEN = (sys.executable, "-m", "launcher")
DEMO = ("recipe=demo", "training.max_steps=120", "evaluation.interval=20", "checkpoint.interval=40")
TOO_LARGE = (("model", "llama3.1_8b"), ("data", "demo"), ("regime", "full"), ("node", "a100_80"))
WIDE, NARROW = {"width": 1280, "height": 860}, {"width": 390, "height": 844}


def take(folder: Path, site: dict[str, str]) -> None:
    for more in ((), ("optim.lr=5e-4",)):
        subprocess.run([*REGIMEN, "train", *DEMO, *more], cwd=folder, env=site, check=True, stdout=subprocess.DEVNULL)
    with subprocess.Popen([*REGIMEN, "board"], cwd=folder, env=site, stdout=subprocess.PIPE, text=True) as board:
        try:
            assert board.stdout is not None
            address = [board.stdout.readline().strip() for _ in range(2)][1]
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
                pictures(browser, address)
                browser.close()
        finally:
            board.terminate()


def pictures(browser: Any, address: str) -> None:
    page = opened(browser, address, viewport=WIDE, locale="en-US")
    page.click("table.runs th a")
    page.wait_for_selector("#charts .uplot")
    page.screenshot(path=IMAGES / "board_run.png")
    page.evaluate("location.hash = '#/new'")
    page.wait_for_selector("#permitted.finished")
    for group, choice in TOO_LARGE:
        page.select_option(f"#choice-{group}", choice)
    page.wait_for_selector("#proposals button")
    page.screenshot(path=IMAGES / "board_new.png")
    page = opened(browser, address, viewport=NARROW, locale="zh-CN", color_scheme="dark")
    page.click("table.runs th a")
    page.wait_for_selector("#charts .uplot")
    page.screenshot(path=IMAGES / "board_narrow.png")


def opened(browser: Any, address: str, **how: Any) -> Any:
    page = browser.new_context(**how).new_page()
    page.goto(address)
    page.wait_for_selector("table.runs")
    return page


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="fine-tuning-") as name:
        where = {"XDG_RUNTIME_DIR": f"{name}/.runtime", "XDG_STATE_HOME": f"{name}/.state", "PYTHONPATH": str(DOCS.parent), "OMP_NUM_THREADS": "1"}
        take(Path(name), {key: value for key, value in os.environ.items() if key != "SSH_CONNECTION"} | where)
