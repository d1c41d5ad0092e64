"""The page to try a model: what it asks for and shows of each kind of answer. The contract tests click on it."""

import gc
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetrail import demo, inference, layout, tasks
from finetrail.errors import UserError
from finetrail.tasks import views

TEXT = {"text": "Ada met 민수"}
ENTITY = {"type": "PER", "start": 0, "end": 3, "confidence": 0.5}
CLASSES = {"texts": ["text", "text_pair"], "label_names": ["a", "b"]}
SHOWN: list[tuple[str, Any, dict[str, str], dict[str, Any], list[Any]]] = [
    (
        "token_classification",
        None,
        TEXT,
        TEXT | {"entities": [ENTITY, ENTITY | {"start": 8, "end": 10, "confidence": 0.25}]},
        [[("Ada", "PER"), (" met ", None), ("민수", "PER")], [["Ada", "PER", 0.5], ["민수", "PER", 0.25]]],
    ),
    (
        "token_classification",
        None,
        TEXT,
        TEXT | {"entities": []},
        [[("Ada met 민수", None)], [["(nothing found)", "", ""]]],
    ),
    (
        "token_classification",
        None,
        TEXT,
        TEXT | {"starts": [0, 4, 8], "ends": [3, 7, 10], "labels": ["N", "V", "N"], "confidences": [1.0, 0.5, 0.25]},
        [
            [("Ada", "N"), (" ", None), ("met", "V"), (" ", None), ("민수", "N")],
            [["Ada", "N", 1.0], ["met", "V", 0.5], ["민수", "N", 0.25]],
        ],
    ),
    (
        "text_classification",
        CLASSES | {"problem": "single_label"},
        TEXT,
        {"label": "a", "probabilities": {"a": 0.9, "b": 0.1}},
        ["a", {"a": 0.9, "b": 0.1}],
    ),
    (
        "text_classification",
        CLASSES | {"problem": "multi_label"},
        TEXT,
        {"labels": [], "probabilities": {"a": 0.2, "b": 0.1}},
        ["(none)", {"a": 0.2, "b": 0.1}],
    ),
    ("text_classification", CLASSES | {"problem": "regression"}, TEXT, {"score": 2.5}, ["2.5000"]),
    (
        "masked_lm",
        None,
        TEXT,
        {"text": "Ada met Kofi", "masks": [{"tokens": ["kofi", "lee"], "probabilities": [0.75, 0.125]}]},
        ["Ada met Kofi", [[1, "kofi", 0.75], [1, "lee", 0.125]]],
    ),
    (
        "question_answering",
        None,
        {"question": "who?", "context": "it was Ada ."},
        {"answer": "Ada", "start": 7, "end": 10, "n_best": [{"text": "Ada", "confidence": 1.0}]},
        ["Ada", [("it was ", None), ("Ada", "answer"), (" .", None)], [["Ada", 1.0]]],
    ),
    (
        "question_answering",
        None,
        {"question": "who?", "context": "it was"},
        {"answer": "", "start": None, "end": None, "n_best": [{"text": "", "confidence": 1.0}]},
        ["(no answer)", [("it was", None)], [["(no answer)", 1.0]]],
    ),
    (
        "retrieval",
        None,
        {"query": "q"},
        {
            "results": [
                {"id": "d", "score": 0.5, "title": "T", "text": "t"},
                {"id": "e", "score": 0, "title": "", "text": "u"},
            ]
        },
        [[[0.5, "d", "T: t"], [0, "e", "u"]]],
    ),
    ("text_generation", {"chat": False}, {"prompt": "a"}, {"text": " b"}, [[("a", None), (" b", "continuation")]]),
    ("text_generation", {"chat": False}, {"prompt": "a"}, {"text": ""}, [[("a", None)]]),
    ("text_generation", {"chat": True}, {"prompt": "a"}, {"text": "b"}, ["b"]),
]


