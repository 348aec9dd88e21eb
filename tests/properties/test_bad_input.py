"""What a user gets for a mistake: one message that names it, an exit code, and nothing left behind."""

import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import command_line as line
import pytest
from cells import TINY as CELL

from conf.run_dir import RunDir, save_run
from launcher.launch import lock
from tests.described import described
from tests.in_process import call_here

TINY = (*CELL, "cluster.ranks_per_node=1", "sharding=ddp")
DEMO = ("recipe=demo", *TINY)
MODEL = ("model=local", "data=demo", "node=cpu")
FILE = ("model=demo", "data=files", "data.folder=.", "data.template=chatml", "data.cutoff=512", *TINY)
GOOD = {"instruction": "What is 1 + 1?", "input": "", "output": "1 + 1 = 2."}


def nothing(folder: Path) -> None:
    """The row needs no file."""


def write(name: str, *lines: Any) -> Callable[[Path], None]:
    """A file of these lines; what is not text is written as JSON."""

    def arrange(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{text if isinstance(text, str) else json.dumps(text)}\n" for text in lines))

    return arrange


def empty_folder(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).mkdir()


@dataclass(frozen=True)
class Row:
    name: str
    overrides: tuple[str, ...]
    code: int
    names: tuple[str, ...]  # what the message must hold
    arrange: Callable[[Path], None] = nothing
    site: tuple[tuple[str, str], ...] = ()


NO_GPU = (("CUDA_VISIBLE_DEVICES", ""),)  # so that the row holds on a machine with GPUs too
NO_HUB = (("HF_ENDPOINT", "http://127.0.0.1:9"), ("HF_HOME", "hub-cache"))

BEFORE_RANKS = [
    Row("unknown key", (*DEMO, "regime.rnk=4"), 2, ("regime.rnk", "regime.rank")),
    Row("unknown key added", (*DEMO, "+regime.rnk=4"), 2, ("+regime.rnk=4", "regime.rank")),
    Row("unknown key forced", (*DEMO, "++regime.rnk=4"), 2, ("++regime.rnk=4", "regime.rank")),
    Row("wrong type", (*DEMO, "optim.lr=abc"), 2, ("optim.lr", "abc")),
    Row("unknown choice", (*DEMO, "regime=loar"), 2, ("regime=loar", "lora")),
    Row("null for a group", (*DEMO, "regime=null"), 2, ("regime=null", "lora")),
    Row("no key at all", (*DEMO, "nonsense"), 2, ("nonsense",)),
    Row("out of range", (*DEMO, "training.micro_batch=0"), 2, ("training.micro_batch=0", "at least 1")),
    Row(
        "broken YAML",
        ("--config-dir", "mine", *DEMO, "optim=broken"),
        2,
        ("broken.yaml", "line 2"),
        write("mine/optim/broken.yaml", "name: x", "  lr: ["),
    ),
    Row("missing model folder", (*MODEL, "model.path=./absent"), 2, ("model.path=./absent",)),
    Row(
        "model without config",
        (*MODEL, "model.path=./empty"),
        2,
        ("model.path=./empty", "config.json"),
        empty_folder("empty"),
    ),
    Row(
        "unknown architecture",
        (*MODEL, "model.path=./odd"),
        2,
        ("odd_net",),
        write("odd/config.json", {"model_type": "odd_net", "vocab_size": 264}),
    ),
    Row("unreachable hub", (*MODEL, "model.path=some/model"), 2, ("some/model", "hub cannot be reached"), site=NO_HUB),
    Row("missing data file", (*FILE, "data.sets=[absent.jsonl]"), 4, ("absent.jsonl",)),
    Row("unknown data set", (*FILE, "data.sets=[absent]"), 4, ("absent", "dataset_info.json")),
    Row("broken registry", (*FILE, "data.sets=[mine]"), 4, ("dataset_info.json", "line 1", "column"), write("dataset_info.json", "{]")),
    Row(
        "missing column",
        (*FILE, "data.sets=[x.jsonl]"),
        4,
        ("x.jsonl", "line 1", "answer"),
        write("x.jsonl", *[{"question": "?", "answer": "!"}] * 20),
    ),
    Row("empty data file", (*FILE, "data.sets=[none.jsonl]"), 4, ("none.jsonl", "no records"), write("none.jsonl")),
    Row("fewer samples than a batch", (*DEMO, "data.max_samples=3", "data.validation_share=0"), 4, ("3 training samples", "training.micro_batch=4")),
    Row("no GPU here", (*DEMO, "node=auto", "node.gpus=1"), 2, ("node.gpus=1", "0 GPUs"), site=NO_GPU),
    Row("named GPU node elsewhere", (*DEMO, "node=h100_80"), 2, ("node=h100_80", "0 are visible here"), site=NO_GPU),
    Row("more ranks than GPUs", (*DEMO, "node=h100_80", "cluster.ranks_per_node=2"), 2, ("cluster.ranks_per_node=2", "1 GPU"), site=NO_GPU),
    Row("output below a file", (*DEMO, "output=taken"), 74, ("taken",), write("taken", "")),
    Row("output that nobody may write", (*DEMO, "output=/proc/regimen", "gate.mode=off"), 74, ("/proc/regimen", "output=")),
    Row("output with too long a name", (*DEMO, f"output={'x' * 300}"), 74, ("File name too long", "output=")),
    Row("resume of no run", ("resume=absent",), 2, ("absent", "run.yaml")),
]

BROKEN = '{"instruction": "What?", "output": }'  # the value is missing at column 36

IN_RANKS = [
    Row("broken JSON line", (*FILE, "data.sets=[x.jsonl]"), 4, ("x.jsonl", "line 2, column 36"), write("x.jsonl", *[GOOD] * 1, BROKEN, *[GOOD] * 20)),
    Row("nothing left to learn", (*DEMO, "data.cutoff=8"), 4, ("data.cutoff=8", "nothing to learn")),
]
# One for each exit code, and what must be known before a library is imported: a process of its own. The others call what that process calls.
IN_A_PROCESS = {"unknown key", "empty data file", "output below a file", "unreachable hub"}


def in_a_process(row: Row, folder: Path) -> line.Ended:
    return line.call((*line.MODULE, "train", *row.overrides), folder, **dict(row.site))


def check(row: Row, folder: Path, ended_with: Callable[[Row, Path], line.Ended] = in_a_process) -> None:
    row.arrange(folder)
    before = sorted(path for path in folder.rglob("*"))
    ended = ended_with(row, folder)
    message = [text for text in ended.err.splitlines() if text.startswith("regimen: ")]
    assert ended.code == row.code, ended.text
    assert len(message) == 1, ended.err
    assert "Traceback" not in ended.text
    for name in row.names:
        assert name in ended.err, ended.err
    left = {path for path in folder.rglob("*") if "hub-cache" not in path.parts} - set(before)
    assert [path for path in left if path.name == "run.yaml" or path.parent.name == "demo"] == []


@pytest.mark.parametrize("row", BEFORE_RANKS, ids=lambda row: row.name.replace(" ", "_"))
def test_a_mistake_is_told_before_any_process_starts(
    row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def here(row: Row, folder: Path) -> line.Ended:
        monkeypatch.chdir(folder)
        for name, value in row.site:
            monkeypatch.setenv(name, value)
        return call_here(capfd, "train", *row.overrides)

    check(row, tmp_path, in_a_process if row.name in IN_A_PROCESS else here)
    assert not (tmp_path / "outputs").exists()


@pytest.mark.distributed
@pytest.mark.parametrize("row", IN_RANKS, ids=lambda row: row.name.replace(" ", "_"))
def test_a_mistake_that_ranks_find_is_told_in_one_message(row: Row, tmp_path: Path) -> None:
    check(row, tmp_path)


def test_an_occupied_port_is_told_before_any_process_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        check(Row("port", (*DEMO, f"backend.port={port}"), 2, (f"backend.port={port}", "0 for a free one")), tmp_path)
    assert not (tmp_path / "outputs").exists()


def test_a_run_folder_in_use_is_told_with_its_owner(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "outputs" / "demo" / "made")
    run_dir.path.mkdir(parents=True)
    save_run(described(*DEMO, "node=cpu"), run_dir)
    lock.acquire(run_dir, lock.this_process())
    check(Row("in use", (f"resume={run_dir.path}",), 73, (f"process {os.getpid()} on {socket.gethostname()}", " s. ")), tmp_path)
    assert run_dir.lock.exists()
