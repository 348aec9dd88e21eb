"""How records are laid out: the columns and tags of alpaca, sharegpt, openai and trl data, and what a set of them holds."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from conf.stages import Kind

LONGEST = 40  # characters of a text that a message shows


@dataclass(frozen=True)
class Columns:
    """Column names; None: not read."""

    prompt: str | None = "instruction"
    query: str | None = "input"
    response: str | None = "output"
    history: str | None = "history"
    messages: str | None = "conversations"
    system: str | None = "system"
    tools: str | None = "tools"
    chosen: str | None = "chosen"
    rejected: str | None = "rejected"
    kto_tag: str | None = "kto_tag"


@dataclass(frozen=True)
class Tags:
    """The keys of one message, and the names of the roles."""

    role: str = "from"
    content: str = "value"
    user: str = "human"
    assistant: str = "gpt"
    observation: str = "observation"
    function: str = "function_call"
    system: str = "system"


@dataclass(frozen=True)
class Layout:
    kind: Literal["alpaca", "sharegpt", "openai", "trl"]
    columns: Columns = field(default_factory=Columns)
    tags: Tags = field(default_factory=Tags)
    holds: Kind = "answers"
    named: tuple[str, ...] = ()  # columns that the registry names, which some record must then have

    @property
    def required(self) -> tuple[str, ...]:
        """The fields of Columns without which there is no sample."""
        question = "messages" if self.kind in ("sharegpt", "openai") else "prompt"
        answer = ("response",) if question == "prompt" else ()
        rest: dict[Kind, tuple[str, ...]] = {
            "text": (),
            "prompts": (),
            "answers": answer,
            "pairs": ("chosen", "rejected"),
            "labelled": (*answer, "kto_tag"),
        }
        return (question, *rest[self.holds])


ROLE_AND_CONTENT = Tags(role="role", content="content", user="user", assistant="assistant", observation="tool")

ALPACA = Layout("alpaca")
SHAREGPT = Layout("sharegpt")
OPENAI = Layout("openai", columns=Columns(messages="messages"), tags=ROLE_AND_CONTENT)
# TRL's dataset formats: prompt, completion, chosen and rejected are text or lists of messages.
TRL = Layout("trl", columns=Columns(prompt="prompt", query=None, response="completion", history=None, kto_tag="label"), tags=ROLE_AND_CONTENT)
TEXT = Layout("alpaca", columns=Columns(prompt="text", query=None, history=None, system=None, tools=None), holds="text")


def layout_of_record(record: dict[str, object]) -> Layout | None:
    """The layout of a file that no registry describes, by the columns of its first record."""
    names = set(record)
    tag = next((name for name in ("kto_tag", "label") if isinstance(record.get(name), bool)), None)
    holds: Kind = "pairs" if {"chosen", "rejected"} <= names else "labelled" if tag else "answers"
    if "role" in keys_of_first_message(record.get("messages")) and not {"prompt", "chosen"} <= names:
        tools = "functions" if "functions" in names and "tools" not in names else "tools"  # of exports from before 2024
        return with_tag(replace(OPENAI, columns=replace(OPENAI.columns, tools=tools), holds=holds), tag)
    if {"from", "value"} <= keys_of_first_message(record.get("conversations")):
        return with_tag(replace(SHAREGPT, holds=holds), tag)
    if "instruction" in names and (holds == "pairs" or "output" in names):
        return with_tag(replace(ALPACA, holds=holds), tag)
    if holds == "pairs":
        return None if lacks_prompt(record) else replace(TRL, holds="pairs")
    answer = next((name for name in ("completion", "response") if name in names), None)
    if "prompt" in names and answer is not None:
        return replace(TRL, columns=replace(TRL.columns, response=answer), holds="labelled" if "label" in names else "answers")
    if "prompt" in names:
        return replace(TRL, holds="prompts")
    return TEXT if "text" in names else None


def lacks_prompt(record: dict[str, object]) -> bool:
    """Texts to compare beside a text of another name, a question most likely: what both answers begin with is then no prompt."""
    others = [value for name, value in record.items() if name not in ("chosen", "rejected")]
    return "prompt" not in record and isinstance(record["chosen"], str) and any(isinstance(value, str) for value in others)


def with_tag(layout: Layout, tag: str | None) -> Layout:
    return replace(layout, columns=replace(layout.columns, kto_tag=tag)) if tag else layout


def keys_of_first_message(turns: object) -> set[str]:
    return set(turns[0]) if isinstance(turns, list) and turns and isinstance(turns[0], dict) else set()


def in_words(value: object) -> str:
    """A value in the words of JSON, for a sentence: null, the number 3, the text 'a', an empty list."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, dict)):
        return ("a list" if value else "an empty list") if isinstance(value, list) else "an object"
    if isinstance(value, str):
        return f"the text {value if len(value) <= LONGEST else value[:LONGEST] + '...'!r}" if value.strip() else "an empty text"
    return f"the number {value}" if isinstance(value, (int, float)) else f"a value of type {type(value).__name__}"


NO_LISTS = "A CSV file holds texts alone, and a text is not read as a list. Write the records to a .jsonl file, with lists that are not quoted."


def is_list_as_text(value: object) -> bool:
    """As a CSV file would hold a list of messages or turns."""
    return isinstance(value, str) and re.match(r"\s*\[\s*[\[{]", value) is not None


LAYOUTS_IN_WORDS = (
    "text (pre-training), instruction and output (alpaca), conversations of from and value (sharegpt), messages of role and content (openai), "
    "prompt and completion (or response), or chosen and rejected (trl)"
)


def no_layout(place: str, record: Mapping[str, object]) -> str:
    """What to say of a record whose columns fit no layout."""
    written = [name for name in ("messages", "conversations", "prompt", "chosen") if is_list_as_text(record.get(name))]
    if written:
        return f"{place}: the column {written[0]} holds a list of messages as text. {NO_LISTS}"
    if ".csv" in place and len(record) == 1 and re.search(r"[;\t|]", next(iter(record))):
        return f"{place}: the first line holds the one name {next(iter(record))!r}. Separate names and values with commas."
    entry = example_entry(place, record)
    shown = f" For example: {json.dumps({'my_set': entry}, ensure_ascii=False)}, and data.sets=[my_set]." if entry else ""
    return (
        f"{place}: the columns ({', '.join(sorted(record)) or 'none'}) fit no known layout: {LAYOUTS_IN_WORDS}. "
        f"Describe the file in the registry (data.registry), or rename its columns.{shown}"
    )


ASIDE = ("id", "idx", "index", "uid", "uuid", "source", "url", "lang", "language", "category", "type")  # columns that are seldom what is learned


def example_entry(place: str, record: Mapping[str, object]) -> dict[str, object] | None:
    """An entry of the registry that describes such a record, where its columns can be guessed: messages, question and answer, or a text."""
    file = {"file_name": Path(place.rpartition(",")[0]).name}
    for name, value in record.items():
        keys = keys_of_first_message(value)
        for formatting, layout in (("openai", OPENAI), ("sharegpt", SHAREGPT)):
            if {layout.tags.role, layout.tags.content} <= keys:
                return {**file, "formatting": formatting, "columns": {"messages": name}}
    texts = [name for name, value in record.items() if isinstance(value, str) and name not in (*ASIDE, "chosen", "rejected")]
    if not texts:
        return None
    if {"chosen", "rejected"} <= set(record):
        return {**file, "ranking": True, "columns": {"prompt": texts[0], "chosen": "chosen", "rejected": "rejected"}}
    return {**file, "columns": {"prompt": texts[0], "response": texts[1]} if len(texts) > 1 else {"prompt": texts[0]}}
