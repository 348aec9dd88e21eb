"""Generated registries and message layouts: whatever a record holds is in its row, or the report names the column or field that is not.

The oracle knows nothing of the reader. Every value of a generated record is a word or a number that occurs once. After tokenising, each is looked for
in the decoded rows. One that is not there must lie under a key that the report names, or in a record that is listed as one that cannot be used.
"""

import json
import random
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import trl
from transformers import PreTrainedTokenizerBase

from conf.chat_templates import named_template
from conf.data_sets import sources_of
from conf.stages import Kind
from launcher.composition.compose import compose
from trainers.data.prepare.tokenising import Tokenised, Work, tokenise_chunks
from trainers.data.sources.chunks import chunks_of
from trainers.errors import DataError
from trainers.model.tokenizer import byte_tokenizer

CASES, GROUPS = 640, 16
PUBLISHED = Path(trl.__file__).parent / "chat_templates"
NAMED = ("alpaca", "chatml", "deepseek", "gemma", "glm4", "llama2", "llama3", "phi", "qwen", "yi")
FROM_TRL = ("qwen3", "qwen2_5", "llama3", "deepseekv3")
TOOLED = ("alpaca", "chatml", "llama3", "qwen", "trl qwen3", "trl qwen2_5")
# What docs/guides/data.md says that rows can be made of.
SUITS: dict[str, tuple[Kind, ...]] = {
    "text": ("text", "prompts"),
    "answers": ("answers", "prompts"),
    "pairs": ("pairs", "answers", "labelled", "prompts"),
    "labelled": ("labelled", "prompts"),
}
BASE = compose(["model=demo", "data=files", "data.sets=[set]", "data.workers=1"]).data


