"""The columns of one record as messages, in the words of each layout."""

import json

from conf.data_layout import NO_LISTS, Columns, Layout, Tags, in_words, is_list_as_text
from conf.strict_json import LongNumber, RepeatedKey, broken, loads
from trainers.data.samples.chat import Call, Message, Role, RowError, plain
from trainers.data.samples.watched import holds_something

# Further names of roles in the format of OpenAI: of instructions since 2024, and of the result of a tool before that.
OPENAI_ROLES: dict[object, Role] = {"developer": "system", "function": "tool"}

OWN = ("role", "content")  # of messages as templates read them, under whichever tags the data name them

CALLS = ("tool_calls", "function_call")  # the second in exports from before 2024, of one call


def prompt_messages(record: dict[str, object], layout: Layout) -> list[Message]:
    """What the layout's question holds; in sharegpt and openai data with the answer, unless that has columns of its own."""
    if layout.kind == "alpaca":
        return alpaca_question(record, layout.columns)
    if layout.kind == "trl":
        assert layout.columns.prompt is not None
        return text_or_messages(record, layout.columns.prompt, "user", layout.tags)
    assert layout.columns.messages is not None  # required columns of the layout
    return message_list(record, layout.columns.messages, layout.tags)


def alpaca_question(record: dict[str, object], columns: Columns) -> list[Message]:
    assert columns.prompt is not None
    prompt, query = text(record, columns.prompt), optional_text(record, columns.query)
    question = "\n".join(part for part in (prompt, query) if part)
    history = read_history(record, columns.history)
    return [*(message for user, answer in history for message in (plain("user", user), plain("assistant", answer))), plain("user", question)]


def text_or_messages(record: dict[str, object], column: str, role: Role, tags: Tags) -> list[Message]:
    """A text in `role`, one message, or a list of messages."""
    value = record.get(column)
    if isinstance(value, str):
        return [plain(role, value)]
    if isinstance(value, dict):
        return [read_message(value, tags, f"column {column}")]
    if column in record and not isinstance(value, list):
        raise RowError(f"column {column} is {in_words(value)}; it must be text, a message or a list of messages")
    return message_list(record, column, tags)


def read_history(record: dict[str, object], column: str | None) -> list[tuple[str, str]]:
    turns = record.get(column) if column is not None else None
    if turns is None or turns == "":  # in a CSV file, an empty text means none
        return []
    if not isinstance(turns, list):
        raise RowError(f"column {column} is {in_words(turns)}; it must be a list of [question, answer]{as_text(turns)}")
    for number, turn in enumerate(turns, start=1):
        if not (isinstance(turn, list) and len(turn) == 2 and all(isinstance(part, str) for part in turn)):
            raise RowError(f"column {column}: turn {number} must be [question, answer], both text")
    return [(question, answer) for question, answer in turns]


def as_text(value: object) -> str:
    return f". {NO_LISTS.rstrip('.')}" if is_list_as_text(value) else ""


def message_list(record: dict[str, object], column: str, tags: Tags) -> list[Message]:
    turns = record.get(column)
    if column not in record:
        raise missing(record, column)
    if not isinstance(turns, list) or not turns:
        raise RowError(f"column {column} is {in_words(turns)}; it must be a list of messages{as_text(turns)}")
    return [read_message(turn, tags, f"column {column}, message {number}") for number, turn in enumerate(turns, start=1)]


def read_message(turn: object, tags: Tags, place: str) -> Message:
    if not isinstance(turn, dict):
        raise RowError(f"{place} is {in_words(turn)}; it must be an object with {tags.role} and {tags.content}")
    roles: dict[object, Role] = {
        tags.system: "system",
        tags.user: "user",
        tags.assistant: "assistant",
        tags.function: "assistant",
        tags.observation: "tool",
    }
    roles = {**OPENAI_ROLES, **roles} if tags.role == "role" else roles
    spoken = turn.get(tags.role)
    if not isinstance(spoken, str) or spoken not in roles:
        raise RowError(f"{place}: {tags.role}={spoken!r} is not a role; it is one of: {', '.join(map(str, roles))}")
    content = joined_parts(turn.get(tags.content), place)
    unread = parts_unread(turn.get(tags.content))
    calls = [call for name in CALLS for call in read_calls(turn.get(name), place, unread)]
    if not isinstance(content, str) and not (content is None and calls):
        raise RowError(f"{place}: {tags.content} is {in_words(content)}; it must be text")
    weight = turn.get("weight")
    message = plain(roles[spoken], content or "", learn=weight != 0)  # OpenAI's fine-tuning format: weight 0 is not learned
    if weight in (0, 1):
        message["weight"] = int(weight)  # type: ignore[call-overload]  # a number or a truth value
    if spoken == tags.function and spoken != tags.assistant:
        message["content"], calls = "", [*calls, *read_calls(content, place, unread)]
    if calls:
        message["calls"] = calls
    further = {key: value for key, value in turn.items() if key not in (tags.role, tags.content, "weight", *CALLS) and holds_something(value)}
    unread += [f"field {key} of a message" for key in (*OWN, *CALLS) if further.pop(key, None) is not None]
    if weight not in (None, 0, 1):
        unread.append("field weight of a message, as it is neither 0 nor 1")
    message = {**message, "further": further} if further else message
    return {**message, "unread": unread} if unread else message


