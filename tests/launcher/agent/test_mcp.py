"""`regimen mcp` as a real process, asked by the client of the protocol's own library."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from launcher.board.actions import run
from launcher.cli import main
from tests.boards import call_beside, environment, without_free_disk
from tests.waiting import wait_until

mcp = pytest.importorskip("mcp", reason="the package mcp is not installed: pip install 'mcp>=2.3,<3'")
TINY = ["recipe=demo", "training.max_steps=4", "data.max_samples=64", "cluster.ranks_per_node=1", "sharding=ddp", "evaluation.generate=null"]


@dataclass(frozen=True)
class Agent:
    session: Any
    instructions: str

    async def call(self, tool: str, **given: Any) -> tuple[bool, str]:
        """Whether it failed, and the text that a model reads."""
        result = await self.session.call_tool(tool, given)
        return bool(result.is_error), str(result.content[0].text)

    async def answer(self, tool: str, **given: Any) -> Any:
        failed, text = await self.call(tool, **given)
        assert not failed, text
        return json.loads(text)


def with_agent(folder: Path, work: Callable[[Agent], Awaitable[None]], *options: str) -> None:
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    async def talk() -> None:
        site = environment(folder / ".runtime")
        server = StdioServerParameters(command=sys.executable, args=["-m", "launcher", "mcp", *options], env=site, cwd=folder)
        async with stdio_client(server) as (reading, writing), ClientSession(reading, writing) as session:
            found = await session.initialize()
            await work(Agent(session, found.instructions or ""))

    asyncio.run(talk())


def test_an_agent_plans_and_reads_what_the_command_line_prints(tmp_path: Path) -> None:
    async def work(agent: Agent) -> None:
        assert {tool.name for tool in (await agent.session.list_tools()).tools} == {"plan", "proposals", "status", "log", "start", "stop"}
        assert "`plan` first" in agent.instructions
        planned = await agent.answer("plan", overrides=["recipe=demo", "node=h200_141"])
        printed = call_beside(tmp_path, "plan", "--json", "recipe=demo", "node=h200_141")
        assert planned["exit_code"] == printed.returncode == 0
        assert planned["command"] == "regimen plan --json recipe=demo node=h200_141"
        for part in ("run", "parameters", "argv", "files", "verdict"):
            assert planned["answer"][part] == json.loads(printed.stdout)[part]
        refused = ["model=llama3.1_8b", "data=demo", "regime=full", "node=h100_80"]
        proposed = await agent.answer("proposals", overrides=refused)
        assert proposed["exit_code"] == 3
        printed_text = call_beside(tmp_path, "plan", *refused).stdout.strip()
        in_any_order = [sorted(without_free_disk(text).splitlines()) for text in (proposed["text"], printed_text)]
        assert in_any_order[0] == in_any_order[1]  # variables stand in the order of the caller's environment
        wrong = await agent.answer("plan", overrides=["nosuch=3"])
        assert (wrong["exit_code"], wrong["said"]) == (2, "regimen: nosuch is not a key. `regimen train --cfg` shows every key.")
        assert (await agent.answer("status"))["answer"] == []

    with_agent(tmp_path, work)
    assert not list(tmp_path.glob("outputs/*"))


@pytest.mark.parametrize("word", ["--help", "-m", "", "--config-dir=/etc"])
def test_no_option_of_the_command_line_can_be_given(tmp_path: Path, word: str) -> None:
    async def work(agent: Agent) -> None:
        for tool in ("plan", "proposals", "start"):
            failed, text = await agent.call(tool, overrides=["recipe=demo", word])
            assert failed
            assert f"{word!r} is not an override" in text
        for tool in ("stop", "status"):
            failed, text = await agent.call(tool, run=word)
            assert failed
            assert f"{word!r} is not an override" in text

    with_agent(tmp_path, work, "--allow-start")


def test_a_word_that_no_command_line_can_hold_is_refused(tmp_path: Path) -> None:
    async def work(agent: Agent) -> None:
        for tool, given in (("plan", {"overrides": ["recipe=demo", "name=a\0b"]}), ("status", {"run": "a\0b"})):
            failed, text = await agent.call(tool, **given)
            assert failed
            assert "holds a NUL character" in text

    with_agent(tmp_path, work)


def test_without_allow_start_nothing_is_started_or_stopped(tmp_path: Path) -> None:
    async def work(agent: Agent) -> None:
        failed, text = await agent.call("start", overrides=TINY)
        assert failed
        assert "may not start or stop runs" in text
        assert "regimen train --detach recipe=demo training.max_steps=4" in text
        failed, text = await agent.call("stop", run="last")
        assert failed
        assert "regimen stop last" in text

    with_agent(tmp_path, work)
    assert not (tmp_path / "outputs").exists()


@pytest.mark.distributed
def test_an_allowed_start_is_gated_trains_and_outlives_the_server(tmp_path: Path) -> None:
    async def start(agent: Agent) -> None:
        refused = await agent.answer("start", overrides=["model=llama3.1_8b", "data=demo", "regime=full", "node=h100_80"])
        assert refused["exit_code"] == 3
        begun = await agent.answer("start", overrides=TINY)
        assert begun["exit_code"] == 0, begun

    with_agent(tmp_path, start, "--allow-start")

    def state() -> str:
        runs = json.loads(call_beside(tmp_path, "status", "--json").stdout)
        assert len(runs) == 1
        return str(runs[0]["state"])

    wait_until(lambda: state() not in ("running", "starting", "waiting"), "end of the run")

    async def look(agent: Agent) -> None:
        [run] = (await agent.answer("status", run="last"))["answer"]
        assert run["state"] == "finished"
        log = await agent.answer("log", run="last")
        assert log["file"] == "rank-0.txt"
        assert log["text"]
        failed, text = await agent.call("log", run="last", file="../run.yaml")
        assert failed
        assert "has no log file '../run.yaml'" in text

    with_agent(tmp_path, look)


def test_a_command_that_takes_long_goes_on(tmp_path: Path) -> None:
    answer = run(["plan", "recipe=demo"], tmp_path, seconds=0.0, apart=True)
    assert answer.code is None
    assert "goes on" in answer.text


def test_without_the_library_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["mcp"]) == 2
    said = capsys.readouterr().err
    assert "needs the package mcp" in said
    assert "-m pip install 'mcp>=2.3,<3'" in said
