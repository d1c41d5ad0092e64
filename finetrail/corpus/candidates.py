"""Candidates of a first retrieval stage: a document for a query, its score, and the judgements of that query."""

import math
import re
from typing import Any

import pyarrow as pa

from finetrail.errors import UserError

GRADES = pa.struct([("id", pa.string()), ("relevance", pa.int32())])
# float() would also accept 1_000 and digits of other scripts.
NUMBER = re.compile(r"\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*")
# Largest values in 32 bits, in which models compute and candidates are stored.
LARGEST, HIGHEST_GRADE = 3.4e38, 2**31 - 1
# query, document: their ids. judged: all relevant documents of the query, found or not, with their grades.
CANDIDATE = pa.struct(
    [("query", pa.string()), ("document", pa.string()), ("score", pa.float32()), ("judged", pa.list_(GRADES))]
)


def candidate(value: Any, where: str) -> dict[str, Any]:
    """Validate a raw candidate and return it as CANDIDATE; UserError with its place if it is invalid."""
    keys = CANDIDATE.names
    if not isinstance(value, dict) or not set(keys) <= value.keys():
        raise UserError(f"{where}: candidate is {value!r:.60}; expected an object with {', '.join(keys)}")
    for key in ("query", "document"):
        if not isinstance(value[key], str):
            raise UserError(f"{where}: candidate.{key} is {value[key]!r:.60}; expected an id, which is a string")
    judged = value["judged"]
    if not isinstance(judged, list) or not judged:
        raise UserError(f"{where}: candidate.judged is {judged!r:.60}; expected the query's relevant documents")
    return {
        "query": value["query"],
        "document": value["document"],
        "score": number(value["score"], f"{where}: candidate.score"),
        "judged": [_grade(one, where) for one in judged],
    }


def number(value: Any, where: str) -> float:
    """Return the number in a value, which may be text; UserError if it is not one, or does not fit into 32 bits."""
    is_none = isinstance(value, bool) or (isinstance(value, str) and not NUMBER.fullmatch(value))
    try:
        found = math.nan if is_none else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not abs(found) <= LARGEST:
        raise UserError(f"{where} is {value!r:.60}; expected a finite number")
    return found


def _grade(value: Any, where: str) -> dict[str, Any]:
    given = value if isinstance(value, dict) else {}
    name, relevance = given.get("id"), given.get("relevance")
    is_grade = isinstance(relevance, int) and not isinstance(relevance, bool) and 1 <= relevance <= HIGHEST_GRADE
    if not isinstance(name, str) or not is_grade:
        raise UserError(
            f"{where}: candidate.judged has {value!r:.60}; expected id and relevance, a whole number from 1"
        )
    return {"id": name, "relevance": relevance}
