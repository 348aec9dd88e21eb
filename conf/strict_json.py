"""JSON in which no value vanishes: an object that holds a key twice is refused, where the json module keeps the last value alone."""

import json
import re

# Characters that input methods and word processors write where JSON has one of ASCII.
LOOKALIKES = {
    **dict.fromkeys("，、", "a comma (,)"),
    **dict.fromkeys("：", "a colon (:)"),
    **dict.fromkeys("“”„‟＂«»「」『』", 'a straight double quote (")'),
    **dict.fromkeys("‘’‚‛＇'", 'a straight double quote (")'),
    **dict.fromkeys("｛", "an opening brace ({)"),
    **dict.fromkeys("｝", "a closing brace (})"),
    **dict.fromkeys("［【", "an opening bracket ([)"),
    **dict.fromkeys("］】", "a closing bracket (])"),
    **dict.fromkeys("\u3000\u00a0\ufeff", "a space or nothing"),
}
TEXT = re.compile(r'"(?:[^"\\]|\\.)*(?:"|$)')


def broken(error: json.JSONDecodeError) -> str:
    """What is wrong, with the character that only looks like the one of JSON where there is one."""
    found = error.doc[error.pos : error.pos + 1]
    if found in LOOKALIKES and found:
        shown = found if found.isprintable() and not found.isspace() else f"U+{ord(found):04X}"
        return f"{error.msg}, and {shown} stands there: JSON needs {LOOKALIKES[found]}"
    if found and found in "]}" and error.doc[: error.pos].rstrip().endswith(","):
        return f"{error.msg}: a comma stands before {found}, and JSON has none there"
    line = error.doc[error.doc.rfind("\n", 0, error.pos) + 1 : error.pos]
    text = next((match[0] for match in reversed([*TEXT.finditer(line)])), "")  # the last one, which may have no end
    if text.count("”") > text.count("“"):
        return f"{error.msg}. The text before it holds ” without “: where a text ends, JSON needs {LOOKALIKES['”']}"
    return error.msg


class LongNumber(ValueError):
    def __init__(self) -> None:
        super().__init__("a whole number has more digits than can be read")


class RepeatedKey(ValueError):
    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key!r} stands twice in one object, and only its last value would be read")


class Repeated(dict[str, object]):
    """An object whose text holds a key twice."""

    def __init__(self, key: str, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        self.key = key


def loads(text: str) -> object:
    """The value of a text.

    Raises:
        RepeatedKey: where an object within it holds a key twice.
        LongNumber: for more digits than Python reads (4,300).
        json.JSONDecodeError, RecursionError: as json.loads.
    """
    return json.loads(text, object_pairs_hook=whole, parse_int=number)


def loads_marked(text: str) -> object:
    """The same with such objects marked as Repeated."""
    return json.loads(text, object_pairs_hook=marked, parse_int=number)


def number(digits: str) -> int:
    try:
        return int(digits)
    except ValueError as error:
        raise LongNumber from error


def whole(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise RepeatedKey(first_repeated(pairs))
    return made


def marked(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    return Repeated(first_repeated(pairs), pairs) if len(made) < len(pairs) else made


def first_repeated(pairs: list[tuple[str, object]]) -> str:
    keys = [key for key, _ in pairs]
    return next(key for number, key in enumerate(keys) if key in keys[:number])


def repeated_key(value: object) -> str | None:
    """The key that a marked object within the value holds twice."""
    if isinstance(value, Repeated):
        return value.key
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((key for key in map(repeated_key, inner) if key is not None), None)
