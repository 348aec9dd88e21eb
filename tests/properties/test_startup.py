"""What each verb imports before it answers: the libraries that cost most of a start stay out of those that need none of them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

REPOSITORY = Path(__file__).resolve().parents[2]
COMPOSING = {"hydra", "omegaconf", "yaml", "antlr4"}
HEAVY = {"torch", "transformers", "peft", "trl", "datasets", "accelerate", "deepspeed", "bitsandbytes", "numpy", "pandas", "matplotlib"}
LATE = {"rich", "jinja2", "pynvml", "huggingface_hub", "httpx", "requests"}
CHOOSING = {"launcher.gate.changes", "launcher.gate.fit"}
# What counts an unknown architecture, proposes for a refused run, or reads other runs: no part of a permitted plan.
ELSEWHERE = {
    "importlib.metadata",
    "subprocess",
    "launcher.facts.model.census",
    "launcher.gate.proposals",
    "launcher.launch.status",
    "conf.journal",
    "launcher.launch.lock",
    "launcher.launch.execute",
    "launcher.verbs.train",
    "launcher.sweep",
}
PLAN = ("plan", "model=llama3.1_8b", "data=demo", "node=h100_80")
VERBS = re.compile(r"^    ([a-z]+)  ", re.MULTILINE)


def started(*arguments: str) -> tuple[int, str, set[str]]:
    """Exit code, output and the packages that one command imported."""
    code, out, imported = started_modules(*arguments)
    return code, out, {name.split(".")[0] for name in imported}


def started_modules(*arguments: str) -> tuple[int, str, set[str]]:
    """Exit code, output and the modules that one command imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "launcher", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "argparse" in imported, done.stderr
    return done.returncode, done.stdout, imported


@pytest.fixture(scope="module")
def verbs() -> list[str]:
    return VERBS.findall(started("--help")[1])


def test_help_composes_nothing() -> None:
    code, out, imported = started("--help")
    assert (code, {"train", "plan", "status", "stop", "doctor"} <= set(VERBS.findall(out))) == (0, True)
    assert not (COMPOSING | HEAVY | LATE) & imported


def test_help_of_every_verb_composes_nothing(verbs: list[str]) -> None:
    for verb in [*verbs, "supervise"]:  # which --help does not list
        code, out, imported = started(verb, "--help")
        assert (code, out.startswith(f"usage: regimen {verb} ")) == (0, True)
        assert not (COMPOSING | HEAVY | LATE) & imported, verb


def test_help_lists_the_choices_without_composing() -> None:
    _, out, _ = started("plan", "--help")
    assert re.search(r"^  regime +freeze, full, lora \(default\), qlora$", out, re.MULTILINE)


@pytest.mark.parametrize("more", [(), ("--json",), ("--explain",), ("--matrix",)])
def test_a_plan_for_a_named_node_needs_only_composition(more: tuple[str, ...]) -> None:
    code, _, imported = started(*PLAN, *more)
    assert code == 0
    assert imported >= COMPOSING
    assert not (HEAVY | LATE) & imported


def test_a_permitted_plan_imports_only_what_its_answer_needs() -> None:
    code, _, imported = started_modules(*PLAN)
    assert (code, "launcher.memory.estimate" in imported) == (0, True)
    assert not ELSEWHERE & imported
    assert imported >= CHOOSING
    code, _, imported = started_modules(*PLAN, "training.fit=off")
    assert (code, imported & (ELSEWHERE | CHOOSING)) == (0, set())


def test_recommendations_for_a_refused_run_need_no_more() -> None:
    code, out, imported = started("plan", "model=llama3.1_8b", "data=files", "data.sets=[org/name]", "regime=full", "node=a100_40")
    assert (code, "what would fit, cheapest first" in out) == (3, True)
    assert not (HEAVY | LATE) & imported


def test_the_driver_is_asked_for_node_auto_alone() -> None:
    code, _, imported = started("plan", "model=demo", "data=demo", "node=auto")
    assert code == 0
    assert imported & (HEAVY | LATE) == {"pynvml"}


def test_runs_are_listed_without_what_reads_or_draws_them(tmp_path: Path) -> None:
    code, out, imported = started("status", "--output", str(tmp_path))
    assert (code, out) == (0, f"no runs under {tmp_path}\n")
    assert not (HEAVY | LATE) & imported
