"""Describes JSON errors for the author of a file; the messages of Python's json are for programmers."""

from json import JSONDecodeError

# How a message of Python's json (3.11 to 3.14) begins -> what to look for.
PROBLEMS = {
    "Extra data": "more text after the end of the value",
    "Expecting property name enclosed in double quotes": "no key in double quotes",
    "Unterminated string": "a text that no quote ends",
    "Invalid control character": "a line end, a tab or another control character inside a text",
    "Invalid \\": "a backslash that begins no escape such as \\n or \\u00e9",
    "Expecting ':'": "no colon after a key",
    "Expecting ','": "no comma after a value",
    "Illegal trailing comma": "a comma after the last value",
    "Expecting value": "no value, such as a text in double quotes",
}


def described(error: JSONDecodeError) -> str:
    """Return the problem and its column in the line, or that the text ends too early."""
    if error.pos >= len(error.doc.rstrip()):
        return f"it breaks off, column {error.colno}" if error.doc.strip() else "there is nothing in it"
    known = (words for beginning, words in PROBLEMS.items() if error.msg.startswith(beginning))
    return f"{next(known, 'an unexpected character')}, column {error.colno}"
