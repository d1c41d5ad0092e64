"""Turns pairs and judged queries into queries and a collection of documents, and counts them for the checks."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from finetrail import layout
from finetrail.corpus.candidates import number
from finetrail.corpus.checks import TableCounts, leakage, no_digests, overlap, string
from finetrail.corpus.duplicates import digest, duplicates, shared
from finetrail.corpus.raw import as_id
from finetrail.corpus.readers import Record
from finetrail.errors import UserError
from finetrail.tasks.retrieval.settings import Corpus

# Optional in tasks/contract.py, and not used here.
records = None

DOCUMENT = [("id", pa.string()), ("title", pa.string()), ("text", pa.string())]
DOCUMENTS = pa.schema(DOCUMENT)
RANKINGS = pa.schema([("query", pa.string()), ("document", pa.string()), ("score", pa.float32())])
# Rows have texts in addition to ids, so that a row can be encoded alone.
QUERIES = pa.schema(
    [
        ("id", pa.string()),
        ("query", pa.string()),
        ("relevant", pa.list_(pa.struct([("id", pa.string()), ("relevance", pa.int32()), *DOCUMENT[1:]]))),
        ("negatives", pa.list_(pa.struct(DOCUMENT))),
    ]
)

# Metadata of queries whose source has ids of documents (BEIR): the id of a query may also be that of a document.
GIVEN_IDS = {"document_ids": "given"}

Row = dict[str, Any]


@dataclass
class Counts(TableCounts):
    """Counts of one table, of queries or documents; of documents also which ones are there already."""

    relevant: int = 0
    negatives: int = 0
    ranked: int = 0
    without_relevant: int = 0
    other_labels: int = 0
    identical: int = 0
    relevant_digests: "array[int]" = field(default_factory=no_digests)  # of relevant documents' ids
    ids: "array[int]" = field(default_factory=no_digests)  # of documents; of queries that are not so judged
    known: set[int] = field(default_factory=set)  # documents


def tables(settings: Corpus) -> dict[str, pa.Schema]:
    """Return the tables of the canonical corpus."""
    queries = QUERIES if settings.splits.documents is None else QUERIES.with_metadata(GIVEN_IDS)
    return dict.fromkeys(layout.SPLITS, queries) | {"documents": DOCUMENTS} | dict.fromkeys(settings.beside(), RANKINGS)


def rows(table: str, record: Record, settings: Corpus, counts: dict[str, Counts]) -> Iterator[tuple[str, Row]]:
    """Yield (table, row) and count it: a document, or a query with a pair's documents if they are new.

    A query that is empty, or has no relevant document, yields nothing and is also counted. UserError with place and id
    if a text is not a string.
    """
    where = record.place
    if table == layout.RANKINGS:
        yield table, _ranked(record, counts)
    elif table == "documents":
        yield table, _counted({"id": record.id, **record.values}, counts[table])
    elif settings.splits.documents is not None:
        yield from _query(table, record.id, record.values["query"], record.values["positives"], [], counts[table])
    else:
        yield from _pair(table, record, where, settings, counts)


def checks(counts: dict[str, Counts], settings: Corpus) -> dict[str, Any]:
    """Return the counts of each table, and what splits share: queries (leakage) and relevant documents (normal)."""
    queries = {split: counts[split] for split in layout.SPLITS}
    own = {split: shared(counts["documents"].ids, of_split.ids) for split, of_split in queries.items()}
    return {
        "splits": {
            # Only if there are any, so that the hash of other corpora is unchanged.
            split: _query_checks(of_split) | ({"own_document_left_out": own[split]} if any(own.values()) else {})
            for split, of_split in queries.items()
        }
        | {"documents": _document_checks(counts["documents"])},
        "leakage": leakage(queries),
        "shared_relevant_documents": overlap({split: queries[split].relevant_digests for split in queries}),
    }


def summary(counts: Counts, settings: Corpus) -> str:
    """Return a summary of one table, for the log."""
    if counts.ranked:
        return f"{counts.ranked:,} scores of documents for train's queries"
    if not counts.relevant:
        return f"{counts.examples:,} documents"
    negatives = f", {counts.negatives:,} hard negatives" if counts.negatives else ""
    return f"{counts.examples:,} queries, {counts.relevant:,} relevant documents{negatives}"


def _pair(
    split: str, record: Record, where: str, settings: Corpus, counts: dict[str, Counts]
) -> Iterator[tuple[str, Row]]:
    """Yield the records of one row of a file of pairs: a query if the row is a pair, and its documents."""
    query, text = (string(record.values[column], column, where) for column in ("query", "document"))
    given = record.values.get("negatives")
    given = [given] if isinstance(given, str) else given if given is not None else []
    if not isinstance(given, list):
        raise UserError(f"{where}: negatives is {given!r:.60}; expected a text or a list of texts")
    documents = [_document(text)] + [_document(string(negative, "negatives", where)) for negative in given]
    positive, *negatives = documents
    if settings.positive_label is not None and not _is_positive(record.values["label"], settings, where):
        counts[split].other_labels += 1
    else:
        relevant = [positive | {"relevance": 1}] if text.strip() else []
        negatives = [negative for negative in negatives if negative["text"].strip() and negative != positive]
        yield from _query(split, record.id, query, relevant, negatives, counts[split])
    for document in documents:
        known = counts["documents"].known
        if document["text"].strip() and (key := digest(document["id"])) not in known:
            known.add(key)
            yield "documents", _counted(document, counts["documents"])


def _query(
    split: str, given: str, query: str, relevant: list[Row], negatives: list[Row], counts: Counts
) -> Iterator[tuple[str, Row]]:
    if not query.strip():
        counts.empty_examples += 1
        return
    if not relevant:
        counts.without_relevant += 1
        return
    counts.add(query)
    counts.relevant += len(relevant)
    counts.negatives += len(negatives)
    counts.identical += any(query == document["text"] for document in relevant)
    if all(document["id"] != given for document in relevant):
        counts.ids.append(digest(given))
    counts.relevant_digests.extend(digest(document["id"]) for document in relevant)
    yield split, {"id": given, "query": query, "relevant": relevant, "negatives": negatives}


def _ranked(record: Record, counts: dict[str, Counts]) -> Row:
    """Return a document's score for a query; UserError if the collection, which is read before, lacks it."""
    own, where = counts[layout.RANKINGS], record.where
    own.known = own.known or set(counts["documents"].ids)
    query, document = (as_id(record.values[column], where) for column in ("query", "document"))
    if digest(document) not in own.known:
        raise UserError(f"{where}: there is no document {document!r} in the collection; expected the ids that it has")
    own.ranked += 1
    return {"query": query, "document": document, "score": number(record.values["score"], f"{where}: the score")}


