"""Unicode normalization in time linear in the length of the text."""

import unicodedata
from typing import Literal

import regex

# Python sorts combining marks in quadratic time, so that a megabyte of them takes an hour.
MARKS = regex.compile(r"[^\p{ccc=0}]{64,}")


def normalized(form: Literal["NFC", "NFD"], text: str) -> str:
    """Return the same as unicodedata.normalize, but put long runs of marks into canonical order before."""
    if not text.isascii():
        text = MARKS.sub(lambda run: "".join(sorted(run[0], key=unicodedata.combining)), text)
    return unicodedata.normalize(form, text)
