"""Where each command of the pages is run as it stands, and why others are only planned or parsed: they need what a test does not have."""

import re
from collections.abc import Callable
from dataclasses import dataclass

Words = tuple[str, ...]

NETWORK, CLUSTER = "the network", "a cluster"
PRESETS = re.compile(r"model=(qwen|llama|mistral|mixtral)")
OF_HUB = re.compile(r"data\.sets=\[\w+/\w+\]")  # org/name
STAGE_PAGES = "docs/guides/stages/"


@dataclass(frozen=True)
class Fate:
    """`needs`: empty for a command that `test` runs; otherwise the command is planned or parsed there."""

    test: str
    needs: str = ""
    why: str = ""


HERE = "tests/properties/test_page_commands.py"
AFTER = ("export", "predict", "evaluate", "chat")
ROWS: tuple[tuple[Callable[[str, Words], bool], Fate], ...] = (
    (lambda page, words: words[0] == "pip", Fate(HERE, NETWORK, "it installs packages; the extra is looked up in pyproject.toml")),
    (lambda page, words: words[:2] == ("make", "docs"), Fate("tests/properties/test_docs_tree.py")),
    (
        lambda page, words: words[0] == "make",
        Fate(HERE, NETWORK, "it installs what is missing into .venv or the system; CI calls make test, and the target is looked up in the Makefile"),
    ),
    (lambda page, words: is_name_of_verb(words) or "--help" in words or "--cfg" in words, Fate(HERE)),
    (
        lambda page, words: "cluster=slurm" in words or "hydra/launcher=slurm" in words,
        Fate("tests/slurm/test_train.py", CLUSTER, "tests/slurm submits the same forms of the demo to a cluster of this machine"),
    ),
    (
        lambda page, words: "cluster=hosts" in words,
        Fate("tests/distributed/test_hosts.py", CLUSTER, "the test starts a run of the demo on hosts of this machine"),
    ),
    (lambda page, words: words[1] == "import" or (words[1] == "plan" and not needs_hub(words)), Fate(HERE)),
    (
        lambda page, words: needs_hub(words),
        Fate(HERE, NETWORK, "it reads a model or a set of the hub; it is planned, and training it would need a GPU too"),
    ),
    (lambda page, words: "--push" in words, Fate("tests/trainers/verbs/test_page_lines.py", NETWORK, "it uploads; without --push it is run")),
    (
        lambda page, words: words[1] == "evaluate" and "--include" not in words,
        Fate("tests/trainers/verbs/test_page_lines.py", NETWORK, "its tasks download their sets"),
    ),
    (lambda page, words: words[1] in AFTER and words[2] not in ("RUN", "RUN@step-N"), Fate("tests/trainers/verbs/test_page_lines.py")),
    (lambda page, words: words[1] in AFTER, Fate("tests/distributed/test_page_runs.py")),
    (lambda page, words: words[1] == "board", Fate("tests/launcher/board/test_address.py")),
    (lambda page, words: words[1] == "mcp", Fate("tests/launcher/agent/test_mcp.py")),
    (lambda page, words: words[1] == "queue", Fate("tests/launcher/queue/test_scheduler.py")),
    (lambda page, words: page == "docs/guides/recipes/rlhf.md", Fate("tests/distributed/test_recipe.py")),
    (
        lambda page, words: page.startswith(STAGE_PAGES) and ("stage=ppo" in words or "stage=grpo" in words or "name=judge" in words),
        Fate("tests/distributed/test_reinforcement.py"),
    ),
    (lambda page, words: page.startswith(STAGE_PAGES) and "model=demo" in words, Fate("tests/properties/test_stage_pages.py")),
    (
        lambda page, words: "training.max_steps=2000" in words,
        Fate("tests/distributed/test_length.py"),  # the same with fewer steps
    ),
    (
        lambda page, words: words[1] == "train" and page.startswith(STAGE_PAGES),
        Fate(HERE, "a model", "it starts from a model of its reader; tests/properties/test_stage_pages.py trains the stage on that of the demo"),
    ),
    (lambda page, words: words[1] in ("train", "status", "stop"), Fate("tests/distributed/test_page_runs.py")),
)


def is_name_of_verb(words: Words) -> bool:
    """Its help knows it."""
    return len(words) == 2 or words[1:] in (("data", "validate"), ("memory", "report"))


def needs_hub(words: Words) -> bool:
    return any(PRESETS.match(word) or OF_HUB.match(word) for word in words)


def fate_of(page: str, words: Words) -> Fate | None:
    return next((fate for holds, fate in ROWS if holds(page, words)), None)
