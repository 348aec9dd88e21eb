"""What launcher and trainers must agree on is written down once."""

from pathlib import Path

import pytest

from conf import constants

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = [path for folder in ("launcher", "trainers") for path in (REPOSITORY / folder).rglob("*.py")]
SPELT_ONCE = ("ADAPTER_CONFIG", "ADAPTER_WEIGHTS", "ALL_LINEAR", "GENERATED", "BYTE_TOKENIZER")
OF_ANOTHER_MEANING = {"BYTE_TOKENIZER": {"terms.py", "memory_bars.py", "comparison.py", "tracing.py", "views.py"}}  # the key of a size in a file


@pytest.mark.parametrize("name", SPELT_ONCE)
def test_no_module_spells_a_shared_name_again(name: str) -> None:
    spelt = {path.name for path in SOURCES if f'"{vars(constants)[name]}"' in path.read_text(encoding="utf-8")}
    assert spelt <= OF_ANOTHER_MEANING.get(name, set())
