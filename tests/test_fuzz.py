"""Whatever bytes a reader, an archive, YAML, a table, an input or a request is: it is taken, or refused in one line."""

import os
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz.targets import TARGETS, Target, empty_folder, outcome
from finetrail.errors import UserError

pytest.importorskip("fastapi", reason="the extra serve is not installed")
# Those whose libraries are slow to import (spaCy), or not installed.
TRIED = [name for name in TARGETS if name != "spacy"]
EXAMPLES = 300 if "CI" in os.environ else 12  # of each target
# What parsers count, compare, nest, and take for an end.
PIECES = (
    b"", b"\0", b"\n", b"\r", b"\t", b" ", b'"', b"'", b",", b":", b"-", b"{", b"}", b"[", b"]", b"&a", b"*a", b"\\",
    b"\\ud83d", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xe2\x80\xa8", b"\x1b[2J", b"NaN", b"1e999", b"-1", b"null",
    b"true", b"9" * 5000, b"9" * 11, b"9" * 20, b"[" * 2000, b"0" * 9, b"\x7f" * 8, "\u0130\u202e\u0301".encode(),
    b"!!int ''", b"!!bool x", b"!!set {", b"? [[]]", b"<<: ", b"%YAML 3.0\n", b"2001-99-99", b'"\\UFFFFFFFF"',
)  # fmt: skip


@cache
def seeds(name: str) -> list[bytes]:
    return TARGETS[name].seeds()


def mutated(seed: bytes, edits: list[tuple[float, int, int]]) -> bytes:
    """Put pieces in the place of a few bytes of a seed."""
    for place, cut, piece in edits:
        start = int(place * len(seed))
        seed = seed[:start] + PIECES[piece % len(PIECES)] + seed[start + cut :]
    return seed


EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from([0, 1, 1, 2, 8, 64, 1 << 20]), st.integers(0, len(PIECES) - 1)),
    max_size=4,
)


@pytest.mark.parametrize("name", TRIED)
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), derandomize=True)
@given(place=st.floats(0, 1, exclude_max=True), edits=EDITS)
def test_mutated_files_are_taken_or_refused_in_one_line(
    name: str, place: float, edits: list[tuple[float, int, int]]
) -> None:
    known = seeds(name)
    with empty_folder() as folder:
        outcome(TARGETS[name], mutated(known[int(place * len(known))], edits), folder)


@pytest.mark.parametrize("name", TRIED)
def test_each_target_has_seeds_that_it_takes(name: str) -> None:
    """A target that refuses all would find nothing."""
    for seed in seeds(name):
        with empty_folder() as folder:
            if outcome(TARGETS[name], seed, folder) is None:
                return
    pytest.fail("none is taken")


def test_what_is_no_line_is_a_finding(tmp_path) -> None:
    def refuse(data: bytes, folder: object) -> None:
        raise UserError("")

    with pytest.raises(AssertionError, match="nothing, or more than somebody reads"):
        outcome(Target(refuse, list), b"", tmp_path)
