"""The board as a browser and as an attacker meet it: a real process, real run folders, and requests of every kind."""

import hashlib
import html
import json
import os
import re
import shlex
import socket
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from conf import journal
from conf.committed import Manifest, sealed
from conf.run_dir import RunDir, save_run
from launcher.board import files, searching
from launcher.board.app import ACTS, OPEN, READS, SERVED
from launcher.board.index import id_of
from launcher.launch import lock
from tests.boards import Running, board, call_beside, without_free_disk
from tests.described import described

SECRET = "hf_" + "a1B2" * 9
OUTSIDE = "what only the owner of another folder may read"
PAYLOADS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "'><a href=javascript:alert(1)>x</a>",
    "{{ 7 * 7 }}{% raw %}",
    "</pre><iframe src=//evil.example>",
    "<b hx-get=/runs hx-trigger=load>",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a run that has failed, with everything hostile that a run folder can hold beside it."""
    place = tmp_path_factory.mktemp("work")
    (place / "outside.txt").write_text(OUTSIDE)
    run_dir = RunDir(place / "outputs" / "demo" / "2026-11-22_10-00-00")
    run_dir.logs.mkdir(parents=True)
    save_run(described("model=demo", "data=demo", "node=cpu"), run_dir)
    journal.record(run_dir, journal.Started("here"))
    run_dir.progress.write_text("".join(json.dumps({"step": step, "of": 9, "loss": 1.0 / step, "eval_loss": 2.0}) + "\n" for step in (1, 2, 3)))
    run_dir.rank_log(0).write_text("\x1b[31mred\x1b[0m \x07 " + "\n".join(PAYLOADS) + f"\ntoken {SECRET}\n")
    (run_dir.logs / "linked.txt").symlink_to(place / "outside.txt")
    journal.record(run_dir, journal.Ended(6, PAYLOADS[0]))
    return place


@pytest.fixture
def run_id(folder: Path) -> str:
    return id_of(RunDir(folder / "outputs" / "demo" / "2026-11-22_10-00-00"))


def paths(run_id: str) -> list[tuple[str, str]]:
    """Every route but the open ones, with a method that it takes."""
    filled = [("GET", path) for path in READS] + [("POST", path) for path in ACTS]
    for name, value in {
        "{id}": run_id,
        "{tab}": "log",
        "{action}": "stop",
        "{group}": "regime",
        "{choice}": "lora",
        "{number}": "1",
        "{name}": "step-1",
    }.items():
        filled = [(method, path.replace(name, value)) for method, path in filled]
    return filled


def test_no_route_but_the_shell_answers_without_the_token(running: Running, run_id: str) -> None:
    wrong = (
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {running.token[:-1]}",
        f"Bearer {running.token}x",
        f"Basic {running.token}",
        f"bearer {running.token}",
    )
    for method, path in paths(run_id):
        for authorization in wrong:
            answer = running.send(method, path, b"{}" if method == "POST" else None, Content_Type="application/json", Authorization=authorization)
            assert (answer.status, method, path) == (401, method, path)
    assert running.get(f"/runs?token={running.token}", Authorization=None).status == 401
    assert running.get("/runs", Authorization=None, Cookie=f"token={running.token}").status == 401


def test_the_open_files_hold_neither_the_token_nor_anything_of_the_user(running: Running, folder: Path) -> None:
    for path in OPEN:
        answer = running.get(path, Authorization=None)
        assert answer.status == 200
        assert not any(text in answer.text for text in (running.token, str(folder), "demo/2026"))


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "0.0.0.0:80", "", "127.0.0.1:80@evil", "[::2]", "localhost:x"]
)
def test_a_name_that_a_rebound_domain_would_have_is_refused(running: Running, host: str) -> None:
    assert [running.get(path, Host=host).status for path in ("/", "/runs")] == [403, 403]


@pytest.mark.parametrize("origin", ["null", "http://evil.example", "https://127.0.0.1", "http://localhost:1", "http://127.0.0.1:80.evil.example", ""])
def test_a_page_of_another_origin_is_refused(running: Running, run_id: str, origin: str) -> None:
    assert running.get("/runs", Origin=origin).status == 403
    assert running.post(f"/runs/{run_id}/delete", Origin=origin).status == 403


def test_what_changes_something_takes_json_by_post_alone(running: Running, run_id: str, folder: Path) -> None:
    path = f"/runs/{run_id}/delete"
    for kind in (None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json-x"):
        assert running.send("POST", path, b"a=b", Content_Type=kind).status == 415
    for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"):
        assert running.send(method, path).status in (400, 404, 405)
    assert running.send("POST", path, b"[", Content_Type="application/json").status == 400
    assert running.send("POST", path, b"[" * 100_000, Content_Type="application/json").status == 400
    assert running.send("POST", path, b"[]", Content_Type="application/json").status == 400
    assert running.post(f"/runs/{run_id}/rm%20-rf").status == 404
    assert (folder / "outputs" / "demo" / "2026-11-22_10-00-00" / "run.yaml").exists()


def test_a_body_that_is_too_long_is_refused_whatever_it_says_of_its_length(running: Running, run_id: str) -> None:
    assert running.send("POST", f"/runs/{run_id}/stop", b"x" * (2**20 + 1), Content_Type="application/json").status == 413
    chunks = f"POST /runs/{run_id}/stop HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {running.token}\r\n"
    chunks += "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.sendall(chunks.encode() + (b"10000\r\n" + b"x" * 2**16 + b"\r\n") * 17)
        assert connection.recv(64).startswith(b"HTTP/1.1 413")


def test_a_header_that_stands_twice_is_refused(running: Running) -> None:
    for header in ("Host: localhost", f"Authorization: Bearer {running.token}"):
        request = f"GET /runs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {running.token}\r\n{header}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", running.port)) as connection:
            connection.sendall(request.encode())
            assert connection.recv(64).startswith(b"HTTP/1.1 400")


def test_no_path_leads_out_of_the_runs(running: Running, run_id: str, folder: Path) -> None:
    targets = [
        "../outside.txt",
        "../../../../outside.txt",
        "/etc/passwd",
        "/proc/self/environ",
        "/dev/zero",
        f"{folder}/outside.txt",
        "linked.txt",
        "",
        ".",
    ]
    targets += ["rank-0.txt/../linked.txt", "..\\outside.txt", "rank-0.txt\0.html", "%00", "~/.bashrc", "file:///etc/passwd", "*", "rank-*.txt"]
    spellings = [urllib.parse.quote(text, safe=safe) for text in targets for safe in ("", "/", "/.")]
    spellings += [urllib.parse.quote(text, safe="") for text in spellings] + [
        "..%2f..%2foutside.txt",
        "%2e%2e%2foutside.txt",
        "..%c0%afoutside.txt",
        "..;/outside.txt",
    ]
    places = [
        "/static/{}",
        "/runs/{}",
        f"/runs/{run_id}/{{}}",
        f"/runs/{run_id}/tab/{{}}",
        "/runs/{}/tab/log",
        f"/runs/{run_id}/tab/log?file={{}}",
        "/{}",
    ]
    for place in places:
        for text in spellings:
            answer = running.get(place.format(text))
            assert answer.status < 500, place.format(text)
            assert OUTSIDE not in answer.text
            assert "root:" not in answer.text
    assert len(spellings) * len(places) > 500


@pytest.mark.parametrize("number", ["9" * 5000, "-1", "1e9", "²", "x", "", "%00"])
def test_a_place_in_the_list_that_is_no_number_is_the_first(running: Running, number: str) -> None:
    assert running.get(f"/runs/list?first={urllib.parse.quote(number)}").status == 200


def test_only_the_listed_files_are_served(running: Running) -> None:
    assert {name: running.get(f"/static/{name}").status for name in SERVED} == dict.fromkeys(SERVED, 200)
    assert [running.get(f"/static/{name}").status for name in ("vendored.json", "htmx.LICENSE.txt", "", "../app.py")] == [404, 404, 404, 404]


def test_every_answer_forbids_foreign_scripts_frames_and_sniffing(running: Running, run_id: str) -> None:
    answers = [
        running.get(path, Authorization=token) for path in ("/", "/runs", "/nothing", "/static/app.js") for token in (f"Bearer {running.token}", None)
    ]
    for answer in [*answers, running.get("/", Host="evil.example"), running.post(f"/runs/{run_id}/nothing")]:
        assert "default-src 'none'; script-src 'self'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert not [name for name in answer.headers if name.startswith(("access-control", "set-cookie", "server"))]


def test_texts_of_runs_are_shown_as_text(running: Running, run_id: str) -> None:
    shown = [running.get(f"/runs/{run_id}/tab/{tab}").text for tab in ("log", "events", "plan")] + [
        running.get(f"/runs?words={urllib.parse.quote(PAYLOADS[0])}").text
    ]
    shown += [running.get("/runs").text, running.get(f"/runs/{run_id}").text]
    assert "&lt;script&gt;alert(1)" in shown[0]
    assert [payload for payload in PAYLOADS for text in shown if "<" in payload and payload in text] == []
    assert "red \\x07 " in shown[0]
    assert "{{ 7 * 7 }}" in shown[0]


def test_secrets_are_not_shown(running: Running, run_id: str) -> None:
    log = running.get(f"/runs/{run_id}/tab/log").text
    assert ("token ***" in log, SECRET in log) == (True, False)


def test_a_run_whose_records_are_links_or_pipes_is_not_read(running: Running, folder: Path) -> None:
    hostile = RunDir(folder / "outputs" / "hostile" / "2026-11-23_10-00-00")
    hostile.exits.mkdir(parents=True)
    hostile.run_yaml.write_text("name: hostile\n")
    hostile.plan.symlink_to("/dev/zero")
    hostile.logs.symlink_to("/etc")
    os.mkfifo(hostile.progress)
    hostile.memory.symlink_to(folder / "outside.txt")
    linked = folder / "outputs" / "linked"
    linked.symlink_to("/proc")
    try:
        identity = id_of(hostile)
        answers = [
            running.get(path)
            for path in (
                "/runs",
                f"/runs/{identity}",
                f"/runs/{identity}/curve",
                *(f"/runs/{identity}/tab/{tab}" for tab in ("log", "plan", "memory")),
            )
        ]
        assert [answer.status for answer in answers] == [200] * 6
        assert not any(OUTSIDE in answer.text or "root:" in answer.text for answer in answers)
        assert "not shown, because this is a link or no plain file: log, plan.json, progress.jsonl, memory.json" in answers[1].text
    finally:
        for path in (linked, hostile.plan, hostile.logs, hostile.progress, hostile.memory, hostile.run_yaml):
            path.unlink()


def test_the_pages_say_what_the_command_line_says(running: Running, run_id: str) -> None:
    head = running.get(f"/runs/{run_id}").text
    assert "ranks failed: The processes failed and left no other cause." in head
    assert f"regimen train --detach resume={running.folder}/outputs/demo/2026-11-22_10-00-00" in head
    events = running.get(f"/runs/{run_id}/tab/events").text
    assert "started by the user on here" in events
    curve = json.loads(running.get(f"/runs/{run_id}/curve").text)
    [loss] = curve["charts"]
    assert (loss["name"], loss["training"]["steps"], loss["training"]["values"]) == ("loss", [1, 2, 3], [1.0, 0.5, 1 / 3])
    assert loss["evaluation"]["values"] == [2.0, 2.0, 2.0]
    assert running.get(f"/runs/{run_id}/curve?seen={curve['size']}").status == 204


def test_chinese_is_shown_to_whoever_asks_for_it(running: Running) -> None:
    assert "失败" in running.get("/runs", Accept_Language="zh-CN,en;q=0.5").text
    assert "failed" in running.get("/runs", Accept_Language="de").text
    assert running.get("/texts", Accept_Language="zh").headers["content-language"] == "zh"


def test_a_run_is_deleted_by_the_command_that_was_shown(running: Running, folder: Path) -> None:
    old = RunDir(folder / "outputs" / "old one" / "2026-11-21_10-00-00")
    old.path.mkdir(parents=True)
    old.run_yaml.write_text("name: old\n")
    journal.record(old, journal.Started("here"))
    journal.record(old, journal.Ended(6, "it failed"))
    shown = running.get(f"/runs/{id_of(old)}/head").text
    assert f"regimen clean --yes &#39;{old.path}&#39;" in shown
    done = json.loads(running.post(f"/runs/{id_of(old)}/delete").text)
    assert (done["code"], done["command"]) == (0, f"regimen clean --yes '{old.path}'")
    assert not old.path.exists()
    assert running.post(f"/runs/{id_of(old)}/delete").status == 422


def test_a_new_run_is_judged_as_the_command_line_judges_it(running: Running, folder: Path) -> None:
    form = {"regime": "lora", "training.max_steps": "3", "name": "名", "tracking.project": "a 'quoted' $(touch pwned)"}
    found = json.loads(running.post("/new/plan", {"form": form}).text)
    words = shlex.split(found["command"])
    assert words[:4] == ["regimen", "train", "--detach", "regime=lora"]
    said = call_beside(folder, "plan", *words[3:])
    assert (said.returncode, without_free_disk(said.stdout)) == (0, without_free_disk(found["text"] + "\n"))
    assert found["values"]["tracking.project"] == form["tracking.project"]


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"hydra.run.dir": "/tmp/x"}, 2),
        ({"model._target_": "os.system"}, 2),
        ({"resume": "last"}, 2),
        ({"--config-dir": "/tmp"}, 2),
        ({"stage.reward_packages": "[os]"}, 77),
        ({"name": "${oc.env:HOME}"}, 77),
        ({"output": "/etc"}, 77),
        ({"model.path": "../../x", "model": "local", "data": "demo"}, 77),
        ({"model.path": "~root/x", "model": "local", "data": "demo"}, 77),
        ({"model.path": "~nobody_of_this_name/x", "model": "local", "data": "demo"}, 2),
        ({"model.path": "a\0b"}, 2),
        ({"name": "\ud800"}, 2),
        ({"\ud800": "x"}, 2),
        ({"name": "x" * 100_000}, 2),
        ({"data.sets": "[" * 5000}, 2),
        ({"model": "demo", "data": "files", "data.sets": "[/etc/passwd]"}, 77),
        ({"regime.rank": "1\nhydra.verbose: true"}, 2),
        ({"regime.rank": "!!python/object/apply:os.system ['touch pwned']"}, 2),
        ({"optim.lr": "1e-4,2e-4"}, 2),
        ({"regime.rnk": "8"}, 2),
        ({"name": 5}, 2),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_a_form_that_asks_for_more_than_a_run_starts_nothing(running: Running, folder: Path, form: dict[str, Any], status: int) -> None:
    runs = sorted((folder / "outputs").glob("*/*"))
    found = (
        json.loads(running.post("/new/plan", {"form": form}).text)
        if all(isinstance(text, str) for text in form.values())
        else {"code": 2, "error": "x"}
    )
    assert (found["code"], bool(found["error"])) == (status, True)
    assert running.post("/new/start", {"form": form}).status == 422
    assert sorted((folder / "outputs").glob("*/*")) == runs
    assert not list(folder.rglob("pwned"))


def test_a_refused_form_is_not_started_by_a_forged_request(running: Running, folder: Path) -> None:
    """The command judges it once more, whatever the page has shown."""
    done = json.loads(
        running.post(
            "/new/start", {"form": {"node": "cpu", "model": "llama3.1_8b", "data": "demo", "regime": "full", "node.host_memory": "8GB"}}
        ).text
    )
    assert (done["code"], "REFUSED" in done["text"]) == (3, True)
    assert not list((folder / "outputs").glob("*llama3*"))


def test_text_that_is_no_form_is_refused(running: Running) -> None:
    for values in ({}, {"form": []}, {"form": "x"}, {"form": {"regime": {"a": 1}}}):
        assert running.post("/new/start", values).status == 422
    assert running.post("/new/load", {"text": 5}).status == 422
    assert running.get("/new/fields/regime/..%2Fx").status == 404
    assert running.get("/new/fields/regime/nothing").status == 422
    assert running.get("/new?like=" + "0" * 16).status == 422


def test_stop_is_the_request_of_the_command_line(running: Running, folder: Path) -> None:
    at_work = RunDir(folder / "outputs" / "work" / "2026-11-24_10-00-00")
    at_work.path.mkdir(parents=True)
    at_work.run_yaml.write_text("name: work\n")
    journal.record(at_work, journal.Started("here"))
    lock.acquire(at_work, lock.this_process())
    assert f"regimen stop {at_work.path}" in running.get(f"/runs/{id_of(at_work)}/head").text
    done = json.loads(running.post(f"/runs/{id_of(at_work)}/stop").text)
    assert (done["code"], f"{at_work.path} is asked to save and stop." in done["text"], at_work.stop.exists()) == (0, True, True)
    assert [(event["event"], event.get("via")) for event in journal.events(at_work)] == [("start", None), ("stop requested", "board")]
    assert json.loads(running.post(f"/runs/{id_of(at_work)}/delete").text)["code"] == 73
    assert at_work.run_yaml.exists()


def test_neither_arguments_nor_files_of_the_run_hold_the_token(running: Running, folder: Path) -> None:
    arguments = Path(f"/proc/{running.process.pid}/cmdline").read_bytes()
    assert running.token.encode() not in arguments
    assert "libtorch" not in Path(f"/proc/{running.process.pid}/maps").read_text()
    holding = [path for path in folder.rglob("*") if path.is_file() and running.token in path.read_text(errors="replace")]
    assert [path.name for path in holding] == ["board-token"]
    assert oct(holding[0].stat().st_mode & 0o777) == "0o600"


def test_the_last_lines_of_a_log_of_a_gibibyte_are_shown_at_once_and_found(running: Running, folder: Path, run_id: str) -> None:
    """The file has a hole, which is read as zeros; the board reads its end alone."""
    log = RunDir(folder / "outputs" / "demo" / "2026-11-22_10-00-00").logs / "large.txt"
    with log.open("wb") as file:
        file.truncate(2**30)
        file.seek(2**30)
        file.write(b"\nthe last line\n")
    try:
        shown = running.get(f"/runs/{run_id}/tab/log?file=large.txt").text
        assert ">the last line\n" in shown
        assert f"{2**30 + 1:,}" in shown
        assert len(shown) < 10 * files.TAIL
        start, parts = 0, 0
        while (
            "THE LAST"
            not in (found := running.get(f"/runs/{run_id}/log?file=large.txt&words=THE%20LAST&start={start}").text).partition("<code>")[2].upper()
        ):
            [following] = re.findall(r"start=(\d+)", found)
            assert start < int(following) <= start + searching.MOST_BYTES + searching.BLOCK
            start, parts = int(following), parts + 1
        assert f"{2**30 + 1:,}</button> <code>the last line</code>" in found
        assert parts == 2**30 // searching.MOST_BYTES - 1
        around = running.get(f"/runs/{run_id}/tab/log?file=large.txt&at=1000").text
        assert f"Later bytes that are not shown: {2**30 + 15 - files.TAIL:,}" in around
    finally:
        log.unlink()


def test_the_lines_of_a_log_are_found_as_text_and_no_other_file_is_searched(running: Running, run_id: str, folder: Path) -> None:
    found = running.get(f"/runs/{run_id}/log?file=rank-0.txt&words=ALERT").text
    assert html.unescape(found).count("alert(1)") == sum("alert" in payload for payload in PAYLOADS)
    assert not any(payload in found for payload in PAYLOADS)
    assert SECRET not in running.get(f"/runs/{run_id}/log?file=rank-0.txt&words={SECRET[:6]}").text
    for name in ("linked.txt", "../run.yaml", "/etc/passwd", ""):
        assert "<code>" not in running.get(f"/runs/{run_id}/log?file={urllib.parse.quote(name)}&words=o").text


def test_what_deleting_takes_is_said_before_as_the_command_says_it(running: Running, run_id: str, folder: Path) -> None:
    told = running.get(f"/runs/{run_id}/removal").text
    said = call_beside(folder, "clean", str(folder / "outputs" / "demo" / "2026-11-22_10-00-00"))
    assert "nobody can be asked here" in said.stderr
    assert told == said.stdout.splitlines()[0]
    assert str(folder) in told


def test_one_checkpoint_is_exported_by_the_words_of_the_command_line(running: Running, folder: Path) -> None:
    run_dir = RunDir((folder / "outputs" / "saved" / "2026-11-16_10-00-00").absolute())
    step = run_dir.checkpoints / "step-3"
    step.mkdir(parents=True)
    run_dir.run_yaml.write_text("name: [\n")  # so that the command refuses before it loads any library
    (step / "weights").write_bytes(b"xyz")
    (step / "manifest.json").write_text(sealed(Manifest(3, 1, {"weights": (3, hashlib.sha256(b"xyz").hexdigest())})))
    identity = id_of(run_dir)
    assert f"regimen export {run_dir.path}@step-3" in html.unescape(running.get(f"/runs/{identity}/tab/checkpoints").text)
    done = json.loads(running.post(f"/runs/{identity}/checkpoints/step-3/export").text)
    assert done["command"] == f"regimen export {run_dir.path}@step-3"
    assert str(run_dir.run_yaml) in done["text"]
    for name in ("step-4", "..", "damaged-step-3", "step-3%2F..", "final"):
        assert running.post(f"/runs/{identity}/checkpoints/{name}/export").status in (404, 422)


def test_the_model_of_a_run_is_asked_by_the_command_line_and_its_words_are_passed_on(running: Running, folder: Path, run_id: str) -> None:
    """This run has no model, which the command says; tests/distributed/test_board.py asks one that has."""
    asked = running.post(f"/runs/{run_id}/chat", {"lines": "2 + 2\n"})
    said = call_beside(folder, "chat", str((folder / "outputs" / "demo" / "2026-11-22_10-00-00").absolute()))
    assert said.returncode != 0
    assert asked.text == f"{said.stderr}\n(exit code {said.returncode})"
    for odd in (None, "", " \n", "x" * 10_001, ["x"]):
        assert running.post(f"/runs/{run_id}/chat", {"lines": odd}).status == 422


def test_two_boards_and_the_command_line_say_the_same(running: Running, folder: Path, run_id: str) -> None:
    [said] = json.loads(call_beside(folder, "status", "--json", str(folder / "outputs" / "demo" / "2026-11-22_10-00-00")).stdout)
    with board(folder) as other:
        heads = [each.get(f"/runs/{run_id}/head").text for each in (running, other)]
    assert heads[0] == heads[1]
    assert f'class="state {said["state"]}"' in heads[0]
    assert f"{said['step']}/{said['of']}" in heads[0]
    assert html.escape(said["message"]) in heads[0]


def test_memory_is_shown_as_it_was_predicted_and_measured(running: Running, folder: Path) -> None:
    run_dir = RunDir(folder / "outputs" / "measured" / "2026-11-20_10-00-00")
    run_dir.path.mkdir(parents=True)
    run_dir.run_yaml.write_text("name: measured\n")
    pair = {"predicted": 10 * 2**30, "measured": 8 * 2**30, "error": 0.25}
    run_dir.memory.write_text(json.dumps({"sentence": "It fits.", "compared": {"nvml": pair, "phases": {"backward": pair}}}))
    shown = running.get(f"/runs/{id_of(run_dir)}/tab/memory").text
    assert "It fits." in shown
    assert [shown.count(text) for text in ("10.00 GiB", "8.00 GiB", "+25.0%", ">backward<")] == [2, 2, 2, 1]


def test_answers_of_a_run_are_shown_as_text(running: Running, folder: Path) -> None:
    run_dir = RunDir(folder / "outputs" / "answered" / "2026-11-19_10-00-00")
    run_dir.path.mkdir(parents=True)
    run_dir.run_yaml.write_text("name: answered\n")
    run_dir.samples.write_text(
        json.dumps([{"when": "before", "prompt": "2 + 2", "answer": PAYLOADS[0]}, {"when": "after", "prompt": "2 + 2", "answer": "4"}])
    )
    shown = running.get(f"/runs/{id_of(run_dir)}/tab/samples").text
    assert f"asked before training: '2 + 2'\n  answered: {PAYLOADS[0]!r}" in html.unescape(shown)
    assert "answered: '4'" in html.unescape(shown)
    assert PAYLOADS[0] not in shown


def test_runs_are_compared_by_the_keys_in_which_they_differ(running: Running, folder: Path, run_id: str) -> None:
    other = RunDir(folder / "outputs" / "other" / "2026-11-18_10-00-00")
    other.path.mkdir(parents=True)
    save_run(described("model=demo", "data=demo", "node=cpu", "optim.lr=3e-4"), other)
    other.progress.write_text(json.dumps({"step": 5, "of": 9, "loss": 7.0}) + "\n")
    both = f"{run_id},{id_of(other)}"
    keys = running.get(f"/compare/keys?r={both}").text
    assert [f"<code>{text}</code>" in keys for text in ("optim.lr", "0.0003", "data.cutoff")] == [True, True, False]
    assert keys == running.get(f"/runs/{id_of(other)}/difference?with={run_id}").text
    said = call_beside(folder, "plan", "--diff", "other", "resume=demo").stdout
    assert "optim.lr: 0.0003 -> " in said
    curve = json.loads(running.get(f"/compare/curve?r={both}").text)
    [loss] = curve["charts"]
    assert [(one["label"], one["training"]["steps"]) for one in loss["runs"]] == [
        ("demo/2026-11-22_10-00-00", [1, 2, 3]),
        ("other/2026-11-18_10-00-00", [5]),
    ]
    assert running.get(f"/compare/curve?r={both}&seen={curve['size']}").status == 204
    assert f"optim.lr: {3e-4}" in running.get(f"/runs/{id_of(other)}/asked").text
    damaged = RunDir(folder / "outputs" / "damaged" / "2026-11-17_10-00-00")
    damaged.path.mkdir(parents=True)
    damaged.run_yaml.write_text("name: [\n")
    beside = running.get(f"/compare/keys?r={run_id},{id_of(damaged)},{id_of(other)}").text  # was: it hid the keys of the others
    assert [text in html.unescape(beside) for text in ("<code>optim.lr</code>", "<code>0.0003</code>", str(damaged.run_yaml))] == [True] * 3
    assert beside.count('scope="col"') == 3
    for chosen in ("", run_id, f"{run_id},{run_id}", f"{run_id},../x", f"{run_id},{'0' * 16}", ",".join(f"{number:016x}" for number in range(7))):
        assert running.get(f"/compare?r={chosen}").status == 422


def test_the_first_page_is_small_enough_for_a_slow_line(running: Running) -> None:
    assert sum(len(running.get(path, Authorization=None).text.encode()) for path in OPEN) <= 250_000
