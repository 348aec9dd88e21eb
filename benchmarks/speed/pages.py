"""How the pages of this folder's results are written: `--results benchmarks/results --page docs/PAGE.md`."""

import argparse
from collections.abc import Callable
from pathlib import Path


def write_page(about: str | None, page: Callable[[Path], str]) -> int:
    """`page`: the folder of results to the text of the page."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--page", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.page.write_text(page(arguments.results), encoding="utf-8")
    return 0
