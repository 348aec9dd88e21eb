"""How records are laid out: the columns and tags of alpaca, sharegpt and openai data."""

from dataclasses import dataclass, field
from typing import Literal


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
    kind: Literal["alpaca", "sharegpt", "openai"]
    required: tuple[str, ...]  # fields of Columns
    columns: Columns = field(default_factory=Columns)
    tags: Tags = field(default_factory=Tags)


ALPACA = Layout("alpaca", required=("prompt", "response"))
SHAREGPT = Layout("sharegpt", required=("messages",))
OPENAI = Layout(
    "openai",
    required=("messages",),
    columns=Columns(messages="messages"),
    tags=Tags(role="role", content="content", user="user", assistant="assistant", observation="tool"),
)


def layout_of_columns(names: set[str], first_message: set[str]) -> Layout | None:
    """The layout of a file that no registry describes, by its columns and the keys of its first message."""
    if "messages" in names and {"role"} <= first_message:
        return OPENAI
    if "conversations" in names and {"from", "value"} <= first_message:
        return SHAREGPT
    if {"instruction", "output"} <= names:
        return ALPACA
    return None


def kind(value: object) -> str:
    """A value's type in the words of JSON."""
    names = {dict: "object", list: "list", str: "text", bool: "true or false", int: "number", float: "number", type(None): "null"}
    return names.get(type(value), type(value).__name__)