class Case:
    """One set: its records, and what the registry says of them."""

    def __init__(self, number: int) -> None:
        self.draw = random.Random(number)
        self.words = 0
        self.columns: dict[str, str] = {}  # of the registry
        self.tags: dict[str, str] = {}
        self.kind = self.draw.choice(["alpaca", "sharegpt", "openai", "trl", "text"])
        self.registered = self.kind != "trl" and self.some(0.5)
        self.holds = "text" if self.kind == "text" else self.draw.choice(["answers", "answers", "pairs", "labelled"])
        self.answer = self.draw.choice(["completion", "response"])
        self.tools = self.kind in ("sharegpt", "openai") and self.some(0.5)
        if self.registered and self.kind in ("sharegpt", "openai") and self.some(0.4):
            self.tags = {"role_tag": "who", "content_tag": "says", "user_tag": "asker", "assistant_tag": "helper"}
        self.records = [self.record() for _ in range(self.draw.randint(1, 4))]

    def some(self, share: float) -> bool:
        return self.draw.random() < share

    def word(self) -> str:
        self.words += 1
        return f"w{self.words}x"

    def value(self, depth: int = 0) -> object:
        """Something that no layout knows: a word, a number, or a list or object of such."""
        choice = self.draw.randint(0, 3 if depth < 2 else 1)
        if choice == 0:
            return self.word()
        if choice == 1:
            self.words += 1
            return 7_000_000 + self.words
        return [self.value(depth + 1)] if choice == 2 else {f"inner{self.draw.randint(0, 3)}": self.value(depth + 1)}

    def name(self, role: str, usual: str) -> str:
        """The column's usual name, or in a registry another."""
        if not self.registered:
            return usual
        return self.columns.setdefault(role, f"my_{role}" if self.some(0.5) else usual)

    def extras(self, record: dict[str, object], names: tuple[str, ...], share: float = 0.3) -> dict[str, object]:
        return {**record, **{name: self.value() for name in names if name not in record and self.some(share)}}

    def record(self) -> dict[str, object]:
        made = {"alpaca": self.alpaca, "text": self.text, "trl": self.trl}.get(self.kind, self.chat)()
        return self.extras(made, ("id", "source", "score", "meta", "lang"))

    def text(self) -> dict[str, object]:
        return {self.name("prompt", "text"): self.word()}

    def alpaca(self) -> dict[str, object]:
        record: dict[str, object] = {self.name("prompt", "instruction"): self.word()}
        for role, usual in (("query", "input"), ("system", "system")):
            if self.some(0.4):
                record[self.name(role, usual)] = self.word()
        if self.some(0.3):
            record[self.name("history", "history")] = [[self.word(), self.word()] for _ in range(self.draw.randint(1, 2))]
        if self.holds == "pairs":
            return {**record, self.name("chosen", "chosen"): self.word(), self.name("rejected", "rejected"): self.word()}
        record[self.name("response", "output")] = self.word()
        return {**record, self.name("kto_tag", "kto_tag"): self.some(0.5)} if self.holds == "labelled" else record

    def trl(self) -> dict[str, object]:
        as_text = self.some(0.5)
        answer = self.word if as_text else lambda: [self.message("assistant")]
        record: dict[str, object] = {"prompt": self.word() if as_text else [*self.system(), self.message("user")]}
        if self.some(0.3):
            record["system"] = self.word()
        if self.holds == "pairs" and self.some(0.3):
            opening = [self.message("user")]
            return {**record, "chosen": [*opening, self.message("assistant")], "rejected": [*opening, self.message("assistant")]}
        if self.holds == "pairs":
            return {**record, "chosen": answer(), "rejected": answer()}
        record[self.answer] = answer()
        return {**record, "label": self.some(0.5)} if self.holds == "labelled" else record

    def chat(self) -> dict[str, object]:
        column = self.name("messages", "conversations" if self.kind == "sharegpt" else "messages")
        turns = [*self.system(), self.message("user")]
        for _ in range(self.draw.randint(0, 2)):
            turns += [*self.call(), self.message("assistant"), self.message("user")]
        record: dict[str, object] = {column: turns}
        if self.some(0.3):
            record[self.name("system", "system")] = self.word()
        if self.tools:
            tools = [{"name": self.word(), "description": self.word(), "parameters": {"type": "object", "properties": {self.word(): {}}}}]
            record[self.name("tools", "tools")] = json.dumps(tools) if self.some(0.5) else tools
        if self.holds == "pairs":
            answers = {self.name(name, name): self.message("assistant") for name in ("chosen", "rejected")}
            return {**record, **answers}
        turns += [*self.call(), self.message("assistant")]
        return {**record, self.name("kto_tag", "kto_tag"): self.some(0.5)} if self.holds == "labelled" else record

    def system(self) -> list[dict[str, object]]:
        return [self.message("system")] if self.some(0.3) else []

    def call(self) -> list[dict[str, object]]:
        if not self.tools or self.some(0.5):
            return []
        function = {"name": self.word(), "arguments": {f"a{self.word()}": self.value(1)}}
        if self.kind == "sharegpt" and not self.tags:
            return [{"from": "function_call", "value": json.dumps(self.extras(function, ("strict",)))}, {"from": "observation", "value": self.word()}]
        if self.kind == "sharegpt":
            return []
        inner = {**function, "arguments": json.dumps(function["arguments"]) if self.some(0.5) else function["arguments"]}
        call = self.extras({"type": "function", "function": self.extras(inner, ("strict",))}, ("index",))
        if self.some(0.7):
            call["id"] = self.word()
        result = self.message("tool") | ({"tool_call_id": call["id"]} if "id" in call and self.some(0.7) else {})
        asking = self.message("assistant", content=self.some(0.5))
        return [{**asking, "tool_calls": [call]}, result]

    def message(self, role: str, content: bool = True) -> dict[str, object]:
        if self.kind == "sharegpt" and not self.tags:
            keys, spoken = ("from", "value"), {"user": "human", "assistant": "gpt"}.get(role, role)
        else:
            keys = ("who", "says") if self.tags else ("role", "content")
            spoken = {"user": "asker", "assistant": "helper"}.get(role, role) if self.tags else role
        said: object = self.word() if content else None
        if content and self.kind == "openai" and self.some(0.15):
            said = [self.extras({"type": "text", "text": said}, ("annotations",))]
        names = ("name", "mood", "weight", "content", "reasoning_content" if role == "assistant" else "thoughts")
        return self.extras({keys[0]: spoken, keys[1]: said}, names, 0.1)

    def write(self, folder: Path) -> tuple[str, dict[str, object] | None]:
        """The file, and its entry of the registry."""
        flat = all(isinstance(value, str) for record in self.records for value in record.values())
        alike = len({tuple(sorted(record)) for record in self.records}) == 1
        ending = self.draw.choice([".jsonl", ".json", *([".csv"] if flat and alike else []), *([".parquet"] if flat else [])])
        path = folder / f"file{ending}"
        if ending == ".jsonl":
            path.write_text("".join(json.dumps(record) + "\n" for record in self.records))
        elif ending == ".json":
            path.write_text(json.dumps(self.records))
        elif ending == ".csv":
            names = list(self.records[0])
            path.write_text("".join(",".join(row) + "\n" for row in [names, *([str(record[name]) for name in names] for record in self.records)]))
        else:
            names = dict.fromkeys(name for record in self.records for name in record)  # or pyarrow writes those of the first record alone
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist([names | record for record in self.records]), path)
        if not self.registered:
            return path.name, None
        entry: dict[str, object] = {"file_name": path.name, "columns": self.columns, "tags": self.tags}
        return "set", {**entry, "formatting": "alpaca" if self.kind == "text" else self.kind, "ranking": self.holds == "pairs"}


