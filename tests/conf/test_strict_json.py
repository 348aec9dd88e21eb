"""JSON in which no value vanishes."""

import json

import pytest

from conf.strict_json import LongNumber, broken, loads


def test_a_number_of_too_many_digits_is_named() -> None:
    with pytest.raises(LongNumber, match="a whole number has more digits than can be read"):
        loads('{"a": ' + "7" * 5000 + "}")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"a": 1，"b": 2}', "and ， stands there: JSON needs a comma (,)"),
        ('{"a"：1}', "and ： stands there: JSON needs a colon (:)"),
        ("{“a”: 1}", 'and “ stands there: JSON needs a straight double quote (")'),
        ("{'a': 1}", "and ' stands there: JSON needs a straight double quote"),
        ('["a"］', "and ］ stands there: JSON needs a closing bracket"),
        ('{"a": 1,\u3000"b": 2}', "and U+3000 stands there: JSON needs a space or nothing"),
        ('[{"a": 1},]', "Expecting value: a comma stands before ], and JSON has none there"),
        ('{"a": 1,\n}', ": a comma stands before }, and JSON has none there"),
        ('{"a": "text”, "b": "c"}', "The text before it holds ” without “: where a text ends, JSON needs a straight double quote"),
        ('{"a": "text”,\n "b": "c"}', "The text before it holds ” without “"),
    ],
)
def test_a_character_that_looks_like_one_of_json_is_named(text: str, named: str) -> None:
    with pytest.raises(json.JSONDecodeError) as raised:
        loads(text)
    assert named in broken(raised.value)


@pytest.mark.parametrize("text", ['{"a": 1 "b": 2}', '{"a": "“said”" 1}', "", '{"a": "b'])
def test_what_is_broken_otherwise_keeps_the_words_of_the_parser(text: str) -> None:
    with pytest.raises(json.JSONDecodeError) as raised:
        loads(text)
    assert broken(raised.value) == raised.value.msg
