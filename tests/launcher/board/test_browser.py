"""The pages in a real Chromium, where one is installed: nothing foreign is asked for, nothing hostile runs, all of it by keyboard too."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conf import journal
from conf.run_dir import RunDir, save_run
from launcher.board.index import id_of
from tests.boards import Running, board
from tests.described import described
from tests.payloads import HOSTILE
from tests.waiting import PATIENCE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.browser
MILLISECONDS = PATIENCE * 1000
MORE = ((360, "en-US"), (1280, "zh-CN"), (3840, "en-US"), (3840, "zh-CN"))
PAYLOAD = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("work")
    for number in range(3):
        run_dir = RunDir(place / "outputs" / ("demo" if number else PAYLOAD) / f"2026-11-2{number}_10-00-00")
        run_dir.logs.mkdir(parents=True)
        save_run(described("model=demo", "data=demo", "node=cpu", "optim.lr=3e-4", f"training.seed={number}"), run_dir)
        journal.record(run_dir, journal.Started("here"))
        steps = [
            {"step": step, "of": 30, "loss": 5.0 / step, "lr": 1e-4, "tokens_per_second": 5000.0, "time": 1e9 + 60 * step} for step in range(1, 31)
        ]
        steps[15]["resumed_from"] = 15
        run_dir.progress.write_text("".join(json.dumps(step) + "\n" for step in steps))
        run_dir.rank_log(0).write_text(PAYLOAD + "x" * 500)
        journal.record(run_dir, journal.Ended(6 if number else 0, PAYLOAD))
    write_sweep(place)
    return place


def write_sweep(place: Path) -> None:
    """A sweep of three of the runs, and a point that was refused."""
    sweep = place / "outputs" / "sweeps" / "2026-11-23_10-00-00"
    sweep.mkdir(parents=True)
    lines: list[dict[str, Any]] = [{"time": 1e9, "event": "sweep", "overrides": [PAYLOAD], "config_dirs": [], "working_folder": str(place)}]
    for number, folder in enumerate(sorted((place / "outputs").glob("*/2026-11-2?_10-00-00/run.yaml")), start=1):
        about = {"point": number, "overrides": [PAYLOAD], "varied": [f"training.seed={number}"], "fingerprint": str(number)}
        lines.append({"time": 1e9 + number, "event": "started", **about, "run_folder": str(folder.parent), "gpus": ["0"]})
        ended = {"objective": 1.0 / number, "measure": "loss", "run_folder": str(folder.parent), "seconds": 60.0}
        lines.append({"time": 1e9 + 60 * number, "event": "finished", **about, **ended})
    refused = {"point": 9, "overrides": [PAYLOAD], "varied": [PAYLOAD], "fits": ["regime=lora"], "cause": PAYLOAD, "refusal": 3}
    lines.append({"time": 1e9 + 500, "event": "refused", **refused})
    (sweep / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One for all tests of this file."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Page:
    """A page of the board, and what went wrong on it."""

    def __init__(self, browser: Any, running: Running, **how: Any) -> None:
        self.context = browser.new_context(**how)
        self.page, self.running, self.faults = self.context.new_page(), running, list[str]()
        self.page.set_default_timeout(MILLISECONDS)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda message: self.faults.append(message.text) if message.type == "error" else None)
        self.page.on("dialog", lambda dialog: (self.faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: None if request.url.startswith((running.address, "data:")) else self.faults.append(request.url))
        self.page.goto(f"{running.address}/#token={running.token}")
        self.page.wait_for_selector("table.runs")

    def show(self, address: str, until: str) -> Any:
        self.page.evaluate("address => { location.hash = address }", address)
        return self.page.wait_for_selector(until)

    def barriers(self) -> list[str]:
        """What axe-core finds on the page that would keep somebody from using it: rule, and the first place."""
        axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
        found = axe.Axe().run(self.page).response["violations"]
        return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in ("serious", "critical")]

    def wider_than_the_window(self) -> bool:
        return bool(self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))


@pytest.fixture
def opened(browser: Any, running: Running) -> Iterator[Page]:
    page = Page(browser, running, viewport={"width": 1280, "height": 900}, locale="en-US")
    yield page
    page.context.close()
    assert page.faults == []


def test_the_token_leaves_the_address_and_a_reload_shows_the_same(opened: Page) -> None:
    assert opened.running.token not in opened.page.url
    assert opened.page.evaluate("document.cookie") == ""
    opened.show("#/new", "#permitted.finished")
    opened.page.reload()
    opened.page.wait_for_selector("#permitted.finished")
    assert opened.page.url.endswith("#/new")


def test_without_the_token_the_page_asks_for_it_and_shows_nothing_else(browser: Any, running: Running) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(running.address)
    page.wait_for_selector("#unlock")
    assert "demo/2026" not in page.content()
    page.fill("#unlock input", f"{running.address}/#token={running.token}")
    page.press("#unlock input", "Enter")
    page.wait_for_selector("table.runs")
    context.close()


def test_runs_are_opened_and_told_by_keyboard(opened: Page) -> None:
    page = opened.page
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector("#charts .uplot")
    assert page.inner_text("h1").startswith("demo/")
    assert page.inner_text("#head .state") == "failed"
    page.focus("#do-delete")
    page.keyboard.press("Enter")
    assert page.inner_text("#ask-command").startswith("regimen clean --yes /")
    page.keyboard.press("Escape")
    assert page.is_hidden("#ask")


def test_what_runs_hold_is_shown_as_text(opened: Page) -> None:
    page = opened.page
    page.wait_for_selector(f"text={PAYLOAD}/")
    page.click(f"text={PAYLOAD}/")
    page.wait_for_selector("#charts .uplot")
    for tab in ("log", "events", "plan", "memory", "checkpoints"):
        page.click(f'.tabs a[href$="/{tab}"]')
        page.wait_for_selector(f'.tabs a[href$="/{tab}"][aria-current]')
        page.wait_for_selector("#tab > *")
    page.click('.tabs a[href$="/log"]')
    page.wait_for_selector("pre.log")
    assert PAYLOAD in page.inner_text("pre.log")


def test_a_hundred_hostile_texts_of_a_run_and_its_log_run_nothing(opened: Page, folder: Path) -> None:
    """As names of measures, in the log, in what the search of it finds, in answers, events, the configuration and the plan."""
    run_dir = RunDir(folder / "outputs" / HOSTILE[0].replace("/", "") / "2026-11-27_10-00-00")
    run_dir.logs.mkdir(parents=True)
    save_run(described("model=demo", "data=demo", "node=cpu"), run_dir)
    run_dir.run_yaml.write_text(run_dir.run_yaml.read_text() + "".join(f"# {text}\n" for text in HOSTILE))
    run_dir.progress.write_text("".join(json.dumps({"step": step, "of": 2, **dict.fromkeys(HOSTILE, 1.0)}) + "\n" for step in (1, 2)))
    run_dir.rank_log(0).write_text("".join(f"{text} found\n" for text in HOSTILE))
    run_dir.samples.write_text(json.dumps([{"when": "after", "prompt": text, "answer": text} for text in HOSTILE]))
    run_dir.plan.write_text(json.dumps({"argv": HOSTILE, "environment": dict(zip(HOSTILE, HOSTILE, strict=True))}))
    for text in HOSTILE:
        journal.record(run_dir, journal.Ended(6, text))
    identity = f"#/runs/{id_of(RunDir(run_dir.path.absolute()))}"
    try:
        opened.show(identity, "#charts .uplot")
        assert opened.page.locator("#charts figure").count() == len(HOSTILE)
        for tab, place in (("log", "pre.log"), ("samples", "#tab pre"), ("events", "#tab"), ("plan", "#tab")):
            opened.show(f"{identity}/{tab}", f'.tabs a[href$="/{tab}"][aria-current]')
            opened.page.wait_for_selector(f"{place} >> text=evil.example")
            assert opened.page.locator("#tab script, #tab iframe, #tab img, #tab object, #tab base, #tab [hx-on\\:load]").count() == 0
        opened.show(f"{identity}/log", "#tab input[name=words]")
        opened.page.fill("#tab input[name=words]", "found")
        opened.page.press("#tab input[name=words]", "Enter")
        opened.page.wait_for_selector(f"#found .log-line:nth-child({len(HOSTILE)})")
        assert HOSTILE[0] in opened.page.inner_text("#found")
        opened.show("#/runs", "table.runs")
    finally:
        shutil.rmtree(run_dir.path.parent)


def rows_below_first_curve(page: Any) -> int:
    page.wait_for_selector("figure details td")
    found: int = page.eval_on_selector_all("figure:first-of-type details tbody tr", "rows => rows.length")
    return found


def test_a_curve_has_a_table_of_its_values(opened: Page) -> None:
    page = opened.page
    page.click("table.runs th a")
    page.wait_for_selector("#charts .uplot")
    page.click("figure details summary")
    assert rows_below_first_curve(page) == 30


def test_a_smoothed_curve_is_drawn_over_its_values(opened: Page) -> None:
    page = opened.page
    page.click("table.runs th a")
    page.wait_for_selector("#charts .uplot")
    assert page.locator("figure:first-of-type .u-series").count() == 2  # the steps, and the values
    page.select_option("#smoothing", "0.9")
    page.wait_for_selector("figure:first-of-type .u-series:nth-child(3)")
    assert "in training, smoothed" in page.inner_text("figure:first-of-type .u-legend")
    assert page.inner_text("#restarts") == "Went on from the checkpoint of step (dotted line): 15"
    for axis, named, last in (("time", "time since the first logged step", "00:29:00"), ("tokens", "tokens (rate × time)", "9M")):
        page.focus("#over")
        page.keyboard.press("ArrowDown")
        page.wait_for_selector(f'figure:first-of-type .u-legend >> text="{named}"')
        assert page.input_value("#over") == axis
        box = page.locator("figure:first-of-type .u-over").bounding_box()
        page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 5)
        page.wait_for_function("last => document.querySelector('figure .u-legend .u-value').textContent === last", arg=last)
    page.click("figure details summary")
    assert rows_below_first_curve(page) == 30


def test_a_log_is_searched_and_shown_around_what_was_found(opened: Page) -> None:
    page = opened.page
    page.click(f"text={PAYLOAD}/")
    page.click('.tabs a[href$="/log"]')
    page.fill("#tab input[name=words]", "ONERROR")
    page.click("#tab form button")
    page.wait_for_selector("#found .log-line code")
    assert PAYLOAD in page.inner_text("#found code")
    page.click("#found .log-line button")
    page.wait_for_selector("text=What stands around byte")
    assert page.inner_text("#found") == ""
    assert PAYLOAD in page.inner_text("pre.log")


def test_what_the_model_says_is_shown_on_the_page(opened: Page, folder: Path) -> None:
    """The folder of this model is empty, which is what the command says."""
    [run_dir] = [RunDir(path) for path in (folder / "outputs" / "demo").glob("2026-11-21*")]
    run_dir.model.mkdir()
    try:
        opened.show(f"#/runs/{id_of(RunDir(run_dir.path.absolute()))}/samples", "#chat-lines")
        opened.page.fill("#chat-lines", "2 + 2")
        opened.page.click("[data-chat] button")
        opened.page.wait_for_selector("#chat-answers >> text=exit code")
        assert "regimen: " in opened.page.inner_text("#chat-answers")
    finally:
        run_dir.model.rmdir()


def test_a_change_is_judged_and_what_would_fit_is_taken_into_the_form(opened: Page) -> None:
    page = opened.page
    opened.show("#/new", "#permitted.finished")
    for group, choice in (("model", "llama3.1_8b"), ("data", "demo"), ("regime", "full"), ("node", "a100_80")):
        page.select_option(f"#choice-{group}", choice)
    page.wait_for_selector("#permitted.failed")
    page.wait_for_selector("#proposals button")
    assert page.is_disabled("#start")
    assert "REFUSED" in page.inner_text("#plan")
    page.click("#proposals button")
    page.wait_for_selector("#permitted.finished")
    assert "verdict: permitted" in page.inner_text("#plan")
    assert page.is_enabled("#start")


def test_the_command_is_shown_in_three_forms(opened: Page) -> None:
    page = opened.page
    opened.show("#/new", "#permitted.finished")
    assert page.inner_text("#command").startswith("regimen train --detach")
    page.check("[name=command-form][value=processes]")
    assert "torch.distributed.run" in page.inner_text("#command")
    page.check("[name=command-form][value=script]")
    assert "cluster=slurm" in page.inner_text("#command")
    page.select_option("#choice-node", "a100_80")
    page.select_option("#choice-cluster", "slurm")
    page.wait_for_function("() => document.querySelector('#command').textContent.startsWith('#!/bin/bash')")
    page.check("[name=command-form][value=command]")
    assert "cluster=slurm" in page.inner_text("#command")


def test_a_mistyped_value_is_named_and_marked(opened: Page) -> None:
    page = opened.page
    opened.show("#/new", "#permitted.finished")
    page.fill("#find", "optim.lr")
    page.fill("[id='key-optim.lr']", "fast")
    page.wait_for_selector("#permitted.dead")
    assert "optim.lr" in page.inner_text("#form-error")
    assert page.get_attribute("[id='key-optim.lr']", "aria-invalid") == "true"
    page.fill("[id='key-optim.lr']", "")
    page.wait_for_selector("#permitted.finished")


def test_a_new_run_like_an_earlier_one_has_its_values(opened: Page) -> None:
    page = opened.page
    page.click("table.runs th a")
    page.wait_for_selector("#like")
    page.click("#like")
    page.wait_for_selector("#permitted.finished")
    assert page.input_value("[id='key-optim.lr']") == "0.0003"
    with page.expect_download() as download:
        page.click("#save")
    assert "optim.lr: 0.0003" in Path(download.value.path()).read_text()


@pytest.mark.parametrize(("width", "language"), [(360, "zh-CN"), (1280, "en-US"), *(pytest.param(*case, marks=pytest.mark.long) for case in MORE)])
def test_every_page_fits_a_window_and_is_open_to_everybody_in_each_language(browser: Any, running: Running, width: int, language: str) -> None:
    theme = "dark" if width == 360 else "light"
    opened = Page(browser, running, viewport={"width": width, "height": 800}, locale=language, color_scheme=theme)
    identity = str(opened.page.get_attribute("table.runs th a", "href"))
    run_ids = ",".join(opened.page.eval_on_selector_all(".compared", "boxes => boxes.map(box => box.value)"))
    for address, until in (
        ("#/runs", "table.runs"),
        (identity, "#charts .uplot"),
        (f"{identity}/plan", "#tab h2"),
        (f"{identity}/log", "pre.log"),
        (f"{identity}/events", "#tab table"),
        ("#/new", "#permitted.finished"),
        ("#/sweeps", "table.runs a[href^='#/sweeps/']"),
        ("SWEEP", ".timeline"),
        (f"#/compare?r={run_ids}", "figure .uplot"),
        ("#/node", "#now h2"),
        ("#/data", "#look-at"),
    ):
        here = str(opened.page.get_attribute("a[href^='#/sweeps/']", "href")) if address == "SWEEP" else address
        opened.show(here, until)
        assert not opened.wider_than_the_window(), address
        assert opened.barriers() == [], address
    assert opened.page.get_attribute("html", "lang") == language[:2]
    opened.page.click("#language")
    opened.page.wait_for_selector(f"html:not([lang={language[:2]}])")
    opened.context.close()
    assert opened.faults == []


def test_a_page_goes_on_when_the_board_comes_back(browser: Any, folder: Path) -> None:
    with board(folder) as first:
        opened = Page(browser, first)
        first.process.kill()
        first.process.wait()
        opened.page.wait_for_selector("#lost:not([hidden])")
    with board(folder, "--port", str(first.port)) as second:
        assert second.token == first.token
        opened.page.wait_for_selector("#lost[hidden]", state="attached")
        opened.page.wait_for_selector("table.runs")
    opened.context.close()


def test_runs_are_chosen_and_compared(opened: Page) -> None:
    page = opened.page
    page.check("table.runs tr:nth-child(1) .compared")
    assert page.is_hidden("#chosen a")
    page.check("table.runs tr:nth-child(2) .compared")
    page.click("#chosen a")
    page.wait_for_selector("figure .uplot")
    assert page.eval_on_selector_all("main table.stacked tbody tr", "rows => rows.length") == 2
    page.wait_for_selector("text=training.seed")
    page.click("figure:first-of-type details summary")
    assert rows_below_first_curve(page) == 60


def test_a_cell_of_the_matrix_is_taken_into_the_form(opened: Page) -> None:
    page = opened.page
    opened.show("#/new", "#permitted.finished")
    for group, choice in (("model", "llama3.1_8b"), ("data", "demo"), ("node", "a100_80")):
        page.select_option(f"#choice-{group}", choice)
    page.click("#matrix summary")
    page.wait_for_selector("#matrix button[aria-label^='full, mixed precision, ddp'].failed")
    page.click("#matrix button[aria-label^='lora, zero3']")
    page.wait_for_selector(".is-changed #choice-sharding")
    assert page.input_value("#choice-sharding") == "zero3"
    page.wait_for_selector("#permitted.finished")


def test_the_data_of_a_form_is_shown_as_it_would_be_learned(opened: Page) -> None:
    page = opened.page
    opened.show("#/new", "#permitted.finished")
    page.click("#look")
    page.wait_for_selector("#report .preview mark")
    assert page.inner_text("#report .preview mark").startswith("⟦")
    assert page.inner_text("#report > pre").startswith("regimen data validate --json")


def test_a_sweep_is_read_by_keyboard_and_stays_open_while_it_is_drawn_anew(opened: Page) -> None:
    page = opened.page
    opened.show("#/sweeps", "table.runs a[href^='#/sweeps/']")
    page.focus("table.runs a[href^='#/sweeps/']")
    page.keyboard.press("Enter")
    page.wait_for_selector(".timeline rect")
    page.focus("#timeline-table summary")
    page.keyboard.press("Enter")
    with page.expect_response(lambda answer: answer.url.endswith("/now")):
        pass
    assert page.is_visible("#timeline-table td")
    assert PAYLOAD in page.inner_text("main")


def test_a_run_that_somebody_else_starts_appears_on_the_open_page(opened: Page, folder: Path) -> None:
    run_dir = RunDir(folder / "outputs" / "by hand" / "2026-11-25_10-00-00")
    run_dir.path.mkdir(parents=True)
    save_run(described("model=demo", "data=demo", "node=cpu"), run_dir)
    try:
        opened.page.wait_for_selector("text=by hand/2026-11-25_10-00-00")
    finally:
        shutil.rmtree(run_dir.path.parent)
    opened.page.wait_for_selector("text=by hand/2026-11-25_10-00-00", state="detached")


@pytest.mark.parametrize("cuts", [2, pytest.param(50, marks=pytest.mark.long)])
def test_a_cut_connection_leaves_neither_a_gap_nor_a_double_in_the_curve(browser: Any, running: Running, folder: Path, cuts: int) -> None:
    run_dir = RunDir(folder / "outputs" / "cut" / "2026-11-26_10-00-00")
    run_dir.path.mkdir(parents=True)
    save_run(described("model=demo", "data=demo", "node=cpu"), run_dir)
    opened = Page(browser, running)
    opened.page.wait_for_selector("text=cut/2026-11-26_10-00-00")
    opened.page.click("text=cut/2026-11-26_10-00-00")
    opened.page.wait_for_selector("#no-progress")
    for cut in range(1, cuts + 1):
        opened.context.set_offline(True)
        opened.page.wait_for_selector("#lost:not([hidden])")
        with run_dir.progress.open("a") as file:
            file.write(json.dumps({"step": cut, "of": cuts, "loss": 1.0 / cut}) + "\n")
        opened.context.set_offline(False)
        opened.page.wait_for_selector("#lost[hidden]", state="attached")
    opened.page.wait_for_selector("figure details summary")
    opened.page.click("figure details summary")
    opened.page.wait_for_selector(f"figure details tbody tr:nth-child({cuts})")
    steps = opened.page.eval_on_selector_all("figure details tbody tr", "rows => rows.map(row => Number(row.cells[0].textContent))")
    assert steps == list(range(1, cuts + 1))
    opened.context.close()
    shutil.rmtree(run_dir.path.parent)


@pytest.mark.long
def test_over_a_slow_line_the_pages_are_there(browser: Any, running: Running) -> None:
    """200 ms to the board and back, 1 Mbit/s."""
    opened = Page(browser, running)
    line = opened.context.new_cdp_session(opened.page)
    line.send("Network.emulateNetworkConditions", {"offline": False, "latency": 200, "downloadThroughput": 125_000, "uploadThroughput": 125_000})
    opened.page.reload()
    opened.page.wait_for_selector("table.runs")
    opened.show("#/new", "#permitted.finished")
    opened.context.close()
    assert opened.faults == []
