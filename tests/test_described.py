"""The one way in which tests come to runs."""

import re
from pathlib import Path

from launcher.composition.compose import compose
from tests.described import composed, described, with_facts

TESTS = Path(__file__).parent
DEMO = ("model=demo", "data=demo", "node=cpu")


def test_equal_overrides_give_equal_runs_that_share_nothing() -> None:
    first, second = composed(*DEMO), composed(*DEMO)
    assert first == second == compose(DEMO)
    first.data.sets.append("more")
    first.training.micro_batch = 7
    assert second == composed(*DEMO) == compose(DEMO)


def test_a_described_run_is_settled_on_the_node_that_is_stated() -> None:
    run, facts = with_facts(*DEMO, "cluster.ranks_per_node=2")
    assert run == described(*DEMO, "cluster.ranks_per_node=2")
    assert (run.node.gpus, run.cluster.ranks_per_node, facts.family) == (0, 2, "llama")
    assert described("model=demo", "data=demo", "node=h100_80", "node.gpus=4").cluster.ranks_per_node == 4


def test_no_test_file_composes_and_settles_by_itself() -> None:
    by_itself = re.compile(r"run = compose\(.*\n +(return|run =) settled\(run, settled_node\(")
    files = [path for path in TESTS.rglob("*.py") if path.name != "described.py"]
    assert [str(path) for path in files if by_itself.search(path.read_text(encoding="utf-8"))] == []
