"""The tools that an agent sees. Each runs one command of regimen, and hands on what it answered; there is no port and no state of its own."""

import json
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path

from launcher.agent import commands
from launcher.board.actions import command_of, run
from launcher.board.files import log_names, log_part
from launcher.errors import ConfigError, RegimenError
from launcher.launch.status import named_run

INSTRUCTIONS = """Plan, start and watch fine-tuning runs of language models with regimen.
A run is described by overrides such as ["model=qwen2.5_0.5b", "regime=lora", "data=files", "data.sets=[my.jsonl]"], or by a file of a run that
overrides may follow. Ask `plan` first: its verdict says whether the job fits the node; its figures are bytes and seconds. Where it is refused,
`proposals` has the changes that fit. `start` begins a run where the person who started this server has allowed it."""
Tool = Callable[..., str]


def serve(folder: Path, output: Path | None, allow_start: bool) -> int:
    """Answer on standard input and output until the input ends.

    Raises:
        ConfigError: where the optional package mcp is not installed.
    """
    commands.refuse_without_library()
    from mcp.server import MCPServer

    server = MCPServer("regimen", instructions=INSTRUCTIONS, log_level="ERROR")
    for tool in tools(folder, output, allow_start):
        server.tool(structured_output=False)(as_tool_error(tool))
    server.run("stdio")
    return 0


def as_tool_error(tool: Tool) -> Tool:
    """With a message of regimen told to the agent, which reads no other exception's text."""
    from mcp.server.mcpserver.exceptions import ToolError

    @wraps(tool)
    def told(*given: object, **named: object) -> str:
        try:
            return tool(*given, **named)
        except RegimenError as error:
            raise ToolError(str(error)) from error

    return told


def tools(folder: Path, output: Path | None, allow_start: bool) -> Sequence[Tool]:
    """The tools of runs that are described in `folder`, and looked for in `output`; what an agent reads about each is its docstring."""

    def said(words: Sequence[str]) -> str:
        return json.dumps(commands.as_dict(run(words, folder, apart=True)), indent=1, ensure_ascii=False)

    def refuse_acts(words: Sequence[str]) -> None:
        if not allow_start:
            raise ConfigError(
                "This server plans and watches; it may not start or stop runs. The person who uses it can start it with --allow-start, or paste "
                f"this into a terminal: {command_of(words)}"
            )

    def plan(overrides: list[str]) -> str:
        """Judge a run without starting it: the whole configuration, its memory by phase, the verdict with every check, time, and command line."""
        return said(commands.plan_words(overrides))

    def proposals(overrides: list[str]) -> str:
        """The plan as a person reads it; where the run is refused, with the changes that would fit, each as overrides that can be added."""
        return said(commands.proposal_words(overrides))

    def status(run: str | None = None) -> str:
        """Runs and their states: all of them, or the one that is named by its folder, its name, or "last"."""
        return said(commands.status_words(run, output))

    def log(run: str, file: str | None = None) -> str:
        """The end of a log file of a run, rank 0's where none is named, and the names of the others."""
        run_dir = named_run(run, output)
        names = log_names(run_dir)
        name = names[0] if file is None and names else file
        shown = None if name is None else log_part(run_dir, name)
        if shown is None:
            there = f"Its log files are {', '.join(names)}." if names else "It has no log file yet."
            raise ConfigError(f"{run_dir.path} has no log file{'' if name is None else ' ' + repr(name)}. {there}")
        return json.dumps({"file": name, "files": names, "bytes_before": shown.left_out, "text": shown.text}, indent=1, ensure_ascii=False)

    def start(overrides: list[str]) -> str:
        """Start a run behind the same gate as the command line, detached; it goes on when this server ends. Resume one with ["resume=RUN"]."""
        words = commands.start_words(overrides)
        refuse_acts(words)
        return said(words)

    def stop(run: str) -> str:
        """Ask a run to save a checkpoint and stop."""
        words = commands.stop_words(run, output)
        refuse_acts(words)
        return said(words)

    return plan, proposals, status, log, start, stop
