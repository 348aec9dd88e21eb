"""One record becomes one Sample: a list of messages, some of them to be learned, and the tools they may call."""

import json
from typing import Literal, NotRequired, TypedDict

from trainers.data.layout import Columns, Layout, Tags, kind
from trainers.data.records import Records, refuse_bad_rows

Role = Literal["system", "user", "assistant", "tool"]


class Call(TypedDict):
    name: str
    arguments: dict[str, object]


class Message(TypedDict):
    role: Role
    content: str
    learn: bool
    calls: NotRequired[list[Call]]  # of tools, by an assistant


class Sample(TypedDict):
    place: str  # file or hub id, and record or line
    messages: list[Message]
    tools: list[dict[str, object]]


class RowError(ValueError):
    """What is wrong with one record; read_samples gathers them into one DataError."""


# Which roles may follow which. sharegpt alternates strictly; openai data may hold the answers of several tools in a row.
STRICT: dict[str, tuple[Role, ...]] = {
    "start": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("assistant",),
}
FOLLOWERS: dict[str, dict[str, tuple[Role, ...]]] = {"alpaca": STRICT, "sharegpt": STRICT, "openai": {**STRICT, "tool": ("assistant", "tool")}}


def read_samples(records: Records, layout: Layout) -> list[Sample]:
    """Every record as a sample, in order.

    Raises:
        DataError: listing every record that does not fit the layout.
    """
    samples: list[Sample] = []
    problems: list[str] = []
    for number, record in records.rows:
        try:
            samples.append(read_sample(records.place(number), record, layout))
        except RowError as error:
            problems.append(f"{records.unit} {number}: {error}")
    refuse_bad_rows(records.origin, problems, len(records.rows), f"They were read as {layout.kind} data; mend or remove them.")
    return samples


def read_sample(place: str, record: object, layout: Layout) -> Sample:
    if not isinstance(record, dict):
        raise RowError(f"is a {kind(record)}; it must be an object")
    messages = alpaca_messages(record, layout.columns) if layout.kind == "alpaca" else chat_messages(record, layout)
    system = optional_text(record, layout.columns.system)
    if system and messages[0]["role"] != "system":
        messages = [plain("system", system), *messages]
    refuse_wrong_order(messages, FOLLOWERS[layout.kind])
    return {"place": place, "messages": messages, "tools": read_tools(record, layout.columns.tools)}


def alpaca_messages(record: dict[str, object], columns: Columns) -> list[Message]:
    assert columns.prompt is not None
    assert columns.response is not None  # required columns of the layout
    prompt, query = text(record, columns.prompt), optional_text(record, columns.query)
    question = "\n".join(part for part in (prompt, query) if part)
    turns = [*read_history(record, columns.history), (question, text(record, columns.response))]
    return [message for user, answer in turns for message in (plain("user", user), plain("assistant", answer))]


def read_history(record: dict[str, object], column: str | None) -> list[tuple[str, str]]:
    turns = record.get(column) if column is not None else None
    if turns is None:
        return []
    if not isinstance(turns, list):
        raise RowError(f"column {column}: is a {kind(turns)}; it must be a list of [question, answer]")
    for number, turn in enumerate(turns, start=1):
        if not (isinstance(turn, list) and len(turn) == 2 and all(isinstance(part, str) for part in turn)):
            raise RowError(f"column {column}: turn {number} must be [question, answer], both text")
    return [(question, answer) for question, answer in turns]


def chat_messages(record: dict[str, object], layout: Layout) -> list[Message]:
    column = layout.columns.messages
    assert column is not None  # required column of the layout
    turns = record.get(column)
    if turns is None:
        raise missing(record, column)
    if not isinstance(turns, list) or not turns:
        raise RowError(f"column {column}: is {'an empty list' if turns == [] else f'a {kind(turns)}'}; it must be a list of messages")
    return [read_message(turn, layout.tags, f"column {column}, message {number}") for number, turn in enumerate(turns, start=1)]