def parts_unread(content: object) -> list[str]:
    """What parts of a content hold beside their text."""
    parts = content if isinstance(content, list) else []
    return [
        f"field {key} of a part"
        for part in parts
        if isinstance(part, dict)
        for key in part
        if key not in ("type", "text") and holds_something(part[key])
    ]


def joined_parts(content: object, place: str) -> object:
    """OpenAI's content in parts as one text; anything else as it is."""
    if not isinstance(content, list) or not all(isinstance(part, dict) and "type" in part for part in content):
        return content
    for number, part in enumerate(content, start=1):
        if part["type"] != "text" or not isinstance(part.get("text"), str):
            raise RowError(f"{place}, part {number} is of type {part['type']!r}; only parts of type text can be used")
    return "".join(part["text"] for part in content)


def read_calls(value: object, place: str, unread: list[str]) -> list[Call]:
    """Tool calls, as openai's list or as the JSON text of one or several {"name": ..., "arguments": {...}}."""
    parsed = parse_json(value, f"{place}: the function call") if isinstance(value, str) else value
    items = parsed if isinstance(parsed, list) else [] if parsed is None else [parsed]
    calls: list[Call] = []
    for item in items:
        function = item.get("function", item) if isinstance(item, dict) else {}
        function = function if isinstance(function, dict) else {}
        name, arguments = function.get("name"), function.get("arguments")
        arguments = parse_json(arguments, f"{place}: the arguments") if isinstance(arguments, str) else arguments
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise RowError(f"{place}: a function call must be an object with name (text) and arguments (an object)")
        read = {"id", "type", "function"} if function is not item else {"id", "type", "name", "arguments"}
        unread += [f"field {key} of a call" for key in item if holds_something(item[key]) and not is_read(key, item[key], read)]
        if function is not item:
            unread += [f"field {key} of a call" for key in function if key not in ("name", "arguments") and holds_something(function[key])]
        call: Call = {"name": name, "arguments": arguments}
        calls.append({**call, "id": item["id"]} if isinstance(item.get("id"), str) else call)
    return calls


def is_read(key: str, value: object, read: set[str]) -> bool:
    """Whether a field of a call reaches the template: its type is always written as function."""
    return key in read and not (key == "type" and value != "function") and not (key == "id" and not isinstance(value, str))


def read_tools(record: dict[str, object], column: str | None) -> list[dict[str, object]]:
    """The column's list of tools, or the JSON text of it; each in the form that chat templates expect."""
    value = record.get(column) if column is not None else None
    parsed = parse_json(value, f"column {column}") if isinstance(value, str) and value.strip() else value
    if parsed is None or parsed == "":
        return []
    if not isinstance(parsed, list) or not all(isinstance(tool, dict) for tool in parsed):
        raise RowError(f"column {column}: must be a list of tools, or its JSON text")
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in parsed]


def text(record: dict[str, object], column: str) -> str:
    value = record.get(column)
    if column not in record:
        raise missing(record, column)
    if not isinstance(value, str):
        raise RowError(f"column {column} is {in_words(value)}; it must be text")
    return value


def optional_text(record: dict[str, object], column: str | None) -> str:
    if column is None or record.get(column) is None:
        return ""
    return text(record, column)


def missing(record: dict[str, object], column: str) -> RowError:
    return RowError(f"column {column} is missing; the record has {', '.join(map(str, record)) or 'none'}")


def parse_json(value: str, what: str) -> object:
    try:
        return loads(value)
    except (LongNumber, RepeatedKey) as error:
        raise RowError(f"{what}: {error}") from error
    except json.JSONDecodeError as error:
        raise RowError(f"{what} is broken JSON at line {error.lineno}, column {error.colno}: {broken(error)}") from error
    except RecursionError as error:
        raise RowError(f"{what} is JSON nested too deeply") from error
