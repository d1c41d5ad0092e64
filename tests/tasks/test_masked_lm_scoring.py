"""Predictions and scores against hand loops over torch; baselines by hand; answers on the test split."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedModel

from finetrail.errors import UserError
from finetrail.evaluation.inference import torch_forward
from finetrail.evaluation.splits import Encoded
from finetrail.labels import IGNORE_INDEX
from finetrail.tasks.masked_lm import card, encoding, loading, scoring, serving
from finetrail.tasks.masked_lm.settings import Evaluate, Tokenize

HOW = Tokenize(
    engine="local",
    num_proc=1,
    block_size=24,
    join_documents=True,
    remainder="pad",
    mask_probability=0.25,
    whole_word=True,
    mask_seed=3,
    limit=None,
)
SETTINGS = Evaluate.model_construct(batch_size=3, fill_mask_examples=4, worst_errors=5)
COLUMNS = ("references", "predictions", "confidences", "losses", "positions", "parts", "shown", "fills")


@pytest.fixture(scope="module")
def tokenizer(tiny_wordpiece: Path) -> Any:
    return encoding.load_tokenizer(tiny_wordpiece, HOW, lambda: iter(()))


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> PreTrainedModel:
    return loading.load_model(tiny_checkpoint)


def encoded(tokenizer: Any, name: str, examples: pa.Table) -> Encoded:
    parts = encoding.Encoder(tokenizer, None, HOW).encode_table(name, iter([(np.arange(len(examples)), examples)]))
    features = pa.concat_tables([part for part, _ in parts])
    return Encoded(examples.take(np.unique(features["example"].to_numpy())), features)


@pytest.fixture(scope="module")
def split(tokenizer: Any, toy_text: list[str]) -> Encoded:
    ids = [f"text-{number}" for number in range(len(toy_text))]
    return encoded(tokenizer, "test", pa.table({"id": ids, "text": toy_text}))


@pytest.fixture(scope="module")
def predictions(split: Encoded, tokenizer: Any, model: PreTrainedModel) -> pa.Table:
    return scoring.predict(split, {}, None, torch_forward(model), tokenizer, SETTINGS)


def test_predictions_are_those_of_a_hand_loop(
    split: Encoded, predictions: pa.Table, tokenizer: Any, model: PreTrainedModel
) -> None:
    assert len(predictions) == len(split.features) > SETTINGS.batch_size
    for feature, row in zip(split.features.to_pylist(), predictions.to_pylist(), strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([feature["input_ids"]])).logits[0]
        positions = [at for at, label in enumerate(feature["labels"]) if label != IGNORE_INDEX]
        probabilities = logits[positions].softmax(-1).topk(5)
        wanted = [feature["labels"][at] for at in positions]
        assert row["positions"] == positions
        assert row["references"] == tokenizer.convert_ids_to_tokens(wanted)
        assert row["fills"] == [tokenizer.convert_ids_to_tokens(best) for best in probabilities.indices.tolist()]
        assert row["predictions"] == [best[0] for best in row["fills"]]
        np.testing.assert_allclose(row["probabilities"], probabilities.values, rtol=1e-4)
        assert row["confidences"] == [best[0] for best in row["probabilities"]]
        losses = torch.nn.functional.cross_entropy(logits[positions], torch.tensor(wanted), reduction="none")
        np.testing.assert_allclose(row["losses"], losses, rtol=1e-4)


def test_ids_say_where_a_block_begins(split: Encoded, predictions: pa.Table) -> None:
    ids = predictions["id"].to_pylist()
    assert len(set(ids)) == len(ids)
    assert [f"text-{row}" for row in split.features["example"].to_pylist()] == [id.rpartition(":")[0] for id in ids]
    assert ids[0] == "text-0:0"
    many = Encoded(
        split.examples.slice(0, 2), split.features.slice(0, 5).set_column(0, "example", pa.array([0, 0, 0, 7, 7]))
    )
    assert scoring._block_ids(many) == [
        "text-0:0",
        "text-0:1",
        "text-0:2",
        f"{many.examples['id'][1]}:0",
        f"{many.examples['id'][1]}:1",
    ]


def test_scores_are_those_of_all_tokens_together(split: Encoded, predictions: pa.Table, model: PreTrainedModel) -> None:
    losses, right = [], []
    for feature in split.features.to_pylist():
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([feature["input_ids"]])).logits[0]
        for at, label in enumerate(feature["labels"]):
            if label != IGNORE_INDEX:
                losses.append(float(torch.nn.functional.cross_entropy(logits[at][None], torch.tensor([label]))))
                right.append(int(logits[at].argmax()) == label)

    found = scoring.score(predictions, None, SETTINGS)

    expected = {"perplexity": math.exp(np.mean(losses)), "loss": np.mean(losses), "accuracy": np.mean(right)}
    assert found == pytest.approx(expected, rel=1e-5)
    assert scoring.headline(None, SETTINGS) in found


def test_statistics_of_weights_are_scores_of_repeated_blocks(predictions: pa.Table) -> None:
    n, to_scores = len(predictions), scoring.statistics(scoring.units(predictions), None, SETTINGS)
    weights = np.random.default_rng(0).integers(0, 4, (3, n))
    found = to_scores(np.vstack([np.ones((1, n), dtype=np.int64), weights]))

    tables = [predictions, *(predictions.take(np.repeat(np.arange(n), row)) for row in weights)]
    for sample, table in enumerate(tables):
        expected = scoring.score(table, None, SETTINGS)
        assert {name: values[sample] for name, values in found.items()} == pytest.approx(expected)


def test_parts_and_what_is_shown_follow_the_features(split: Encoded, predictions: pa.Table, tokenizer: Any) -> None:
    for feature, row in zip(split.features.to_pylist(), predictions.to_pylist(), strict=True):
        back = [
            i if label == IGNORE_INDEX else label
            for i, label in zip(feature["input_ids"], feature["labels"], strict=True)
        ]
        tokens = tokenizer.convert_ids_to_tokens(back)
        for at, part, shown, reference in zip(
            *(row[name] for name in ("positions", "parts", "shown", "references")), strict=True
        ):
            later = tokens[at].startswith("##")
            assert part == (
                "later piece" if later else "first piece" if tokens[at + 1].startswith("##") else "whole word"
            )
            seen = tokenizer.convert_ids_to_tokens(feature["input_ids"][at])
            assert shown == ("masked" if seen == "[MASK]" else "unchanged" if seen == reference else "another token")


def test_tables_by_kind_add_up_to_the_scores(predictions: pa.Table) -> None:
    tables = scoring.tables(predictions, None, SETTINGS)
    total = scoring.score(predictions, None, SETTINGS)
    for name in ("by_part", "by_shown"):
        support = np.array([row["support"] for row in tables[name]])
        for metric in ("loss", "accuracy"):
            values = np.array([row[metric] for row in tables[name]])
            assert (values * support).sum() / support.sum() == pytest.approx(total[metric])
        assert all(row["perplexity"] == pytest.approx(math.exp(row["loss"])) for row in tables[name])
        assert support.sum() == len(predictions["references"].combine_chunks().flatten())


def test_fill_mask_shows_the_same_masks_for_every_model(
    split: Encoded, predictions: pa.Table, tokenizer: Any, tiny_wordpiece: Path
) -> None:
    torch.manual_seed(5)
    from transformers import BertConfig, BertForMaskedLM

    other = torch_forward(BertForMaskedLM(BertConfig.from_pretrained(tiny_wordpiece)))
    others = scoring.predict(split, {}, None, other, tokenizer, SETTINGS)
    before, after = (scoring.tables(table, None, SETTINGS)["fill_mask"] for table in (others, predictions))

    keys = ("id", "position", "text", "reference")
    assert [[row[key] for key in keys] for row in before] == [[row[key] for key in keys] for row in after]
    assert [row["fills"] for row in before] != [row["fills"] for row in after]
    assert 0 < len(after) <= SETTINGS.fill_mask_examples
    rows = {row["id"]: row for row in predictions.to_pylist()}
    for row in after:
        block = rows[row["id"]]
        index = block["positions"].index(row["position"])
        assert "[MASK]" in row["text"]
        assert row["reference"] == block["references"][index]
        assert row["reference_probability"] == pytest.approx(math.exp(-block["losses"][index]), abs=1e-4)
        assert row["fills"].startswith(f"{block['predictions'][index]} {block['confidences'][index]:.3f} | ")


def test_worst_errors_are_the_most_confident_wrong_ones(predictions: pa.Table) -> None:
    found = scoring.worst_errors(predictions, 5, None, SETTINGS)
    flat = [
        (confidence, row["id"], at, reference, prediction)
        for row in predictions.to_pylist()
        for confidence, at, reference, prediction in zip(
            *(row[name] for name in ("confidences", "positions", "references", "predictions")), strict=True
        )
        if reference != prediction
    ]
    expected = sorted(flat, key=lambda error: -error[0])[:5]
    assert [(row["id"], row["position"], row["reference"], row["prediction"]) for row in found] == [
        e[1:] for e in expected
    ]
    assert all(row["confidence"] == round(e[0], 4) for row, e in zip(found, expected, strict=True))
    assert scoring.worst_errors(predictions, 0, None, SETTINGS) == []


def test_the_unigram_baseline_is_that_by_hand(split: Encoded, tokenizer: Any) -> None:
    train = encoded(tokenizer, "train", pa.table({"id": ["a"], "text": ["nobody was at home . nobody left"]}))
    found = scoring.baselines(train, split, {}, None, SETTINGS)["unigram"]

    seen = Counter(tokenizer("nobody was at home . nobody left", add_special_tokens=False)["input_ids"])
    wanted = [label for labels in split.features["labels"].to_pylist() for label in labels if label != IGNORE_INDEX]
    vocabulary = max(*wanted, *train.features["input_ids"][0].as_py()) + 1
    loss = np.mean([-math.log((seen[label] + 1) / (seen.total() + vocabulary)) for label in wanted])
    nobody = seen.most_common(1)[0][0]
    expected = {"perplexity": math.exp(loss), "loss": loss, "accuracy": wanted.count(nobody) / len(wanted)}
    assert scoring.score(found, None, SETTINGS) == pytest.approx(expected)
    assert len(scoring.units(found)) == len(split.features)


@pytest.mark.parametrize("kind", ["tiny_wordpiece", "tiny_bpe", "tiny_sentencepiece"])
def test_pieces_of_text_join_to_the_text(kind: str, request: pytest.FixtureRequest) -> None:
    tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue(kind))
    text = "unbelievable tokenization of uncommon words, nobody was at home."
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    texts = scoring.pieces_of_text(tokenizer, range(len(tokenizer))).to_pylist()
    assert "".join(texts[index] for index in ids).strip() == tokenizer.decode(ids).strip()


def test_a_model_may_have_more_outputs_than_tokens(split: Encoded, tokenizer: Any) -> None:
    def forward(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        logits = np.zeros((*inputs["input_ids"].shape, len(tokenizer) + 3), dtype=np.float32)
        logits[..., -1] = 5
        return {"logits": logits}

    found = scoring.predict(split, {}, None, forward, tokenizer, SETTINGS)
    assert set(found["predictions"].combine_chunks().flatten().to_pylist()) == {""}


# --- serving ------------------------------------------------------------------------------------------------------


def ask(tokenizer: Any, model: PreTrainedModel, *inputs: dict[str, Any]) -> list[dict[str, Any]]:
    examples = serving.examples(list(inputs))
    split = encoded(tokenizer, "test", examples)
    return serving.answers(scoring.predict(split, {}, None, torch_forward(model), tokenizer, SETTINGS))


def test_the_test_split_s_blocks_get_the_stored_predictions(
    split: Encoded, predictions: pa.Table, tokenizer: Any, model: PreTrainedModel
) -> None:
    rows = predictions.to_pylist()
    inputs = [
        {"id": row["id"], "input_ids": ids, "positions": row["positions"]}
        for ids, row in zip(split.features["input_ids"].to_pylist(), rows, strict=True)
    ]
    found = ask(tokenizer, model, *inputs)
    assert [answer["id"] for answer in found] == [row["id"] for row in rows]
    assert [[mask["tokens"] for mask in answer["masks"]] for answer in found] == [row["fills"] for row in rows]
    assert [answer["text"] for answer in found] == [row["filled"].strip() for row in rows]
    for answer, row in zip(found, rows, strict=True):
        np.testing.assert_allclose([mask["probabilities"] for mask in answer["masks"]], row["probabilities"], rtol=1e-4)


def test_a_text_comes_back_filled(tokenizer: Any, model: PreTrainedModel) -> None:
    (answer,) = ask(tokenizer, model, serving.text_input("nobody [MASK] at home."))
    inputs = tokenizer("nobody [MASK] at home.", return_tensors="pt")
    best = model(**inputs).logits[0, 2].softmax(-1).topk(5)
    tokens = tokenizer.convert_ids_to_tokens(best.indices)
    ids = inputs["input_ids"][0].clone()
    ids[2] = best.indices[0]
    assert answer["masks"][0]["tokens"] == tokens
    assert answer["masks"][0]["probabilities"] == pytest.approx(best.values.tolist(), rel=1e-4)
    assert answer["text"] == tokenizer.decode(ids[1:-1])
    assert answer["id"] == "0"


def test_a_long_text_is_one_answer(tokenizer: Any, model: PreTrainedModel) -> None:
    text = "nobody [MASK] at home . " * 12
    short, long = ask(tokenizer, model, {"text": "[MASK]", "id": "a:1"}, {"text": text})
    assert (short["id"], long["id"]) == ("a:1", "1")
    assert len(short["masks"]) == 1
    assert len(long["masks"]) == 12
    assert long["text"].count("nobody") >= 12
    assert "[MASK]" not in long["text"]


def test_inputs_may_share_an_id(tokenizer: Any, model: PreTrainedModel) -> None:
    found = ask(tokenizer, model, {"text": "[MASK]", "id": "a"}, {"text": "nobody [MASK]", "id": "a"})
    assert [answer["id"] for answer in found] == ["a", "a"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "input '0': neither; expected either text or input_ids"),
        ({"text": "a", "input_ids": [1]}, "input '0': both; expected either"),
        ({"text": 1}, "input '0': text is 1; expected a string"),
        ({"input_ids": "a"}, "input '0': input_ids is 'a'; expected a list of whole numbers"),
        ({"input_ids": [1, True]}, "input '0': input_ids is .* expected a list of whole numbers"),
        ({"input_ids": [2**31]}, r"input '0': input_ids is \[2147483648\]; expected a list of whole numbers below"),
        ({"input_ids": [1], "positions": [2**63]}, "input '0': positions is .* expected a list of whole numbers"),
        ({"input_ids": [1], "positions": [0.5]}, "input '0': positions is .* expected a list of whole numbers"),
        ({"text": "a", "txt": 1}, "input '0': unknown key 'txt'; expected id, text, input_ids, positions"),
    ],
)
def test_an_input_that_is_none_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        serving.examples([given])


def test_the_card_s_code_runs(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(card.usage(str(tiny_checkpoint), None), "usage", "exec"), {})  # noqa: S102
    assert "token_str" in capsys.readouterr().out
    assert card.labels(None) == []
