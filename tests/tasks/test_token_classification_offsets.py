"""Entities of raw texts: characters of the text as given, words cut as the corpus was, files for annotation tools."""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from toys import TOYS, Toy, projects
from transformers import pipeline

from finetrail import inference, layout, predict, stage
from finetrail.corpus import readers
from finetrail.corpus.tags import to_iob2
from finetrail.corpus.words import cut
from finetrail.errors import UserError
from finetrail.schema import DoccanoReader, LabelStudioReader, SpanRules
from finetrail.tasks.token_classification import corpus, serving
from stages import download_corpus, download_model, evaluate, export, tokenize, train

STAGES = (download_corpus, download_model, tokenize, train, evaluate, export)
# The words of BERT's own pre-tokenizer, so that transformers' pipeline sees the same ones.
RULES = {
    "words": "punctuation", "units": "characters", "blanks": "refuse", "inside_words": "refuse",
    "overlapping": "refuse", "empty": "refuse",
}  # fmt: skip


def annotated(sentences: list[str]) -> list[dict[str, Any]]:
    """Mark words with a capital, neighbours as one span, and write a full stop onto the word before it."""
    rows = []
    for sentence in sentences:
        text, spans, marked = "\U0001f44d", [], False
        for word in sentence.split():
            text += "" if word == "." else " "
            before, marked = marked, word[:1].isupper() and word.isalnum()
            if marked and before:
                spans[-1]["end"] = len(text) + len(word)
            elif marked:
                spans.append({"start": len(text), "end": len(text) + len(word), "label": "X"})
            text += word
        rows.append({"text": text, "spans": spans})
    return rows