def _counted(document: Row, counts: Counts) -> Row:
    counts.add([document["title"], document["text"]])
    counts.empty_examples += not (document["title"] + document["text"]).strip()
    counts.ids.append(digest(document["id"]))
    return document


def _document(text: str) -> Row:
    """Return a pair's document; its id is a digest, so that equal texts are one document."""
    return {"id": f"{digest(text):016x}", "title": "", "text": text}


def _is_positive(label: Any, settings: Corpus, where: str) -> bool:
    if not isinstance(label, str | int) or isinstance(label, bool):
        raise UserError(f"{where}: label is {label!r:.60}; expected a string or a whole number")
    return str(label) == settings.positive_label


def _query_checks(counts: Counts) -> dict[str, int]:
    return {
        "queries": counts.examples,
        "relevant_documents": counts.relevant,
        "hard_negatives": counts.negatives,
        "duplicates": duplicates(counts.digests),
        "empty_examples": counts.empty_examples,
        "without_relevant_documents": counts.without_relevant,
        "other_labels": counts.other_labels,
        "query_is_document": counts.identical,
    }


def _document_checks(counts: Counts) -> dict[str, int]:
    return {
        "documents": counts.examples,
        "duplicates": duplicates(counts.digests),
        "empty_examples": counts.empty_examples,
    }