@pytest.mark.parametrize(("task", "target", "given", "answer", "values"), SHOWN)
def test_each_kind_of_answer_is_shown_by_a_value_for_each_view(task, target, given, answer, values) -> None:
    module = tasks.module(task, "demo")
    assert module.shown(given, answer, target) == values
    for view, value in zip(module.views(target), values, strict=True):
        kinds = {"text": str, "highlighted": list, "probabilities": dict, "table": list}
        assert isinstance(value, kinds[view.kind])
        if view.kind == "table":
            assert {len(row) for row in value} == {len(view.columns)}
    assert set(given) <= set(module.fields(target))


@pytest.mark.parametrize(
    ("task", "row", "given"),
    [
        ("token_classification", {"tokens": ["a", "b"]}, {"text": "a b"}),
        ("token_classification", {"tokens": ["a", "b"], "text": "ab"}, {"text": "ab"}),
        ("text_classification", {"text": "a", "text_pair": "b", "label": "x"}, {"text": "a", "text_pair": "b"}),
        ("masked_lm", {"text": "a longest word"}, {"text": "a <m> word"}),
        ("text_generation", {"prompt": "p", "text": "t", "messages": None}, {"prompt": "p"}),
        ("text_generation", {"prompt": None, "text": "w " * 50}, {"prompt": " ".join(["w"] * views.BEGINNING)}),
        (
            "text_generation",
            {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]},
            {"prompt": "u"},
        ),
    ],
)
def test_a_row_of_the_test_split_is_an_input(task: str, row: views.Row, given: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"mask_token": {"content": "<m>"}}')
    assert tasks.module(task, "demo").asked(row, tmp_path) == given


def test_examples_are_of_the_folders_own_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    layout.CORPUS.mkdir(parents=True)
    rows = {"text": ["a", "b", "c"], "part": ["news", "mail", "news"]}
    pq.write_table(pa.table(rows), layout.table_file(layout.CORPUS, "test"))
    module: Any = SimpleNamespace(asked=lambda row, folder: row)
    assert demo.asked(layout.EXPORTED, module) == [{"text": "a"}, {"text": "b"}, {"text": "c"}]
    assert demo.asked(layout.EXPORTED / "parts" / "news", module) == [{"text": "a"}, {"text": "c"}]
    assert demo.asked(tmp_path / "another", module) == []
    assert demo.rows(layout.table_file(layout.CORPUS, "test"), 2) == ([{"text": "a"}, {"text": "b"}], 3)
    assert demo.rows(layout.table_file(layout.CORPUS, "documents"), 2) == ([], 0)


def test_what_is_missing_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"^gradio is not installed; expected the extra try: pip install -e"):
        demo.installed()
    settings = inference.Exported("retrieval", None, None, None)
    monkeypatch.setattr(inference, "preferred_runtime", lambda folder: "onnx")
    with pytest.raises(UserError, match=r"^there are no documents to search; expected data/corpus/documents.parquet"):
        demo.loaded(tmp_path, settings, tasks.module("retrieval", "demo"), None)


@pytest.mark.filterwarnings("ignore")  # Gradio's own
def test_a_problem_is_shown_and_nothing_else() -> None:
    pytest.importorskip("gradio", reason="the extra try is not installed")

    def show(text: str) -> list[Any]:
        if not text:
            raise UserError("input '0': nothing")
        return [[(text, "X")], [[text, "X", 1.0]]]

    settings = inference.Exported("token_classification", None, None, None)
    blocks = demo.page(settings, tasks.module("token_classification", "demo"), show, [["a"]], "a model")
    answer = next(function.fn for function in blocks.fns.values() if function.fn.__name__ == "answer")
    assert answer("a") == [[("a", "X")], [["a", "X", 1.0]], {"value": "", "visible": False, "__type__": "update"}]
    assert answer("") == [None, None, {"value": "input '0': nothing", "visible": True, "__type__": "update"}]
    assert not blocks.analytics_enabled
    del blocks, answer
    gc.collect()  # of event loops that Gradio leaves open, whose warnings are ignored here