@pytest.fixture(scope="module")
def project(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A project that ran to its export on texts with spans; the current folder."""
    old = TOYS["token_classification"]
    reader = {"format": "spans", "spans": RULES, "encoding": "utf-8"}
    toy = Toy(annotated, old.corpus | {"reader": reader}, old.tokenize, old.train | {"epochs": 20.0, "lr": 5e-3},
              old.evaluate, lambda row: {"text": row["text"]})  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TOYS, "token_classification", toy)
        with projects(request, *STAGES) as enter:
            yield enter("token_classification").absolute()


@pytest.fixture
def tag(project: Path, restored_torch: None) -> inference.Predict:
    return inference.load(project / layout.EXPORTED)


def stored(project: Path) -> list[dict[str, Any]]:
    return pq.read_table(project / layout.PREDICTIONS, filters=[("split", "=", "test")]).to_pylist()


def test_the_rule_goes_from_the_recipe_to_the_exported_folder(project: Path) -> None:
    assert json.loads((project / layout.EXPORT_SETTINGS).read_text())["target"] == {
        "label_names": ["O", "B-X", "I-X"],
        "words": "punctuation",
    }


def test_raw_texts_get_what_evaluation_stored(project: Path, tag: inference.Predict) -> None:
    rows = stored(project)
    answers = tag([row["text"] for row in rows])
    found = 0
    for row, answer in zip(rows, answers, strict=True):
        assert [answer[name] for name in ("tokens", "labels", "text", "starts", "ends")] == [
            row[name] for name in ("tokens", "predictions", "text", "starts", "ends")
        ]
        for entity in answer["entities"]:
            assert answer["text"][entity["start"] : entity["end"]] == entity["text"]
            found += 1
    assert found


def test_words_are_split_as_the_corpus_was_or_by_unicode() -> None:
    def words(target: Any) -> list[str]:
        return serving.examples_for(target)([{"text": "Ada's in London."}])["tokens"].to_pylist()[0]

    names = ["O", "B-X"]
    assert words(names) == words({"label_names": names, "scheme": "none"}) == ["Ada's", "in", "London", "."]
    assert words({"label_names": names, "words": "punctuation"}) == ["Ada", "'", "s", "in", "London", "."]
    assert words({"label_names": names, "words": "characters"}) == [*"Ada'sinLondon."]
    with pytest.raises(
        UserError, match=r"^target: words is 'blanks'; expected one of unicode, punctuation, characters$"
    ):
        words({"label_names": names, "words": "blanks"})


def texts(sentences: list[tuple[list[str], list[str]]], count: int) -> list[str]:
    draw = random.Random(0)
    words = sorted({word for words, _ in sentences for word in words})
    gaps = (" ", "  ", "\n", "\r\n", "\u00a0", ", ", "\U0001f44d ", "e\u0301 ", "'")
    return [
        "".join(draw.choice(gaps) + draw.choice(words) for _ in range(draw.randint(1, 12))) + "\t" for _ in range(count)
    ]


def test_an_entity_is_a_part_of_the_text_as_it_was_given(tag: inference.Predict, toy_sentences: Any) -> None:
    given = texts(toy_sentences, 100)
    answers = tag(given)
    entities = [(text, entity) for text, answer in zip(given, answers, strict=True) for entity in answer["entities"]]
    assert len(entities) > 100
    for text, entity in entities:
        assert text[entity["start"] : entity["end"]] == entity["text"] and entity["text"].strip() == entity["text"]
        assert 0 < entity["confidence"] <= 1
    for text, answer in zip(given, answers, strict=True):
        assert answer["tokens"] == [text[start:end] for start, end in cut(text, "punctuation")]


# --- transformers' own pipeline -----------------------------------------------------------------------------------


def by_pipeline(folder: Path) -> Any:
    return pipeline("token-classification", str(folder), aggregation_strategy="first", device="cpu")


def same(answer: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (one["type"], one["start"], one["end"], pytest.approx(one["confidence"], abs=1e-4))
        for one in answer["entities"]
    ]


def test_short_texts_get_what_the_pipeline_finds(project: Path, tag: inference.Predict) -> None:
    tagger, given = by_pipeline(project / layout.EXPORTED), [row["text"] for row in stored(project)]
    given = [text for text in given if len(tagger.tokenizer(text)["input_ids"]) <= 16]  # tokenize.max_length
    found = tagger(given)
    assert any(found) and len(given) > 3
    for answer, entities in zip(tag(given), found, strict=True):
        assert [(one["entity_group"], one["start"], one["end"], one["score"]) for one in entities] == same(answer)


def test_windows_keep_what_the_pipeline_truncates(project: Path, tag: inference.Predict) -> None:
    tagger, text = by_pipeline(project / layout.EXPORTED), "Anna lives in Paris with Lee . " * 30
    tagger.tokenizer.model_max_length = 66  # the model's positions, which a real tokenizer states
    last = max((one["end"] for one in tagger(text)), default=0)
    (answer,) = tag([text])
    assert last < len(text) / 2 < answer["entities"][-1]["start"]
    each = [one["text"] for one in answer["entities"]]
    assert each.count("Paris") == 30, "each of them, wherever windows end"


# --- files for annotation tools -----------------------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, *options: object) -> None:
    monkeypatch.setattr(sys, "argv", ["predict", *map(str, options)])
    stage.run(predict.main)


@pytest.fixture
def given(tmp_path: Path, toy_sentences: Any) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text(
        "".join(json.dumps({"id": f"n{n}", "text": text}) + "\n" for n, text in enumerate(texts(toy_sentences, 40)))
    )
    return path


SPANS = SpanRules(**RULES)
READERS = {
    "doccano": DoccanoReader(
        format="doccano", spans=SPANS.model_copy(update={"units": "utf16"}), encoding="utf-8"
    ),
    "label_studio": LabelStudioReader(
        format="label_studio", text="text", take="predictions", several="refuse", spans=SPANS, encoding="utf-8"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_what_a_tool_gets_is_read_back_as_the_same_tags(
    project: Path, tmp_path: Path, given: Path, monkeypatch: pytest.MonkeyPatch, restored_torch: None, name: str
) -> None:
    folder = project / layout.EXPORTED
    run(monkeypatch, folder, "--input", given, "--output", tmp_path / "answers")
    run(monkeypatch, folder, "--input", given, "--output", tmp_path / "tool", "--format", name)
    answers = [json.loads(line) for line in (tmp_path / "answers").read_text(encoding="utf-8").splitlines()]
    records = list(readers.read(tmp_path, [tmp_path / "tool"], READERS[name]))
    assert len(records) == 40
    settings: Any = SimpleNamespace(reader=READERS[name])
    counts = {"train": corpus.Counts()}
    for record, answer in zip(records, answers, strict=True):
        [(_, row)] = corpus.rows("train", record, settings, counts)
        labels, _ = to_iob2(answer["labels"], "iob2")  # the tagger may begin an entity with I-
        assert (row["text"], row["tokens"], row["labels"]) == (answer["text"], answer["tokens"], labels)
    assert counts["train"].spans > 40 and not counts["train"].misfits


def test_label_studio_gets_a_score_to_sort_by(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restored_torch: None
) -> None:
    (tmp_path / "in.txt").write_text("\U0001f44d Paris\nhe")
    run(monkeypatch, project / layout.EXPORTED, "--input", tmp_path / "in.txt", "--output", tmp_path / "out",
        "--format", "label_studio")  # fmt: skip
    first, second = json.loads((tmp_path / "out").read_text())
    (region,) = first["predictions"][0]["result"]
    assert first["data"] == {"text": "\U0001f44d Paris", "id": "0"}
    assert region.pop("score") >= first["predictions"][0]["score"] > 0
    assert region == {
        "id": "entity-0", "from_name": "label", "to_name": "text", "type": "labels",
        "value": {"start": 2, "end": 7, "text": "Paris", "labels": ["X"]},
    }  # fmt: skip
    assert second["predictions"][0]["result"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--format", "brat"],
            r"^--format brat: token_classification does not have this format; expected jsonl or csv or tsv or doccano",
        ),
        (["--format", "doccano"], r"^input '0': tokens, whose characters no tool could count; expected a text$"),
    ],
)
def test_what_no_tool_could_take_is_told(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restored_torch: None, options: Any, message: str
) -> None:
    (tmp_path / "in.jsonl").write_text('{"tokens": ["Paris"]}\n')
    monkeypatch.setattr(
        sys, "argv", ["predict", *map(str, [project / layout.EXPORTED, "--input", tmp_path / "in.jsonl", *options])]
    )
    with pytest.raises(UserError, match=message):
        predict.main()


def test_a_model_of_labels_has_no_entities_to_annotate() -> None:
    answer = {"id": "0", "tokens": ["a"], "text": "a", "labels": ["NN"], "confidences": [1.0]}
    for name, write in serving.FORMATS.items():
        with pytest.raises(UserError, match=r"^--format: the model labels words, and has no entities; expected"):
            list(write([answer]))
        assert "".join(write([])) == {"doccano": "", "label_studio": "[]"}[name]
