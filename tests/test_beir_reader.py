"""The beir reader: judged queries with their documents, the documents themselves, and ids that lead nowhere."""

import json

import pytest
from conftest import real

from finetrail.corpus import readers
from finetrail.errors import UserError
from finetrail.schema import BeirReader

BEIR = BeirReader(format="beir", documents="./corpus.jsonl", queries="queries.jsonl")
DOCUMENTS = [
    {"_id": "d1", "title": "One", "text": "first", "metadata": {}},
    {"_id": 2, "title": None, "text": "second"},
    {"_id": "d3", "text": "third"},
]
QUERIES = [{"_id": "q2", "text": "zwei?"}, {"_id": "q1", "text": "eins?"}, {"_id": "q3", "text": "never asked"}]
HEADER = "query-id\tcorpus-id\tscore\n"


def read(root, qrels=HEADER, documents=DOCUMENTS, queries=QUERIES, name="qrels/train.tsv", reader=BEIR):
    (root / "qrels").mkdir(exist_ok=True)
    for file, rows in (("corpus.jsonl", documents), ("queries.jsonl", queries)):
        (root / file).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (root / "qrels/train.tsv").write_text(qrels, encoding="utf-8")
    return list(readers.read(root, [root / name], reader))


def test_a_query_has_its_documents_at_its_first_appearance(tmp_path):
    qrels = "q1\t2\t1\nq2\td3\t2\n\nq1\td1\t3\r\nq1\td3\t0\nq1\td1\t3\n"
    one = {"id": "d1", "title": "One", "text": "first"}
    two, three = ({"id": key, "title": "", "text": text} for key, text in (("2", "second"), ("d3", "third")))
    found = [
        (given, where, {key: values[key] for key in ("query", "positives")})
        for given, where, values in read(tmp_path, HEADER + qrels)
    ]
    assert found == [
        ("q1", "qrels/train.tsv:2", {"query": "eins?", "positives": [two | {"relevance": 1}, one | {"relevance": 3}]}),
        ("q2", "qrels/train.tsv:3", {"query": "zwei?", "positives": [three | {"relevance": 2}]}),
    ]


def test_other_query_columns_are_kept_and_documents_have_none(tmp_path):
    queries = [{"_id": "q1", "text": "eins?", "year": 1, "metadata": {"year": 2, "topic": "wings"}}]
    documents = [{"_id": "d1", "text": "first", "topic": "flow"}]
    (record,) = read(tmp_path, HEADER + "q1\td1\t1\n", documents, queries)
    assert (record.values["year"], record.values["topic"]) == (1, "wings")
    assert record.values["positives"] == [{"id": "d1", "title": "", "text": "first", "relevance": 1}]
    (record,) = read(tmp_path, documents=documents, name="corpus.jsonl")
    assert record.values == {"title": "", "text": "first"}


def test_the_file_of_documents_gives_each_document(tmp_path):
    assert read(tmp_path, name="corpus.jsonl") == [
        ("d1", "corpus.jsonl:1", {"title": "One", "text": "first"}),
        ("2", "corpus.jsonl:2", {"title": "", "text": "second"}),
        ("d3", "corpus.jsonl:3", {"title": "", "text": "third"}),
    ]


def test_a_query_without_a_relevant_document_is_there_with_none(tmp_path):
    (record,) = read(tmp_path, HEADER + "q1\td1\t0\nq1\td3\t-1\n")
    assert (record.values["query"], record.values["positives"]) == ("eins?", [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qrels": "q1\td1\t1\n"}, "qrels/train.tsv:1: 'q1\\td1\\t1'; expected a header: query-id, corpus-id, score"),
        ({"qrels": HEADER + "q1\t0\td1\t1\n"}, "qrels/train.tsv:2: 4 columns; expected query-id, corpus-id and score"),
        ({"qrels": HEADER + "q1\td1\thigh\n"}, "qrels/train.tsv:2: the score is 'high'; expected a whole number"),
        (
            {"qrels": HEADER + "q1\td1\t1\nq1\td1\t2\n"},
            "qrels/train.tsv:3: query 'q1' and document 'd1' have a different score in an earlier line",
        ),
        (
            {"qrels": HEADER + "q1\td1\t1\nq9\td1\t1\n"},
            "qrels/train.tsv:3: there is no query 'q9' in queries.jsonl; expected every id of the qrels there",
        ),
        (
            {"qrels": HEADER + "q1\td9\t1\n"},
            "qrels/train.tsv:2: query 'q1': there is no document 'd9' in corpus.jsonl; expected every id",
        ),
        (
            {"reader": BEIR.model_copy(update={"queries": "q.jsonl"})},
            "reader.queries: the source has no file 'q.jsonl'; expected JSON lines of queries",
        ),
        (
            {"qrels": HEADER + "q1\td1\t1\n", "documents": DOCUMENTS + DOCUMENTS},
            "corpus.jsonl:4: the id 'd1' occurs a second time here",
        ),
        (
            {"name": "corpus.jsonl", "documents": DOCUMENTS + DOCUMENTS},
            "corpus.jsonl:4: the id 'd1' occurs a second time here",
        ),
        ({"documents": [{"id": "d1", "text": ""}]}, "corpus.jsonl:1: no key '_id'; the keys there are 'id', 'text'"),
        ({"documents": [{"_id": "d1"}]}, "corpus.jsonl:1: no key 'text'; the keys there are '_id'"),
        ({"documents": [{"_id": "d1", "text": 3}]}, "corpus.jsonl:1: text is 3; expected a string"),
        ({"documents": [{"_id": None, "text": ""}]}, "corpus.jsonl:1: the id is None; expected a string"),
        ({"queries": [{"_id": "q1", "text": "\ud83d"}]}, "queries.jsonl:1: a lone surrogate"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path, changes, message):
    with pytest.raises(UserError) as error:
        read(tmp_path, **changes)
    assert str(error.value).startswith(message)


def test_a_real_collection_has_the_judgements_of_its_files():
    root = real("cranfield")
    documents = list(readers.read(root, [root / "corpus.jsonl"], BEIR))
    texts = {record.id: record.values for record in documents}
    assert len(texts) == 1400
    judgements = 0
    for name in ("qrels/train.tsv", "qrels/test.tsv"):
        lines = [line.split("\t") for line in (root / name).read_text().splitlines()[1:]]
        records = list(readers.read(root, [root / name], BEIR))
        assert [record.id for record in records] == list(dict.fromkeys(query for query, _, _ in lines))
        for record in records:
            for positive in record.values["positives"]:
                assert [record.id, positive["id"], str(positive["relevance"])] in lines
                assert {key: positive[key] for key in ("title", "text")} == texts[positive["id"]]
            judgements += len(record.values["positives"])
    assert judgements == 1612  # as SOURCE.txt counts them
