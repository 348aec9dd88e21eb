"""The commands that README and the pages show, as a shell reads them."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:regimen|torchrun|make|pip install) [^`\n]+)`")
PROGRAMS = ("regimen", "torchrun", "make", "pip", "python")
SPELL = "".join(f'{name}() {{ printf "%s\\0" {name} "$@"; printf "\\n"; }}\n' for name in PROGRAMS)
SPELL += "ls() { case $2 in *rm*|*judge*) echo outputs/JUDGE/TIME ;; *) echo outputs/RUN/TIME ;; esac; }\n"  # where a script looks for its runs


@dataclass(frozen=True)
class Command:
    page: str
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def spelt(script: str) -> list[tuple[str, ...]]:
    """The words of each call of one of the programs, as a shell reads them in an empty folder."""
    done = subprocess.run(["bash", "-c", SPELL + script], capture_output=True, text=True, check=False, cwd="/")
    return [tuple(line.removesuffix("\0").split("\0")) for line in done.stdout.splitlines() if line.split("\0")[0] in PROGRAMS]


def in_blocks(text: str) -> Iterator[tuple[str, ...]]:
    for language, block in BLOCK.findall(text):
        if language not in ("", "sh", "bash"):
            continue
        block = block.replace("\\\n", " ")
        shown = [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
        script = "\n".join(shown) if shown else block
        if not any(re.search(rf"(^|\| ){name} ", line) for name in PROGRAMS for line in script.splitlines()):
            continue
        calls = spelt(script)
        for words in calls:
            at = words.index("...") if "..." in words else None
            yield words if at is None else (*words[:at], *calls[0][2:], *words[at + 1 :])


def commands() -> list[Command]:
    found = [Command(str(page.relative_to(REPOSITORY)), words) for page in PAGES for words in in_blocks(page.read_text(encoding="utf-8"))]
    for page in PAGES:
        for text in INLINE.findall(page.read_text(encoding="utf-8")):
            if not re.search(r"\.\.\.|…", text):
                found += [Command(str(page.relative_to(REPOSITORY)), words) for words in spelt(text)]
    own = "docs/reference/own_groups.md"  # tests/launcher/composition/test_own_groups.py makes its files
    return list({command.words: command for command in found if command.page != own}.values())
