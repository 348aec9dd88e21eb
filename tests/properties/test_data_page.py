"""docs/guides/data.md says what the code does: each record of its table, each stage a set suits, each template."""

import json
import re
from pathlib import Path

from conf.chat_templates import template_names
from conf.data_kinds import WORDS, stages_served
from conf.data_layout import layout_of_record
from conf.data_registry import KEYS, MEDIA
from conf.data_sets import ENDINGS
from trainers.data.samples.conversion import MAKE

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "data.md").read_text(encoding="utf-8")
RECORD = re.compile(r"^\| `(\{.*\})` \| (\w+) \| (\w+) \|$", re.MULTILINE)


def test_each_record_of_the_page_is_read_as_it_says():
    rows = RECORD.findall(PAGE)
    assert len(rows) == 15
    for record, kind, holds in rows:
        layout = layout_of_record(json.loads(record))
        assert layout is not None
        assert (layout.kind, layout.holds) == (kind, holds)


def test_the_page_names_the_stages_that_each_set_suits():
    for held in MAKE:
        assert f"| {WORDS[held]} | {', '.join(f'`{stage}`' for stage in stages_served(held))} |" in PAGE


def test_the_page_names_every_template_ending_and_key():
    for name in (*template_names(), *ENDINGS, *KEYS, *MEDIA):
        assert f"`{name}`" in PAGE
