"""The ONNX examples of model cards, where the toys of the contract tests do not reach."""

import ast
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from finetrail.tasks.retrieval import card as retrieval
from finetrail.tasks.text_classification import card as text_classification
from finetrail.tasks.text_generation import card as text_generation

LOGITS = np.array([[0.0, np.log(3.0), 1.0]])


def printed(code: str, logits: np.ndarray, capsys: pytest.CaptureFixture[str]) -> tuple[Any, list[Any]]:
    """Run an example with a model that gives these logits; return what it prints, and how it calls the tokenizer."""
    called: list[Any] = []

    def tokenizer(*texts: Any, **options: Any) -> dict[str, Any]:
        called.append((texts, options))
        return {"input_ids": "ids"}

    def run(outputs: list[str], inputs: dict[str, Any]) -> list[np.ndarray]:
        assert (outputs, inputs) == (["logits"], {"input_ids": "ids"})
        return [logits]

    session = SimpleNamespace(run=run, get_inputs=lambda: [SimpleNamespace(name="input_ids")])
    config = SimpleNamespace(id2label={0: "a/x", 1: "a/y", 2: "b/z"})
    exec(code, {"session": session, "tokenizer": tokenizer, "config": config, "np": np})  # noqa: S102
    return capsys.readouterr().out.strip(), called


@pytest.mark.parametrize(
    ("target", "logits", "said"),
    [
        ({"problem": "single_label"}, LOGITS[:, :2], {"a/x": 0.25, "a/y": 0.75}),
        ({"problem": "multi_label"}, LOGITS[:, :2], {"a/x": 0.5, "a/y": 0.75}),
        ({"problem": "regression"}, np.array([[3.25]]), 3.25),
    ],
)
@pytest.mark.parametrize("texts", [["text"], ["text", "text_pair"]])
def test_a_classifiers_logits_become_probabilities_or_a_score(
    target: dict[str, Any], logits: np.ndarray, said: Any, texts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = text_classification.onnx_usage(target | {"label_names": [], "texts": texts})
    found, [(given, options)] = printed(code, logits, capsys)
    assert ast.literal_eval(found) == pytest.approx(said)
    assert given == (["One text."], ["Another."])[: len(texts)]
    assert options["truncation"] is True


def test_of_several_heads_each_has_its_own_probabilities(capsys: pytest.CaptureFixture[str]) -> None:
    target = {"problem": "single_label", "heads": "separate", "label_names": ["a/x", "a/y", "b/z"], "texts": ["text"]}
    found, _ = printed(text_classification.onnx_usage(target), LOGITS, capsys)
    of_heads = dict(line.split(" ", 1) for line in found.splitlines())
    assert ast.literal_eval(of_heads["a"]) == pytest.approx({"a/x": 0.25, "a/y": 0.75})
    assert ast.literal_eval(of_heads["b"]) == pytest.approx({"b/z": 1.0})


def test_a_model_of_pairs_is_shown_with_a_pair() -> None:
    target = {"problem": "single_label", "label_names": ["x", "y"], "texts": ["text", "text_pair"]}
    assert 'classifier({"text": "One text.", "text_pair": "Another."})' in text_classification.usage("m", target)
    assert 'classifier("One text.")' in text_classification.usage("m", target | {"texts": ["text"]})


@pytest.mark.parametrize(("pooling", "pooled"), [("mean", [3.0, 4.0]), ("cls", [0.0, 8.0])])
def test_texts_are_prefixed_truncated_pooled_and_normalized(pooling: str, pooled: list[float]) -> None:
    target = {"pooling": pooling, "max_length": 9, "query_prefix": "query: ", "document_prefix": "it's: "}
    given: list[Any] = []

    def tokenizer(texts: list[str], **options: Any) -> dict[str, Any]:
        given.append((texts, options["max_length"], options["truncation"]))
        return {"attention_mask": np.array([[1, 1, 0]] * len(texts))}

    hidden = np.array([[0.0, 8.0], [6.0, 0.0], [99.0, 99.0]])
    run = lambda outputs, inputs: [np.stack([hidden] * len(inputs["attention_mask"]))]  # noqa: E731
    session = SimpleNamespace(run=run, get_inputs=lambda: [SimpleNamespace(name="attention_mask")])
    names: dict[str, Any] = {"session": session, "tokenizer": tokenizer, "np": np}
    exec(retrieval.onnx_usage(target), names)  # noqa: S102
    assert names["queries"][0].tolist() == pytest.approx((np.array(pooled) / np.linalg.norm(pooled)).tolist())
    (queries, *of_queries), (documents, *_) = given
    assert queries == ["query: Who was born in London?"] and documents[0].startswith("it's: Ada")
    assert of_queries == [9, True]


def test_a_prompt_is_formatted_as_in_training_a_chat_by_template() -> None:
    target = {"template": 'Q: {prompt}\n"A":', "chat": False, "block_size": 20}
    for code in (text_generation.usage("m", target), text_generation.onnx_usage(target)):
        assert r'"Q: The minister said\n\"A\":"' in code
        assert "max_new_tokens=10" in code or "range(10)" in code
    chat = text_generation.onnx_usage({"template": None, "chat": True, "block_size": 1024})
    assert "tokenizer.apply_chat_template(" in chat and "range(40)" in chat
    compile(chat, "card", "exec")
