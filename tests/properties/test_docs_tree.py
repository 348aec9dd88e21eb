"""The pages are of three kinds, the site's list has each of them once, and every link on them resolves, anchors too."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "CHANGELOG.md"]
LISTED = re.compile(r"^```\{toctree\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings: lower case, without punctuation, a hyphen for each space; the second of a name gets -1."""
    found: list[str] = []
    for heading in re.findall(r"^#+ +(.+)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return set(found)


def broken(page: Path) -> list[str]:
    links = [link for link in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))) if "://" not in link and not link.startswith("mailto:")]
    wrong = []
    for link in links:
        path, _, anchor = link.partition("#")
        target = Path(os.path.normpath(page.parent / path)) if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_of_a_page_resolves(page: Path) -> None:
    assert broken(page) == []


def test_a_link_or_an_anchor_that_is_not_there_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One, two\n\n[a](#one-two) [b](#three) [c](other.md) [d](page.md#four)\n")
    assert broken(page) == ["#three", "other.md", "page.md#four"]


def test_every_page_is_a_guide_a_concept_or_reference_and_listed_once() -> None:
    listed = [f"{line}.md" for block in LISTED.findall((DOCS / "index.md").read_text()) for line in block.splitlines() if line and line[0] != ":"]
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")} - {"index.md"}
    assert sorted(listed) == sorted(pages)
    assert {page.split("/")[0] for page in pages} == {"guides", "concepts", "reference"}


def built(docs: Path, site: Path) -> "subprocess.CompletedProcess[str]":
    """As `make docs`, without a network: a host that is asked for cannot be reached through this proxy."""
    options = ("--fail-on-warning", "--keep-going", "--quiet", "-b", "html", "-c", str(docs / "site"))
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    argv = [sys.executable, "-m", "sphinx", *options, str(docs), str(site)]
    return subprocess.run(argv, env={**os.environ, **nowhere}, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("myst_parser") is None, reason="the generator of the site is an extra: docs")
def test_the_site_is_built_without_a_network_and_a_broken_link_ends_the_build(tmp_path: Path) -> None:
    copied = tmp_path / "docs"
    shutil.copytree(DOCS, copied)
    for name in ("README.md", "benchmarks", "conf", "trainers", "CONTRIBUTING.md"):  # pages link to them
        (tmp_path / name).symlink_to(REPOSITORY / name)
    whole = built(copied, tmp_path / "site")
    assert whole.returncode == 0, whole.stderr
    made = (tmp_path / "site" / "guides" / "training.html").read_text()
    assert not re.search(r"""<(?:script|link|img)[^>]*(?:src|href)=["'](?:https?:)?//""", made)  # a page loads nothing from other hosts
    with (copied / "guides" / "training.md").open("a") as page:
        page.write("\n[nowhere](nowhere.md) [no heading](data.md#nothing)\n")
    spoilt = built(copied, tmp_path / "spoilt")
    assert spoilt.returncode != 0
    assert "nowhere.md" in spoilt.stderr
    assert "nothing" in spoilt.stderr
