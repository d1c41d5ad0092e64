"""Predictions, perplexity, continuations, baselines and answers: by hand, and against torch one token at a time."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from finetrail import schema
from finetrail.errors import UserError
from finetrail.evaluation import inference
from finetrail.evaluation.splits import Encoded
from finetrail.labels import IGNORE_INDEX
from finetrail.tasks.text_generation import corpus, encoding, metrics, scoring, serving
from finetrail.tasks.text_generation.settings import Evaluate, Samples, Tokenize

SENTENCES = [
    "The cat sat on the mat.",
    "A dog ran; the cat sat.",
    "Zoë saw 안녕 on the mat 😀",
    "The end, the very end",
]
DOCUMENTS = [" ".join([sentence] * 3) for sentence in SENTENCES]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(DOCUMENTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


@pytest.fixture(scope="module")
def model() -> Any:
    sizes = {"vocab_size": 300, "n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 32}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, pad_token_id=0, initializer_range=0.3)
        config.use_cache = False
        return GPT2LMHeadModel(config).eval()


def settings(**samples: Any) -> Evaluate:
    given = {"count": 3, "prompt_tokens": 4, "max_new_tokens": 8, "temperature": 0.9, "top_p": 0.9, "seed": 0}
    return Evaluate(
        batch_size=2,
        bootstrap=schema.Bootstrap(samples=100, confidence=0.9, seed=0),
        worst_errors=3,
        samples=Samples(**(given | samples)),
    )


def encode(tokenizer: Any, examples: pa.Table, **changes: Any) -> tuple[Encoded, Any]:
    given = {"block_size": 16, "join_documents": True, "remainder": "pad", "template": None, "eos_token": None} | {
        "chat": None
    }
    chosen = Tokenize(**(given | {"engine": "local", "num_proc": 1, "limit": None} | changes))
    target = encoding.target(iter([]), chosen)
    encoder = encoding.Encoder(tokenizer, target, chosen)
    parts = [part for part, _ in encoder.encode_table("test", iter([(np.arange(len(examples)), examples)]))]
    features = pa.concat_tables(parts)
    return Encoded(examples.take(np.unique(features["example"].to_numpy())), features), target


def documents(texts: list[str] = DOCUMENTS, prompts: list[str] | None = None) -> pa.Table:
    ids = [f"d{number}" for number in range(len(texts))]
    return pa.table([ids, prompts or [None] * len(texts), texts], schema=corpus.SCHEMA)


def predict(tokenizer: Any, model: Any, examples: pa.Table, evaluate: Evaluate, **changes: Any) -> pa.Table:
    split, target = encode(tokenizer, examples, **changes)
    return scoring.predict(split, {}, target, inference.torch_forward(model), tokenizer, evaluate)


def losses_one_by_one(model: Any, features: pa.Table) -> list[list[float]]:
    """Return the losses of each feature alone, without padding, token by token."""
    found = []
    with torch.no_grad():
        for ids, labels in zip(features["input_ids"].to_pylist(), features["labels"].to_pylist(), strict=True):
            logits = model(input_ids=torch.tensor([ids])).logits[0]
            pairs = [(at, label) for at, label in enumerate(labels) if label != IGNORE_INDEX]
            found.append([cross_entropy(logits[at - 1], torch.tensor(label)).item() for at, label in pairs])
    return found


# --- scores ---------------------------------------------------------------------------------------------------------


def test_perplexity_is_that_of_torch_token_by_token(tokenizer: Any, model: Any) -> None:
    split, target = encode(tokenizer, documents())
    predicted = predict(tokenizer, model, documents(), settings())
    expected = losses_one_by_one(model, split.features)
    blocks = predicted.slice(0, len(split.features))
    for found, losses in zip(blocks["losses"].to_pylist(), expected, strict=True):
        assert found == pytest.approx(losses, rel=1e-4)
    flat = [loss for losses in expected for loss in losses]
    scores = scoring.score(predicted, target, settings())
    assert scores["loss"] == pytest.approx(np.mean(flat), rel=1e-5)
    assert scores["perplexity"] == pytest.approx(math.exp(np.mean(flat)), rel=1e-4)
    size = sum(split.features["bytes"].to_pylist())
    assert scores["bits_per_byte"] == pytest.approx(sum(flat) / math.log(2) / size, rel=1e-5)


def test_predictions_are_the_likeliest_next_tokens(tokenizer: Any, model: Any) -> None:
    split, target = encode(tokenizer, documents(DOCUMENTS[:2]))
    predicted = predict(tokenizer, model, documents(DOCUMENTS[:2]), settings())
    right = total = 0
    for row, ids in zip(predicted.to_pylist(), split.features["input_ids"].to_pylist(), strict=False):
        with torch.no_grad():
            probabilities = model(input_ids=torch.tensor([ids])).logits[0, :-1].softmax(-1)
        assert row["references"] == ids[1:]
        assert row["predictions"] == probabilities.argmax(-1).tolist()
        assert row["confidences"] == pytest.approx(probabilities.max(-1).values.tolist(), rel=1e-4)
        assert "".join(row["reference_texts"]) == tokenizer.decode(ids[1:])
        right += sum(a == b for a, b in zip(row["references"], row["predictions"], strict=True))
        total += len(row["references"])
    assert scoring.score(predicted, target, settings())["accuracy"] == right / total


def test_the_batch_size_changes_nothing(tokenizer: Any, model: Any) -> None:
    first = predict(tokenizer, model, documents(), settings())
    second = predict(tokenizer, model, documents(), settings().model_copy(update={"batch_size": 7}))
    assert first.drop_columns(["confidences", "losses"]).equals(second.drop_columns(["confidences", "losses"]))
    for name in ("confidences", "losses"):
        for a, b in zip(first[name].to_pylist(), second[name].to_pylist(), strict=True):
            assert a == pytest.approx(b, rel=1e-4)


def test_only_a_completion_is_scored(tokenizer: Any, model: Any) -> None:
    examples = documents(["sat on the mat", "ran"], ["The cat ", "A dog "])
    predicted = predict(tokenizer, model, examples, settings(prompt_tokens=None, count=0), join_documents=False)
    for row, text in zip(predicted.to_pylist(), ("sat on the mat", "ran"), strict=True):
        assert row["references"] == [*tokenizer(text)["input_ids"], 0]


OF_SAMPLES = [
    f"{prefix}{name}" for prefix in ("", "reference_") for name in ("distinct_1", "distinct_2", "repetition_4")
]


def without_samples(scores: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if name not in OF_SAMPLES}


def test_a_weight_of_one_gives_the_score_and_two_counts_twice(tokenizer: Any, model: Any) -> None:
    split, target = encode(tokenizer, documents())
    predicted = predict(tokenizer, model, documents(), settings())
    units = scoring.units(predicted)
    to_scores = scoring.statistics(units, target, settings())
    scores = scoring.score(predicted, target, settings())
    weights = np.ones((2, len(units)), dtype=np.int64)
    weights[1, 0] = 2
    found = to_scores(weights)
    assert len(units) == len(split.features) and scores.keys() - found.keys() == set(OF_SAMPLES)
    assert {name: values[0] for name, values in found.items()} == pytest.approx(without_samples(scores))
    twice = scoring.score(pa.concat_tables([predicted, predicted.slice(0, 1)]), target, settings())
    assert {name: values[1] for name, values in found.items()} == pytest.approx(without_samples(twice))


def test_the_headline_is_perplexity() -> None:
    assert scoring.headline(None, settings()) == "perplexity"


# --- continuations --------------------------------------------------------------------------------------------------


def test_distinct_counts_different_n_grams_of_all_texts_together() -> None:
    texts = [[1, 2, 1, 2], [1, 2, 3]]
    assert metrics.distinct(texts, 1) == 3 / 7
    assert metrics.distinct(texts, 2) == 3 / 5  # 12 21 12, 12 23
    assert metrics.distinct([[1]], 2) == 0


def test_repetition_is_the_share_of_4_grams_seen_before() -> None:
    assert metrics.repetition([[1, 2, 3, 4, 5]]) == 0
    assert metrics.repetition([[7] * 10]) == 1 - 1 / 7
    # 1212 2121 1212, and a text that is too short to repeat.
    assert metrics.repetition([[1, 2, 1, 2, 1, 2], [1, 2]]) == pytest.approx((1 / 3 + 0) / 2)


def test_documents_are_continued_from_their_beginning(tokenizer: Any, model: Any) -> None:
    split, target = encode(tokenizer, documents())
    predicted = predict(tokenizer, model, documents(), settings(count=2))
    samples = predicted.slice(len(split.features)).to_pylist()
    assert [row["id"] for row in samples] == ["d0", "d2"]
    for row, text in zip(samples, (DOCUMENTS[0], DOCUMENTS[2]), strict=True):
        assert text.startswith(row["prompt"]) and len(tokenizer(row["prompt"])["input_ids"]) == 4
        rest = tokenizer(text[len(row["prompt"]) :])["input_ids"]
        assert row["reference_continuation_ids"] == rest[:8]
        assert text.startswith(row["prompt"] + row["reference_continuation"])
        assert row["continuation"] == tokenizer.decode(row["continuation_ids"]) and len(row["continuation_ids"]) <= 8
        assert row["references"] == row["predictions"] == row["confidences"] == row["losses"] == []
    scores = scoring.score(predicted, target, settings())
    assert set(OF_SAMPLES) < scores.keys()
    new, true = ([row[name] for row in samples] for name in ("continuation_ids", "reference_continuation_ids"))
    assert scores["distinct_2"] == metrics.distinct(new, 2)
    assert scores["reference_distinct_1"] == metrics.distinct(true, 1)
    assert scores["reference_repetition_4"] == metrics.repetition(true)


def test_the_table_of_samples_is_for_reading(tokenizer: Any, model: Any) -> None:
    predicted = predict(tokenizer, model, documents(), settings(count=2))
    samples = scoring.tables(predicted, None, settings())["samples"]
    assert [list(row) for row in samples] == [["id", "prompt", "continuation", "reference"]] * 2


def test_without_samples_there_are_no_scores_of_them(tokenizer: Any, model: Any) -> None:
    predicted = predict(tokenizer, model, documents(), settings(count=0))
    assert scoring.score(predicted, None, settings()).keys() == {"perplexity", "loss", "bits_per_byte", "accuracy"}
    assert scoring.tables(predicted, None, settings())["samples"] == []


def test_a_sample_depends_on_its_prompt_alone(tokenizer: Any, model: Any) -> None:
    few, many = (predict(tokenizer, model, documents(), settings(count=count)) for count in (1, 4))
    first, *_ = few.filter(pa.compute.is_valid(few["prompt"])).to_pylist()
    again, *_ = many.filter(pa.compute.is_valid(many["prompt"])).to_pylist()
    assert first == again


def test_a_long_prompt_leaves_room_for_the_continuation(tokenizer: Any, model: Any) -> None:
    long = " ".join(SENTENCES)
    examples = documents(["sat", "sat"], [long, "x" + long])
    evaluate = settings(prompt_tokens=None, count=2)
    predicted = predict(tokenizer, model, examples, evaluate, join_documents=False)
    continuations = predicted["continuation"].drop_null().to_pylist()
    assert len(continuations) == 2 and len(set(continuations)) == 1  # only the last 8 tokens of the prompt are read


# --- errors and baselines -------------------------------------------------------------------------------------------


def made_up() -> pa.Table:
    rows = [
        {"id": "a", "references": [1, 2, 3], "predictions": [1, 9, 3], "confidences": [0.9, 0.5, 0.9]},
        {"id": "b", "references": [4, 5], "predictions": [8, 7], "confidences": [0.8, 0.1]},
    ]
    for row in rows:
        row |= {
            "losses": [1.0] * len(row["references"]),
            "bytes": 5,
            "reference_texts": [f" r{token}" for token in row["references"]],
            "predicted_texts": [f" p{token}" for token in row["predictions"]],
        }
    return pa.Table.from_pylist(rows, scoring.PREDICTIONS)


def test_worst_errors_are_the_surest_wrong_tokens() -> None:
    errors = scoring.worst_errors(made_up(), 2, None, settings())
    context = [(error["left"], error["token"], error["right"], error["prediction"]) for error in errors]
    assert context == [("", " r4", " r5", " p8"), (" r1", " r2", " r3", " p9")]
    assert [(error["id"], error["confidence"], error["loss"]) for error in errors] == [("b", 0.8, 1.0), ("a", 0.5, 1.0)]
    assert len(scoring.worst_errors(made_up(), 9, None, settings())) == 3
    assert scoring.worst_errors(made_up(), 0, None, settings()) == []


def test_baselines_are_frequencies_and_a_witten_bell_mixture(tokenizer: Any) -> None:
    train, target = encode(tokenizer, documents(DOCUMENTS[:3]))
    held, _ = encode(tokenizer, documents(DOCUMENTS[3:]))
    found = scoring.baselines(train, held, {}, target, settings())

    def pairs(features: pa.Table) -> list[tuple[int, int]]:
        return [pair for ids in features["input_ids"].to_pylist() for pair in zip(ids, ids[1:], strict=False)]

    known = pairs(train.features)
    size = 1 + max(token for pair in known + pairs(held.features) for token in pair)
    single, double = Counter(after for _, after in known), Counter(known)
    context = Counter(before for before, _ in known)
    kinds = Counter(before for before, _ in double)

    def unigram(after: int) -> float:
        return (single[after] + 1) / (len(known) + size)

    def bigram(before: int, after: int) -> float:
        if not context[before]:
            return unigram(after)
        mixed = double[before, after] + kinds[before] * unigram(after)
        return mixed / (context[before] + kinds[before])

    assert sum(map(unigram, range(size))) == pytest.approx(1)
    assert sum(bigram(known[0][0], after) for after in range(size)) == pytest.approx(1)
    expected = {
        "unigram": [-math.log(unigram(after)) for _, after in pairs(held.features)],
        "bigram": [-math.log(bigram(*pair)) for pair in pairs(held.features)],
    }
    for name, losses in expected.items():
        scores = scoring.score(found[name], target, settings())
        assert scores["loss"] == pytest.approx(np.mean(losses)), name
        assert scores["perplexity"] == pytest.approx(math.exp(np.mean(losses))), name
        assert found[name]["references"].to_pylist() == [ids[1:] for ids in held.features["input_ids"].to_pylist()]
    following = Counter({after: count for (before, after), count in double.items() if before == known[0][0]})
    best = scoring.baselines(train, train, {}, target, settings())["bigram"]["predictions"][0][0].as_py()
    assert following[best] == max(following.values())


def test_baselines_of_completions_are_of_the_completions_alone(tokenizer: Any) -> None:
    split, target = encode(tokenizer, documents(["ran", "sat"], ["A dog ", "The cat "]), join_documents=False)
    found = scoring.baselines(split, split, {}, target, settings())["unigram"]
    assert found["references"].to_pylist() == [[*tokenizer(text)["input_ids"], 0] for text in ("ran", "sat")]


# --- serving --------------------------------------------------------------------------------------------------------


def ask(tokenizer: Any, model: Any, inputs: list[dict[str, Any]], evaluate: Evaluate, **changes: Any) -> Any:
    return serving.answers(predict(tokenizer, model, serving.examples(inputs), evaluate, **changes))


def test_a_test_prompt_is_continued_as_evaluate_stored_it(tokenizer: Any, model: Any) -> None:
    stored = predict(tokenizer, model, documents(), settings()).to_pylist()
    samples = [row for row in stored if row["prompt"] is not None]
    answers = ask(tokenizer, model, [{"prompt": row["prompt"]} for row in samples], settings())
    assert answers == [{"id": str(number), "text": row["continuation"]} for number, row in enumerate(samples)]


def test_template_prompts_are_continued_as_evaluate_stored_them(tokenizer: Any, model: Any) -> None:
    changes: dict[str, Any] = {"join_documents": False, "template": "Q: {prompt}\nA: "}
    evaluate = settings(prompt_tokens=None, count=2)
    stored = predict(tokenizer, model, documents(["ran", "sat"], ["dog", "cat"]), evaluate, **changes).to_pylist()
    answers = ask(tokenizer, model, [{"prompt": "dog"}, {"prompt": "cat"}], evaluate, **changes)
    assert [answer["text"] for answer in answers] == [row["continuation"] for row in stored if row["prompt"]]


def test_a_text_is_scored_on_its_own_in_the_order_of_the_inputs(tokenizer: Any, model: Any) -> None:
    inputs = [{"text": DOCUMENTS[2], "id": "mine"}, {"prompt": "The cat"}, {"text": DOCUMENTS[0]}]
    answers = ask(tokenizer, model, inputs, settings())
    assert [answer["id"] for answer in answers] == ["mine", "1", "2"]
    alone, _ = encode(tokenizer, documents(), join_documents=False)
    losses = losses_one_by_one(model, alone.features)
    for number, answer in ((2, answers[0]), (0, answers[2])):
        of_text = [
            loss
            for row, owner in zip(losses, alone.features["example"].to_pylist(), strict=True)
            if owner == number
            for loss in row
        ]
        assert answer["tokens"] == len(of_text)
        assert answer["loss"] == pytest.approx(np.mean(of_text), rel=1e-5)
        assert answer["perplexity"] == pytest.approx(math.exp(np.mean(of_text)), rel=1e-5)
    assert answers[1].keys() == {"id", "text"}


@pytest.mark.parametrize("given", [{}, {"prompt": "a", "text": "b"}, {"prompt": " "}, {"text": 3}])
def test_an_input_without_a_prompt_or_text_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="input '1': expected one key of prompt, text, messages, with text in it, or"):
        serving.examples([{"prompt": "fine"}, given])


def test_a_text_given_for_itself_is_a_prompt() -> None:
    rows = serving.examples([serving.text_input("Once")]).to_pylist()
    assert rows == [{"id": "0", "prompt": "Once", "text": None, "messages": None}]
