"""Problems in JSON are described without the words of Python's json."""

import json

import pytest

from finetrail.json_errors import PROBLEMS, described


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{} {}", "more text after the end of the value, column 4"),
        ("{a: 1}", "no key in double quotes, column 2"),
        ('{"a": "b}', "a text that no quote ends, column 7"),
        ('{"a": "b\nc"}', "a line end, a tab or another control character inside a text, column 9"),
        (r'{"a": "\d"}', "a backslash that begins no escape such as \\n or \\u00e9, column 8"),
        (r'{"a": "\u00"}', "a backslash that begins no escape such as \\n or \\u00e9, column 9"),
        ('{"a" 1}', "no colon after a key, column 6"),
        ('{"a": 1 "b"}', "no comma after a value, column 9"),
        ("{\"a\": 'b'}", "no value, such as a text in double quotes, column 7"),
        ('{"a": [1', "it breaks off, column 9"),
        ('{"a":\n', "it breaks off, column 1"),
        (" ", "there is nothing in it"),
    ],
)
def test_a_fault_is_told_in_plain_words(text: str, told: str) -> None:
    with pytest.raises(json.JSONDecodeError) as error:
        json.loads(text)
    assert described(error.value).startswith(told)


def test_an_unknown_fault_is_told_too() -> None:
    assert described(json.JSONDecodeError("Something new", "abc", 1)) == "an unexpected character, column 2"
    assert "Something" not in "".join(PROBLEMS)
