"""What rows the pairs and the judged queries of a source become, and what is counted and refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from finetrail.corpus import readers, splits
from finetrail.corpus.readers import Record
from finetrail.errors import UserError
from finetrail.tasks.retrieval import concerns, corpus
from finetrail.tasks.retrieval.settings import Corpus

Rows = dict[str, list[dict[str, Any]]]


def settings(columns: dict[str, str] | None = None, **changes: Any) -> Corpus:
    reader = {"format": "jsonl", "columns": columns or {"query": "q", "document": "d"}, "encoding": "utf-8"}
    return Corpus.model_validate(
        {
            "name": "toy",
            "source": {"kind": "file", "path": "x", "sha256": None},
            "splits": {
                "train": "train.jsonl",
                "validation": 0.2,
                "test": 0.2,
                "documents": None,
                "seed": 0,
                "stratify": None,
                "group": None,
            },
            "license": None,
            "language": None,
            "reader": reader,
            "positive_label": None,
            "rankings": None,
        }
        | changes
    )


LABELLED = {"query": "q", "document": "d", "label": "l"}


def beir_settings() -> Corpus:
    named = {"train": "qrels/train.tsv", "validation": "qrels/dev.tsv", "test": "qrels/test.tsv"}
    return settings(
        splits={**named, "documents": "corpus.jsonl", "seed": 0, "stratify": None, "group": None},
        reader={"format": "beir", "documents": "corpus.jsonl", "queries": "queries.jsonl"},
    )


def collect(records: Iterator[tuple[str, Record]], chosen: Corpus) -> tuple[Rows, dict[str, corpus.Counts]]:
    counts = {table: corpus.Counts() for table in corpus.tables(chosen)}
    found: Rows = {table: [] for table in counts}
    for table, record in records:
        for where, row in corpus.rows(table, record, chosen, counts):
            found[where].append(row)
    return found, counts


def pairs(chosen: Corpus, *values: dict[str, Any], split: str = "train") -> tuple[Rows, dict[str, corpus.Counts]]:
    return collect(((split, Record(str(n), f"x:{n}", value)) for n, value in enumerate(values)), chosen)


def test_every_table_begins_with_an_id_and_documents_come_last() -> None:
    tables = corpus.tables(settings())

    assert list(tables) == ["train", "validation", "test", "documents"]
    assert {schema.names[0] for schema in tables.values()} == {"id"}


def test_a_pair_is_a_query_and_document_with_the_same_id() -> None:
    found, _ = pairs(settings(), {"query": "capital of Norway", "document": "Oslo"})

    assert found["train"][0]["query"] == "capital of Norway"
    document = found["documents"][0]
    assert document == {"id": document["id"], "title": "", "text": "Oslo"}
    assert found["train"][0]["relevant"] == [document | {"relevance": 1}]
    assert found["train"][0]["negatives"] == []


def test_equal_texts_are_one_document_in_all_splits() -> None:
    chosen = settings()
    values = [("train", "a", "Oslo"), ("test", "b", "Oslo"), ("test", "c", "Paris")]
    records = ((split, Record(str(n), "x", {"query": q, "document": d})) for n, (split, q, d) in enumerate(values))

    found, counts = collect(records, chosen)

    assert [document["text"] for document in found["documents"]] == ["Oslo", "Paris"]
    checks = corpus.checks(counts, chosen)
    assert checks["splits"]["documents"] == {"documents": 2, "duplicates": 0, "empty_examples": 0}
    assert checks["shared_relevant_documents"] == {"train/validation": 0, "train/test": 1, "validation/test": 0}
    assert not any("document" in line for line in [*map(str, concerns.of_corpus(checks))])


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, []), ("Bergen", ["Bergen"]), (["Bergen", " ", "Oslo", "Rome"], ["Bergen", "Rome"]), ([], [])],
)
def test_hard_negatives_are_documents_except_blank_or_relevant(given: Any, expected: list[str]) -> None:
    chosen = settings({"query": "q", "document": "d", "negatives": "n"})

    found, counts = pairs(chosen, {"query": "capital of Norway", "document": "Oslo", "negatives": given})

    assert [negative["text"] for negative in found["train"][0]["negatives"]] == expected
    assert [document["text"] for document in found["documents"]] == ["Oslo", *expected]
    assert counts["train"].negatives == len(expected)


def test_rows_with_another_label_give_a_document_only() -> None:
    chosen = settings(LABELLED, positive_label="0")

    found, counts = pairs(
        chosen,
        {"query": "a", "document": "same", "label": "0"},
        {"query": "b", "document": "different", "label": "1"},
        {"query": "c", "document": "as a number", "label": 0},
    )

    assert [row["query"] for row in found["train"]] == ["a", "c"]
    assert [document["text"] for document in found["documents"]] == ["same", "different", "as a number"]
    assert corpus.checks(counts, chosen)["splits"]["train"]["other_labels"] == 1


def test_what_is_left_out_or_odd_is_counted_and_said() -> None:
    chosen = settings()
    values = [("", "x"), (" ", "y"), ("a", ""), ("same", "same"), ("b", "z"), ("b", "z")]

    found, counts = pairs(chosen, *({"query": q, "document": d} for q, d in values))
    checks = corpus.checks(counts, chosen)

    assert [row["query"] for row in found["train"]] == ["same", "b", "b"]
    assert checks["splits"]["train"] == {
        "queries": 3,
        "relevant_documents": 3,
        "hard_negatives": 0,
        "duplicates": 1,
        "empty_examples": 2,
        "without_relevant_documents": 1,
        "other_labels": 0,
        "query_is_document": 1,
    }
    assert [*map(str, concerns.of_corpus(checks))] == [
        "train: queries without text, left out: 2",
        "train: queries without a relevant document, left out: 1",
        "train: queries whose relevant document is the query itself: 1",
        "train: queries that repeat an earlier one of their split: 1",
    ]
    assert corpus.summary(counts["train"], chosen) == "3 queries, 3 relevant documents"
    assert corpus.summary(counts["documents"], chosen) == "4 documents"


def test_queries_of_one_split_that_stand_in_another_are_leakage() -> None:
    chosen = settings()
    records = (
        (split, Record("0", "x", {"query": "who", "document": text})) for split, text in [("train", "a"), ("test", "b")]
    )

    checks = corpus.checks(collect(records, chosen)[1], chosen)

    assert checks["leakage"] == {"train/validation": 0, "train/test": 1, "validation/test": 0}
    assert [*map(str, concerns.of_corpus(checks))] == ["test: queries that also occur in train: 1"]


def test_beir_becomes_graded_queries_and_all_documents(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    header = "query-id\tcorpus-id\tscore\n"
    for split, judged in (
        ("train", "q1\td2\t3\nq1\td1\t1\nq1\td3\t0\n"),
        ("dev", "q2\td1\t0\n"),
        ("test", "q3\td1\t1\n"),
    ):
        (tmp_path / f"qrels/{split}.tsv").write_text(header + judged)
    (tmp_path / "queries.jsonl").write_text("".join(f'{{"_id": "q{n}", "text": "query {n}"}}\n' for n in (1, 2, 3)))
    documents = (f'{{"_id": "d{n}", "title": "T{n}", "text": "{"" if n == 4 else n}"}}\n' for n in (1, 2, 3, 4))
    (tmp_path / "corpus.jsonl").write_text("".join(documents))
    chosen = beir_settings()

    def read(pattern: str) -> Iterator[Record]:
        return readers.read(tmp_path, [tmp_path / pattern], chosen.reader)

    found, counts = collect(splits.assemble(chosen.splits, read), chosen)

    assert found["train"] == [
        {
            "id": "q1",
            "query": "query 1",
            "relevant": [
                {"id": "d2", "title": "T2", "text": "2", "relevance": 3},
                {"id": "d1", "title": "T1", "text": "1", "relevance": 1},
            ],
            "negatives": [],
        }
    ]
    assert found["validation"] == []
    assert [document["id"] for document in found["documents"]] == ["d1", "d2", "d3", "d4"]
    checks = corpus.checks(counts, chosen)
    assert checks["splits"]["validation"]["without_relevant_documents"] == 1
    assert checks["shared_relevant_documents"]["train/test"] == 1


def test_shared_ids_and_repeated_documents_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    for split, lines in (("train", "1\t1\t1\n2\t1\t1\n"), ("dev", "3\t1\t1\n"), ("test", "9\t1\t1\n2\t3\t1\n")):
        (tmp_path / f"qrels/{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}")
    (tmp_path / "queries.jsonl").write_text("".join(f'{{"_id": "{n}", "text": "query {n}"}}\n' for n in range(10)))
    texts = ("same", "same", "other")
    lines = (f'{{"_id": "{n}", "title": "", "text": "{text}"}}\n' for n, text in enumerate(texts, start=1))
    (tmp_path / "corpus.jsonl").write_text("".join(lines))
    chosen = beir_settings()
    records = splits.assemble(
        chosen.splits, lambda pattern: readers.read(tmp_path, [tmp_path / pattern], chosen.reader)
    )

    checks = corpus.checks(collect(records, chosen)[1], chosen)

    found = [checks["splits"][split]["own_document_left_out"] for split in ("train", "validation", "test")]
    assert found == [1, 1, 1]  # query 1 finds its document, 2 and 3 do not, and there is no document 9
    lines = [line for line in [*map(str, concerns.of_corpus(checks))] if "own id" in line or "documents:" in line]
    assert lines == [
        *(
            f"{split}: queries that are not to find the document of their own id, as it is not judged relevant: 1"
            for split in ("train", "validation", "test")
        ),
        "documents: that repeat one before, and are wrong answers unless judged too: 1",
    ]
    assert corpus.tables(chosen)["test"].metadata and not corpus.tables(settings())["test"].metadata


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"query": None, "document": "d"}, "x:0: example '0': query is None; expected a string"),
        ({"query": "q", "document": 7}, "x:0: example '0': document is 7; expected a string"),
        ({"query": "q", "document": "d", "negatives": [7]}, "x:0: example '0': negatives is 7; expected a string"),
        ({"query": "q", "document": "d", "negatives": 7}, "negatives is 7; expected a text or a list of texts"),
    ],
)
def test_what_is_no_text_is_refused_with_its_place(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match="^.*" + message.replace("[", "\\[")):
        pairs(settings({"query": "q", "document": "d", "negatives": "n"}), values)


def test_a_label_that_is_no_value_is_refused() -> None:
    with pytest.raises(UserError, match="x:0: example '0': label is None; expected a string or a whole number"):
        pairs(settings(LABELLED, positive_label="0"), {"query": "q", "document": "d", "label": None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": {"query": "q"}}, "reader.columns has .*'query'.*; expected document, query and perhaps"),
        ({"columns": LABELLED}, "label goes with positive_label"),
        ({"positive_label": "0"}, "expected document, label, query"),
        (
            {"reader": {"format": "beir", "documents": "corpus.jsonl", "queries": "q.jsonl"}},
            "splits.documents is None; expected 'corpus.jsonl'",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(**changes)


def test_judgements_have_no_labels() -> None:
    given = beir_settings().model_dump() | {"positive_label": "1"}

    with pytest.raises(ValidationError, match="positive_label: BEIR's judgements have grades"):
        Corpus.model_validate(given)


# --- rankings -------------------------------------------------------------------------------------------------------

RUN = {"format": "csv", "columns": {"query": 0, "document": 2, "score": 4}, "delimiter": " ", "quoting": "none"}


def ranked(**reader: Any) -> Corpus:
    source = {"kind": "file", "path": "x", "sha256": None}
    return settings(rankings={"source": source, "reader": RUN | {"encoding": "utf-8"} | reader})


def ranking_rows(chosen: Corpus, *records: Record) -> tuple[list[dict[str, Any]], dict[str, corpus.Counts]]:
    found, counts = pairs(chosen, {"query": "capital of Norway", "document": "Oslo"})
    (document,) = found["documents"]
    filled = [record._replace(values=record.values | {"document": document["id"]}) for record in records]
    return [row for one in filled for _, row in corpus.rows("rankings", one, chosen, counts)], counts


def test_a_run_file_of_trec_is_a_ranking(tmp_path: Path) -> None:
    (tmp_path / "bm25.run").write_text("0 Q0 d 1 12.5 tag\n1 Q0 d 1 -3e-1 tag\n", encoding="utf-8")
    chosen = ranked()
    assert chosen.rankings is not None and list(corpus.tables(chosen))[-1] == "rankings"
    records = list(readers.read(tmp_path, [tmp_path / "bm25.run"], chosen.rankings.reader))

    found, counts = ranking_rows(chosen, *records)

    assert [(row["query"], row["score"]) for row in found] == [("0", 12.5), ("1", -0.3)]
    assert corpus.summary(counts["rankings"], chosen) == "2 scores of documents for train's queries"


def test_a_ranking_of_another_collection_is_refused() -> None:
    chosen = ranked()
    _, counts = pairs(chosen, {"query": "capital of Norway", "document": "Oslo"})
    record = Record("0", "bm25.run:7", {"query": "0", "document": "elsewhere", "score": "1"})

    with pytest.raises(UserError, match="bm25.run:7: there is no document 'elsewhere' in the collection"):
        list(corpus.rows("rankings", record, chosen, counts))
    with pytest.raises(UserError, match="bm25.run:7: the score is 'high'; expected a finite number"):
        ranking_rows(chosen, record._replace(values=record.values | {"score": "high"}))


def test_a_ranking_has_three_columns() -> None:
    with pytest.raises(ValidationError, match="expected query, document and score"):
        ranked(columns={"query": 0, "document": 2})
