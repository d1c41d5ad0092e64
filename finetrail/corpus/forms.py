"""Unicode normal forms of any text in time that grows with its length."""

import unicodedata
from typing import Literal

import regex

# Python's sort of combining marks takes time square to their number, so that a megabyte of them takes an hour.
MARKS = regex.compile(r"[^\p{ccc=0}]{64,}")


def normalized(form: Literal["NFC", "NFD"], text: str) -> str:
    """Return what unicodedata.normalize returns; long runs of marks are put into their canonical order before."""
    if not text.isascii():
        text = MARKS.sub(lambda run: "".join(sorted(run[0], key=unicodedata.combining)), text)
    return unicodedata.normalize(form, text)