def read_message(turn: object, tags: Tags, place: str) -> Message:
    if not isinstance(turn, dict):
        raise RowError(f"{place}: is a {kind(turn)}; it must be an object with {tags.role} and {tags.content}")
    roles: dict[object, Role] = {
        tags.system: "system",
        tags.user: "user",
        tags.assistant: "assistant",
        tags.function: "assistant",
        tags.observation: "tool",
    }
    spoken = turn.get(tags.role)
    if not isinstance(spoken, str) or spoken not in roles:
        raise RowError(f"{place}: {tags.role}={spoken!r} is not a role; it is one of: {', '.join(map(str, roles))}")
    content = turn.get(tags.content)
    calls = read_calls(turn.get("tool_calls"), place)
    if not isinstance(content, str) and not (content is None and calls):
        raise RowError(f"{place}: {tags.content} is a {kind(content)}; it must be text")
    if spoken == tags.function and spoken != tags.assistant:
        return {**plain("assistant", ""), "calls": read_calls(content, place)}
    message = plain(roles[spoken], content or "", learn=turn.get("weight") != 0)  # OpenAI's fine-tuning format: weight 0 is not learned
    return {**message, "calls": calls} if calls else message


def read_calls(value: object, place: str) -> list[Call]:
    """Tool calls, as openai's list or as the JSON text of one or several {"name": ..., "arguments": {...}}."""
    parsed = parse_json(value, f"{place}: the function call") if isinstance(value, str) else value
    items = parsed if isinstance(parsed, list) else [] if parsed is None else [parsed]
    calls: list[Call] = []
    for item in items:
        function = item.get("function", item) if isinstance(item, dict) else {}
        name, arguments = function.get("name"), function.get("arguments")
        arguments = parse_json(arguments, f"{place}: the arguments") if isinstance(arguments, str) else arguments
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise RowError(f"{place}: a function call must be an object with name (text) and arguments (an object)")
        calls.append({"name": name, "arguments": arguments})
    return calls


def read_tools(record: dict[str, object], column: str | None) -> list[dict[str, object]]:
    """The column's list of tools, or the JSON text of it; each in the form that chat templates expect."""
    value = record.get(column) if column is not None else None
    parsed = parse_json(value, f"column {column}") if isinstance(value, str) and value.strip() else value
    if parsed is None or parsed == "":
        return []
    if not isinstance(parsed, list) or not all(isinstance(tool, dict) for tool in parsed):
        raise RowError(f"column {column}: must be a list of tools, or its JSON text")
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in parsed]


def refuse_wrong_order(messages: list[Message], followers: dict[str, tuple[Role, ...]]) -> None:
    before = "start"
    for number, message in enumerate(messages, start=1):
        if message["role"] not in followers[before]:
            after = "at the start" if before == "start" else f"after {before}"
            raise RowError(f"message {number} is of role {message['role']}; {after} comes {' or '.join(followers[before])}")
        before = message["role"]
    if before != "assistant":
        raise RowError(f"the last message is of role {before}; it must be the assistant's answer, which is what is learned")


def plain(role: Role, content: str, learn: bool = True) -> Message:
    return {"role": role, "content": content, "learn": role == "assistant" and learn}


def text(record: dict[str, object], column: str) -> str:
    value = record.get(column)
    if column not in record:
        raise missing(record, column)
    if not isinstance(value, str):
        raise RowError(f"column {column}: is a {kind(value)}; it must be text")
    return value


def optional_text(record: dict[str, object], column: str | None) -> str:
    if column is None or record.get(column) is None:
        return ""
    return text(record, column)


def missing(record: dict[str, object], column: str) -> RowError:
    return RowError(f"column {column} is missing; there are {', '.join(map(str, record)) or 'none'}")


def parse_json(value: str, what: str) -> object:
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise RowError(f"{what} is broken JSON at line {error.lineno}, column {error.colno}: {error.msg}") from error
