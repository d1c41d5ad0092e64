"""Queries and documents become the features that training and search take; nothing is lost uncounted."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from finetrail.errors import UserError
from finetrail.tasks.retrieval import encoding
from finetrail.tasks.retrieval.corpus import DOCUMENTS, GIVEN_IDS, QUERIES, RANKINGS
from finetrail.tasks.retrieval.settings import Tokenize


def settings(**changes: Any) -> Tokenize:
    values = {
        "engine": "local",
        "num_proc": 1,
        "max_query_length": 6,
        "max_length": 8,
        "query_prefix": "",
        "document_prefix": "",
        "max_negatives": 2,
        "negatives": None,
        "pooling": "mean",
        "dimensions": None,
        "limit": None,
    }
    return Tokenize.model_validate(values | changes)


@pytest.fixture
def tokenizer(tiny_wordpiece: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_wordpiece)


def encoder(tokenizer: Any, **changes: Any) -> encoding.Encoder:
    chosen = settings(**changes)
    return encoding.Encoder(tokenizer, encoding.target(iter([]), chosen), chosen)


def document(given: str, text: str, title: str = "") -> dict[str, Any]:
    return {"id": given, "title": title, "text": text}


def queries(*rows: tuple[str, list[dict[str, Any]] | None, list[dict[str, Any]] | None]) -> pa.Table:
    def graded(documents: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
        return documents and [row | {"relevance": 1} for row in documents]

    values = [
        {"id": str(n), "query": query, "relevant": graded(relevant), "negatives": negatives}
        for n, (query, relevant, negatives) in enumerate(rows)
    ]
    return pa.Table.from_pylist(values, QUERIES)


OSLO, PARIS, LEE, ANNA = (
    document("d1", "oslo is far", "oslo"),
    document("d2", "paris"),
    document("d3", "lee"),
    document("d4", "anna"),
)
MIXED = queries(
    ("the train to oslo left", [OSLO, PARIS], [LEE, ANNA, PARIS]),
    ("nobody", [LEE], []),
    ("anna and lee met", [ANNA], [OSLO]),
)


def test_each_relevant_document_is_a_feature_with_negatives(tokenizer: Any) -> None:
    features = encoder(tokenizer).encode(MIXED, np.array([3, 7, 9]))

    def ids(text: str, most: int) -> list[int]:
        return tokenizer(text, truncation=True, max_length=most)["input_ids"]

    oslo, paris, lee, anna = (ids(text, 8) for text in ("oslo oslo is far", "paris", "lee", "anna"))
    assert features.schema == encoding.PAIRS
    assert features["example"].to_pylist() == [3, 3, 7, 9]
    first = ids("the train to oslo left", 6)
    assert features["input_ids"].to_pylist() == [first, first, ids("nobody", 6), ids("anna and lee met", 6)]
    assert features["document_input_ids"].to_pylist() == [[oslo, lee, anna], [paris, lee, anna], [lee], [anna, oslo]]


def test_keys_name_the_documents_and_all_that_are_relevant(tokenizer: Any) -> None:
    features = encoder(tokenizer).encode(MIXED, np.arange(3)).to_pydict()

    key = {name: features["documents"][row][0] for row, name in enumerate(("oslo", "paris", "lee", "anna"))}
    assert len(set(key.values())) == 4
    assert features["documents"][0] == [key["oslo"], key["lee"], key["anna"]]
    assert features["documents"][3] == [key["anna"], key["oslo"]]
    both = [key["oslo"], key["paris"]]
    assert features["relevant"] == [both, both, [key["lee"]], [key["anna"]]]


def test_a_querys_own_key_is_no_negative_with_given_ids(tokenizer: Any) -> None:
    own = queries(("a", [document("0", "oslo")], []), ("b", [document("7", "lee")], []), ("c", None, None))

    given = encoder(tokenizer).encode(own.replace_schema_metadata(GIVEN_IDS), np.arange(3)).to_pydict()

    zero, seven, one, two = encoding._keys(pa.chunked_array([["0", "7", "1", "2"]])).tolist()
    assert given["relevant"] == [[zero], [seven, one], [two]]
    assert given["documents"] == [[zero], [seven], []]
    # Ids of pairs' documents are digests, which no query has.
    assert encoder(tokenizer).encode(own, np.arange(3))["relevant"].to_pylist() == [[zero], [seven], []]


def test_the_batches_do_not_matter(tokenizer: Any) -> None:
    encode = encoder(tokenizer).encode

    whole = encode(MIXED, np.arange(3))
    parts = [encode(MIXED.slice(row, 1), np.array([row])) for row in range(3)]

    assert pa.concat_tables(parts).to_pydict() == whole.to_pydict()


def test_a_limit_needs_the_documents_that_queries_name() -> None:
    given = queries(
        ("a", [document("0", "oslo"), document("1", "rome")], [document("2", "lee")]),
        ("b", [document("0", "oslo")], []),
        ("c", None, None),
    )
    assert encoding.needed(given) == ["0", "1", "0", "2"]
    assert encoding.needed(given.slice(2)) == []


def test_documents_begin_with_their_title(tokenizer: Any) -> None:
    table = pa.Table.from_pylist([OSLO, PARIS, document("d5", "", "lee"), document("d6", "")], DOCUMENTS)

    features = encoder(tokenizer).encode(table, np.arange(4))

    assert features.schema == encoding.TEXTS
    texts = ["oslo oslo is far", "paris", "lee", ""]
    assert features["input_ids"].to_pylist() == [tokenizer(text)["input_ids"] for text in texts]


def test_prefixes_stand_before_queries_and_documents(tokenizer: Any) -> None:
    prefixed = encoder(tokenizer, query_prefix="was ", document_prefix="the ", max_query_length=20, max_length=20)

    row = prefixed.encode(queries(("anna", [PARIS], [LEE])), np.array([0])).to_pylist()[0]

    assert row["input_ids"] == tokenizer("was anna")["input_ids"]
    assert row["document_input_ids"] == [tokenizer("the paris")["input_ids"], tokenizer("the lee")["input_ids"]]


def test_a_query_without_references_is_encoded_for_search(tokenizer: Any) -> None:
    features = encoder(tokenizer).encode(queries(("nobody", None, None), ("lee", None, None)), np.array([0, 1]))

    assert features["input_ids"].to_pylist() == [tokenizer(text)["input_ids"] for text in ("nobody", "lee")]
    assert features["document_input_ids"].to_pylist() == features["documents"].to_pylist() == [[], []]


def test_what_is_cut_off_is_counted(tokenizer: Any) -> None:
    long = document("d1", "anna lee oslo paris quito anna lee oslo")  # 8 words of the vocabulary, room for 6

    ((features, counts),) = encoder(tokenizer).encode_table(
        "train", iter([(np.arange(1), queries(("paris anna lee oslo quito", [long], [LEE])))])
    )

    assert [len(ids) for ids in features["document_input_ids"].to_pylist()[0]] == [8, 3]
    assert counts == {
        "examples": 1,
        "features": 1,
        "negatives": 1,
        "tokens": 6 + 8 + 3,
        "texts_truncated": 2,
        "tokens_truncated": 1 + 2,
    }


def test_no_negatives_are_kept_where_the_recipe_wants_none(tokenizer: Any) -> None:
    features = encoder(tokenizer, max_negatives=0).encode(MIXED, np.arange(3))

    assert [len(ids) for ids in features["document_input_ids"].to_pylist()] == [1, 1, 1, 1]


def test_the_target_says_how_a_text_becomes_a_vector() -> None:
    chosen = settings(pooling="cls", query_prefix="query: ")

    expected = {"pooling": "cls", "dimensions": None, "max_length": 8, "query_prefix": "query: ", "document_prefix": ""}
    assert encoding.target(iter([]), chosen) == expected


@pytest.mark.parametrize("name", ["max_query_length", "max_length"])
def test_special_tokens_must_leave_room(tiny_bpe: Path, name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bpe)
    tokenizer.backend_tokenizer.post_processor = template("<s> <s> $A </s>", tokenizer)

    with pytest.raises(
        UserError, match=f"tokenize.{name}: 3 is enough only for the special tokens; expected more than 3"
    ):
        encoder(tokenizer, **{name: 3})


def template(single: str, tokenizer: Any) -> Any:
    from tokenizers.processors import TemplateProcessing

    tokens = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "</s>")]
    return TemplateProcessing(single=single, special_tokens=tokens)


def test_a_length_above_the_models_positions_is_refused(tiny_wordpiece: Path) -> None:
    with pytest.raises(UserError, match="600 tokens exceed the 66 positions"):
        encoding.load_tokenizer(tiny_wordpiece, settings(max_query_length=600), lambda: iter([]))


def test_encoding_needs_no_torch() -> None:
    modules = ", ".join(f"finetrail.tasks.retrieval.{name}" for name in ("settings", "corpus", "encoding"))
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


# --- mined negatives ------------------------------------------------------------------------------------------------

NEGATIVES = {"ranker": "bm25", "terms": "words", "per_pair": 2, "depth": 4, "below": 0.95}
COLLECTION = [
    document("a", "oslo is far from paris"),
    document("b", "oslo is far"),
    document("c", "the train to oslo"),
    document("d", "oslo oslo oslo"),
    document("e", "anna and lee"),
    document("f", "lee", "oslo"),
    document("g", "nobody was there"),
]
BY_ID = {row["id"]: row for row in COLLECTION}
ASKED = queries(
    ("is oslo far from paris", [BY_ID["a"], BY_ID["b"]], [BY_ID["g"]]),
    ("lee and anna", [BY_ID["e"]], []),
    ("is oslo far from paris", [BY_ID["c"]], []),
    ("unable", [BY_ID["g"]], []),
)


def mining(tokenizer: Any, **changes: Any) -> encoding.Encoder:
    given = encoder(tokenizer, negatives=NEGATIVES | changes)
    collection = pa.Table.from_pylist(COLLECTION, DOCUMENTS)
    given.survey({"train": ASKED, "documents": collection}.__getitem__)
    return given


def weights(query: str) -> dict[str, float]:
    """Return BM25's score of each document, by Lucene's formula: k1 1.5, b 0.75."""
    texts = {row["id"]: f"{row['title']} {row['text']}".split() for row in COLLECTION}
    mean = sum(map(len, texts.values())) / len(texts)
    having = {word: sum(word in text for text in texts.values()) for word in query.split()}
    return {
        name: sum(
            np.log(1 + (len(texts) - having[word] + 0.5) / (having[word] + 0.5))
            * text.count(word)
            / (text.count(word) + 1.5 * (0.25 + 0.75 * len(text) / mean))
            for word in query.split()
        )
        for name, text in texts.items()
    }


def test_negatives_are_mined_for_each_relevant_document(tokenizer: Any) -> None:
    ((features, counts),) = mining(tokenizer).encode_table("train", [(np.arange(4), ASKED)])

    names = dict(zip(encoding._keys(pa.chunked_array([list(BY_ID)])).tolist(), BY_ID, strict=True))
    found = [[names[key] for key in keys] for keys in features["documents"].to_pylist()]
    expected, left_out = [], 0
    judged = {query: set() for query in ASKED["query"].to_pylist()}
    for row in ASKED.to_pylist():
        judged[row["query"]] |= {relevant["id"] for relevant in row["relevant"]}
    for row in ASKED.to_pylist():
        score = weights(row["query"])
        ranked = sorted((name for name in BY_ID if score[name] > 0), key=lambda name: -score[name])
        best = [name for name in ranked if name not in judged[row["query"]]][:4]
        for relevant in row["relevant"]:
            kept = [name for name in best if score[name] < 0.95 * score[relevant["id"]]]
            left_out += len(best) - len(kept)
            expected.append([relevant["id"], *(given["id"] for given in row["negatives"]), *kept[:2]])
    assert found == expected
    assert expected[0] == ["a", "g", "d", "f"]  # neither b nor c, which are relevant to the same words elsewhere
    assert {name: counts[name] for name in counts if "mined" in name or "likely" in name} == {
        "mined_negatives": sum(map(len, found)) - 5 - 2,
        "likely_positives_left_out": left_out,
        "pairs_without_mined_negatives": sum(
            len(documents) == 1
            for documents in expected[2:]  # the first query's pairs have given ones
        ),
    }
    assert left_out > 0 and ["g"] in expected


def test_near_relevant_scores_are_no_negatives(tokenizer: Any) -> None:
    def mined(below: float) -> list[int]:
        ((_, counts),) = mining(tokenizer, below=below).encode_table("train", [(np.arange(4), ASKED)])
        return [counts["mined_negatives"], counts["likely_positives_left_out"]]

    assert mined(1.0)[0] > mined(0.3)[0] and mined(1.0)[1] < mined(0.3)[1]


def test_nothing_is_mined_for_other_splits_nor_without_a_survey(tokenizer: Any) -> None:
    plain = encoder(tokenizer).encode(ASKED, np.arange(4))

    assert next(mining(tokenizer).encode_table("validation", [(np.arange(4), ASKED)]))[0] == plain
    assert mining(tokenizer).encode(ASKED, np.arange(4)) == plain


def test_mining_in_other_batches_or_processes_gives_the_same(tokenizer: Any) -> None:
    batches = [(np.arange(4), ASKED)]
    whole = pa.concat_tables(part for part, _ in mining(tokenizer).encode_table("train", batches))
    sent = pickle.loads(pickle.dumps(mining(tokenizer)))

    parts = sent.encode_table("train", [(np.array([row]), ASKED.slice(row, 1)) for row in range(4)])

    assert pa.concat_tables(part for part, _ in parts).to_pydict() == whole.to_pydict()


def test_the_document_of_a_querys_own_id_is_not_mined(tokenizer: Any) -> None:
    own = queries(("oslo", [BY_ID["d"]], [])).set_column(0, "id", [["f"]])

    def mined(table: pa.Table) -> list[int]:
        given = encoder(tokenizer, negatives=NEGATIVES | {"below": 0.99, "per_pair": 9})
        given.survey({"train": table, "documents": pa.Table.from_pylist(COLLECTION, DOCUMENTS)}.__getitem__)
        return next(given.encode_table("train", [(np.arange(1), table)]))[0]["documents"].to_pylist()[0]

    (f,) = encoding._keys(pa.chunked_array([["f"]])).tolist()
    assert f in mined(own)
    assert f not in mined(own.replace_schema_metadata(GIVEN_IDS))


# --- negatives by given scores --------------------------------------------------------------------------------------

GIVEN = {"ranker": "given", "terms": None, "per_pair": 2, "depth": 4, "below": 0.95}


def rankings(*rows: tuple[str, str, float]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(RANKINGS.names, row, strict=True)) for row in rows], RANKINGS)


def given_mining(tokenizer: Any, scores: pa.Table, **changes: Any) -> encoding.Encoder:
    given = encoder(tokenizer, negatives=GIVEN | changes)
    collection = pa.Table.from_pylist(COLLECTION, DOCUMENTS)
    given.survey({"train": ASKED, "documents": collection, "rankings": scores}.__getitem__)
    return given


def test_given_scores_of_bm25_choose_what_bm25_chooses(tokenizer: Any) -> None:
    asked = dict(zip(ASKED["id"].to_pylist(), ASKED["query"].to_pylist(), strict=True))
    asked["2"] = "unable"  # of other scores: the text is that of the first row, whose scores are used for both
    scores = rankings(*((row, name, score) for row, query in asked.items() for name, score in weights(query).items()))

    (of_given,) = given_mining(tokenizer, scores).encode_table("train", [(np.arange(4), ASKED)])
    (of_bm25,) = mining(tokenizer).encode_table("train", [(np.arange(4), ASKED)])

    assert of_given[1]["mined_negatives"] > 0 and of_given == of_bm25


def test_unranked_documents_are_no_negatives_nor_unscored_pairs(tokenizer: Any) -> None:
    scores = rankings(("1", "e", 0.8), ("1", "a", 0.7), ("1", "d", 0.79), ("1", "b", -0.1), ("3", "a", 0.5))

    ((features, counts),) = given_mining(tokenizer, scores).encode_table("train", [(np.arange(4), ASKED)])

    names = dict(zip(encoding._keys(pa.chunked_array([list(BY_ID)])).tolist(), BY_ID, strict=True))
    found = [[names[key] for key in keys] for keys in features["documents"].to_pylist()]
    # d scores above 0.95 times what e scores, b below 0; the document of the last query has no score of its own.
    assert found == [["a", "g"], ["b", "g"], ["e", "a"], ["c"], ["g"]]
    assert (counts["mined_negatives"], counts["likely_positives_left_out"]) == (1, 2)


def test_given_scores_go_to_other_processes(tokenizer: Any) -> None:
    scores = rankings(("1", "e", 0.8), ("1", "a", 0.7))
    made = given_mining(tokenizer, scores)
    sent = pickle.loads(pickle.dumps(made))

    one, other = (next(of.encode_table("train", [(np.arange(4), ASKED)]))[0] for of in (made, sent))

    assert one == other


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("q9", "a", 0.5), "no query of train is among them, which are such as 'q9'; expected ids such as '0'"),
        (("1", "a", -0.5), "corpus.rankings: no score is above 0; expected positive ones"),
    ],
)
def test_unusable_rankings_are_refused(tokenizer: Any, row: tuple[str, str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        given_mining(tokenizer, rankings(row))
