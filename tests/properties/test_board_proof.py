"""docs/reference/board_proof.md names a test for each of the forty points, and every test that it names is there."""

import ast
import re
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ROWS = re.findall(r"^\| (\d+) \| (.+) \| (.+) \|$", (REPOSITORY / "docs" / "reference" / "board_proof.md").read_text(encoding="utf-8"), re.MULTILINE)
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@cache
def names_in(path: str) -> set[str]:
    tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_each_point_names_a_test_that_is_there() -> None:
    assert [int(number) for number, _, _ in ROWS] == list(range(1, 41))
    named = [(path, name) for _, _, shown in ROWS for path, name in NAMED.findall(shown)]
    assert [one for one in named if one[1] not in names_in(one[0])] == []
    assert [
        number for number, _, shown in ROWS if not NAMED.search(shown) and "the test of point" not in shown and "the same test" not in shown
    ] == []