@cache
def tokenizer_of(template: str) -> PreTrainedTokenizerBase:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    text = named_template(template) if template in NAMED else (PUBLISHED / f"{template.removeprefix('trl ')}.jinja").read_text(encoding="utf-8")
    tokenizer.chat_template = text
    return tokenizer


class Uncounted:
    def add(self, records: int, tokens: int) -> None: ...


def leaves(value: object, path: tuple[str, ...] = ()) -> list[tuple[str, tuple[str, ...]]]:
    """Every word and number of a record, each with the keys that it lies under; JSON in a text is looked into."""
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in [*leaves(key, path), *leaves(inner, (*path, key))]]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in leaves(inner, path)]
    if isinstance(value, str) and value[:1] in "[{" and value:
        return leaves(json.loads(value), path)
    marks = re.findall(r"w\d+x|70\d{5}", str(value))
    return [(mark, path) for mark in marks]


def shown(result: Tokenised, tokenizer: PreTrainedTokenizerBase) -> str:
    """All that the rows hold, as text."""
    parts = []
    for row in result.rows:
        parts += [tokenizer.decode(row[name]) for name in row if name.endswith("_ids")]
        parts += [row[name] for name in ("prompt", "answer") if name in row]
    return "\n".join(parts)


def tokenised(case: Case, kind: Kind, template: str, folder: Path) -> Tokenised:
    name, entry = case.write(folder)
    (folder / "dataset_info.json").write_text(json.dumps({} if entry is None else {"set": entry}))
    data = replace(BASE, sets=[name], folder=str(folder), cutoff=100_000)
    work = Work(tokenizer_of(template), data, kind)
    return tokenise_chunks(chunks_of(sources_of(data.sets, data), None, kind), 1, work, folder / "rows.arrow", Uncounted())


def template_for(case: Case) -> str:
    """Mostly one that can show what the case holds."""
    if case.tools and case.some(0.9):
        return case.draw.choice(TOOLED)
    return case.draw.choice([*NAMED, *(f"trl {name}" for name in FROM_TRL)])


@pytest.mark.parametrize("group", range(GROUPS))
def test_what_a_record_holds_is_in_its_row_or_in_the_report(group: int, tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    for number in range(group, CASES, GROUPS):
        case = Case(number)
        template = template_for(case)
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            result = tokenised(case, case.draw.choice(SUITS[case.holds]), template, folder)
        except DataError:
            continue
        counts["sets"] += 1
        text = shown(result, tokenizer_of(template))
        named = " ".join(name for notes in result.notes for what in ("unread", "repairs") for name in notes[what])
        bad = {problem.number for problem in result.problems}
        for place, record in enumerate(case.records, start=2 if (folder / "file.csv").exists() else 1):
            if place in bad:
                counts["bad"] += 1
                continue
            counts["read"] += 1
            kept = {column: role for role, column in case.columns.items()}
            apart = any(name in named for name in ("answers that are labelled bad", "calls and fields of answers"))
            for mark, path in leaves(record):
                if not re.search(rf"(?<![0-9a-z]){re.escape(mark)}|(?<=a){re.escape(mark)}", text):
                    counts["unread"] += 1
                    keys = [*path, *(kept[key] for key in path if key in kept)]
                    assert apart or any(re.search(rf"\b{re.escape(key)}\b", named) for key in keys), (number, template, mark, path, named, record)
    assert counts["sets"] >= 32, counts  # in 16 groups 512
    assert counts["read"] > 4 * counts["bad"], counts
    assert counts["unread"] > 20, counts
