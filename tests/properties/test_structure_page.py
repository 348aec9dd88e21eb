"""docs/concepts/structure.md names what exists, leaves no folder out, and draws the imports as the contracts have them."""

import ast
import re
import tomllib
from pathlib import Path

from conf.run_dir import RunDir

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "concepts" / "structure.md").read_text(encoding="utf-8")
PACKAGES = ("conf", "launcher", "trainers", "benchmarks", "tests")
NAMED = re.compile(rf"(?<![\w./-])((?:{'|'.join(PACKAGES)}|slurm|hydra_plugins|docs)/[\w./-]*)")
FOLDER_LINE = re.compile(r"^([a-z_]+/[\w/]*) *(.*)$", re.MULTILINE)
FUNCTION = re.compile(r"`(\w+)\(\)` in\s+`([\w/]+\.py)`")
KEPT = {".py", ".yaml", ".jsonl", ".json", ".txt", ".jinja", ".sbatch"}  # what a folder holds that belongs to the repository


def folders() -> set[str]:
    """Every folder of the packages that holds a file itself; tests/X, which tests a folder X, stands for that folder."""
    found = {path.parent.relative_to(REPOSITORY) for package in PACKAGES for path in (REPOSITORY / package).rglob("*") if path.suffix in KEPT}
    return {f"{folder}/" for folder in found if folder.parts[0] != "tests" or not (REPOSITORY / Path(*folder.parts[1:])).is_dir()}


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)}


def test_every_path_on_the_page_exists() -> None:
    named = {path.rstrip(".") for path in NAMED.findall(PAGE)}
    assert len(named) > 100
    assert {path for path in named if not (REPOSITORY / path).exists()} == set()


def test_every_function_on_the_page_is_in_the_file_that_it_names() -> None:
    named = FUNCTION.findall(PAGE)
    assert len(named) > 30
    assert [(name, path) for name, path in named if name not in functions(REPOSITORY / path)] == []


def test_every_folder_has_its_line() -> None:
    assert folders() - {name for name, _ in FOLDER_LINE.findall(PAGE)} == set()


def test_the_imports_are_drawn_as_the_contracts_have_them() -> None:
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = [f"{contract['containers'][0]}: {' → '.join(contract['layers'])}" for contract in contracts if contract["type"] == "layers"]
    assert [line for line in layers if line not in PAGE] == []


def test_every_file_of_a_run_folder_has_its_row() -> None:
    names = {str(value.fget(RunDir(Path()))).split("/")[0] for value in vars(RunDir).values() if isinstance(value, property) and value.fget}
    rows = " ".join(line for line in PAGE.splitlines() if line.startswith("| `"))
    assert {name for name in names if f"`{name}`" not in rows and f"`{name}/`" not in rows} == set()
