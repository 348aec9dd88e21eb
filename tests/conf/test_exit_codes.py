"""One table of exit codes: the launcher's errors and the pages say nothing else."""

import re
from pathlib import Path

from conf import exit_codes
from conf.exit_codes import BUG, DONE, EXIT_CODES, INTERRUPTED
from launcher import errors
from launcher.errors import BY_EXIT_CODE, RegimenError

REPOSITORY = Path(__file__).resolve().parents[2]
NUMBERS = {
    **{"DONE": 0, "BUG": 1, "CONFIG": 2, "REFUSED": 3, "DATA": 4, "SUBMISSION": 5, "RANKS_FAILED": 6, "IN_USE": 73, "DISK": 74, "SAVED": 75},
    **{"LOST_PEER": 76, "UNSAFE": 77, "OUT_OF_MEMORY": 80, "NOT_A_NUMBER": 81, "NO_PROGRESS": 82, "INTERRUPTED": 130},
}
LIST = re.compile(r"^Exit codes: (.*?)\n?\(", re.MULTILINE | re.DOTALL)
TOLD = re.compile(r"(?:[Ee]xit code|refused with(?: exit code)?) (\d+)|[(,] ?(\d+): (out of memory|NaN)|\((7\d|8\d)\)")


def test_every_code_has_its_number_and_one_row() -> None:
    assert {name: number for name, number in vars(exit_codes).items() if name.isupper() and isinstance(number, int)} == NUMBERS
    assert [row.code for row in EXIT_CODES] == sorted(NUMBERS.values())
    assert all(row.meaning.endswith(".") for row in EXIT_CODES)


def test_every_error_of_the_launcher_ends_with_a_code_of_the_table() -> None:
    raised = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RegimenError)}
    assert raised == set(NUMBERS.values()) - {DONE, INTERRUPTED}
    assert set(BY_EXIT_CODE) == raised - {BUG}


def test_a_page_lists_the_table() -> None:
    found = LIST.search((REPOSITORY / "docs" / "guides" / "training.md").read_text(encoding="utf-8"))
    assert found is not None
    assert [entry.split(" ", 1) for entry in re.split(r"\s·\s", found[1])] == [[str(row.code), row.name] for row in EXIT_CODES]


def test_the_pages_name_no_other_codes() -> None:
    names = {row.code: row.name for row in EXIT_CODES}
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]
    told = [(path.name, match) for path in pages for match in TOLD.finditer(path.read_text(encoding="utf-8"))]
    assert {path for path, _ in told} >= {"training.md", "slurm.md", "after_training.md", "data.md"}
    for path, match in told:
        code = int(match[1] or match[2] or match[4])
        assert code in names, (path, match[0])
        assert match[3] in (None, names[code]), (path, match[0])
