"""Turns features and a model's logits into losses of single tokens and continuations, and those into scores.

A row of the predictions is a block (or a completion), with its tokens; or a sample, with a continuation and no tokens.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finetrail import layout
from finetrail.encoding import ragged
from finetrail.evaluation import generation, inference, slicing
from finetrail.evaluation.bootstrap import Statistic
from finetrail.evaluation.inference import Forward
from finetrail.evaluation.slicing import Slicing
from finetrail.evaluation.splits import Encoded, slice_columns
from finetrail.labels import IGNORE_INDEX
from finetrail.progress import Bar
from finetrail.tasks.text_generation import metrics
from finetrail.tasks.text_generation.settings import PLACE, Evaluate, Samples, Target

if TYPE_CHECKING:
    from finetrail.tasks.contract import Outcome, Row

# Optional in tasks/contract.py, and not used here.
beside = candidates = settle = counted = alone = None

CONTEXT_TOKENS = 12  # on each side of an error

PREDICTIONS = pa.schema(
    [
        ("id", pa.string()),
        ("references", pa.list_(pa.int32())),  # the tokens to predict,
        ("predictions", pa.list_(pa.int32())),  # the most probable tokens,
        ("confidences", pa.list_(pa.float32())),  # their probabilities,
        ("losses", pa.list_(pa.float32())),  # and the references' negative log-probability (natural)
        ("bytes", pa.int32()),  # of the references in UTF-8
        ("reference_texts", pa.list_(pa.string())),
        ("predicted_texts", pa.list_(pa.string())),
        ("prompt", pa.string()),
        ("continuation", pa.string()),
        ("continuation_ids", pa.list_(pa.int32())),
        ("reference_continuation", pa.string()),  # the true continuation, of the same length
        ("reference_continuation_ids", pa.list_(pa.int32())),
    ]
)


def predict(
    split: Encoded,
    shared: dict[str, Encoded],
    target: Target,
    forward: Forward,
    tokenizer: Any,
    settings: Evaluate,
) -> pa.Table:
    """Return a row per feature, in order, and then a row per continued example.

    All examples without a text are continued. If every example has one, settings.samples.count of them are.
    """
    features = split.features
    blocks: list[dict[str, Any]] = [{} for _ in range(len(features))]
    more = {name: column.to_pylist() for name, column in slice_columns(split.examples).items()}
    labels = features["labels"].to_pylist()
    texts = Texts(tokenizer)
    for rows, outputs in inference.forward_batches(features, forward, tokenizer.pad_token_id, settings.batch_size):
        for row, logits in zip(rows, outputs["logits"], strict=True):
            blocks[row] = _read(logits, np.array(labels[row])) | {"bytes": features["bytes"][int(row)].as_py()}
    numbers = np.unique(features["example"].to_numpy(), return_inverse=True)[1]
    for number, block in zip(numbers, blocks, strict=True):
        block |= {"id": split.examples["id"][int(number)].as_py()} | {name: more[name][number] for name in more}
        block["reference_texts"], block["predicted_texts"] = (
            [texts[token] for token in block[name]] for name in ("references", "predictions")
        )
    samples = [
        _sample(example, target, forward, tokenizer, settings) | {name: example[name] for name in more}
        for example in Bar(_continued(split.examples, settings), desc="continue", unit="samples")
    ]
    return pa.Table.from_pylist(blocks + samples, pa.schema([*PREDICTIONS, *((name, pa.string()) for name in more)]))


class Texts(dict[int, str]):
    """The text of each token by its id, decoded on first use."""

    def __init__(self, tokenizer: Any) -> None:
        self.backend = tokenizer.backend_tokenizer
        # Some decoders strip the blank of the first token of a text.
        self.anchor = self.backend.encode("a", add_special_tokens=False).ids
        self.before = self.backend.decode(self.anchor, skip_special_tokens=False)

    def __missing__(self, token: int) -> str:
        text = self.backend.decode([*self.anchor, token], skip_special_tokens=False)
        return self.setdefault(token, text.removeprefix(self.before))


def _read(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Compare the logits [padded length, vocabulary] of one feature with its labels [length], each with the next."""
    positions = np.flatnonzero(labels[1:] != IGNORE_INDEX)
    references, scores = labels[1:][positions], logits[positions]
    predictions = scores.argmax(-1)
    best = scores.max(-1, initial=-np.inf)
    # float64, because a sum of 50,000 terms in float32 loses digits that the mean over all tokens shows.
    normalizers = best + np.log(np.exp(scores - best[:, None]).sum(-1, dtype=np.float64))
    return {
        "references": references,
        "predictions": predictions,
        "confidences": np.exp(best - normalizers),
        "losses": normalizers - scores[np.arange(len(positions)), references],
    }


def _continued(examples: pa.Table, settings: Evaluate) -> list[dict[str, Any]]:
    """Return the examples to continue; with the prompt "", a text is scored only."""
    rows = np.arange(len(examples))
    if (unanswered := _unanswered(examples)).any():
        return list(examples.take(rows[unanswered]).to_pylist())
    if "prompt" in examples.column_names:
        rows = rows[pc.fill_null(pc.not_equal(examples["prompt"], ""), True).to_numpy()]
    count = min(settings.samples.count, len(rows))
    return list(examples.take(rows[np.arange(count) * len(rows) // max(count, 1)]).to_pylist())


def _unanswered(examples: pa.Table) -> np.ndarray:
    """Return which examples have no text, or no last turn of the assistant: bool [examples]."""
    found = np.zeros(len(examples), dtype=bool)
    if "text" in examples.column_names:
        found |= pc.is_null(examples["text"]).to_numpy()
    if "messages" in examples.column_names:
        given = examples["messages"].to_pylist()
        found &= np.array([messages is None for messages in given], dtype=bool)
        found |= np.array([bool(messages) and messages[-1]["role"] != "assistant" for messages in given], dtype=bool)
    return found


def _parts(example: dict[str, Any], target: Target, tokenizer: Any, samples: Samples) -> tuple[str, str, str | None]:
    """Return a prompt as people read it, as the model gets it, and its true continuation."""
    messages = example.get("messages")
    prompt, reference = example.get("prompt"), example.get("text")
    if messages is None and target["chat"] and prompt:
        messages = [{"role": "user", "content": prompt}]
    elif messages is not None and messages[-1]["role"] == "assistant":
        messages, reference = messages[:-1], messages[-1]["content"]
    if messages is not None:
        given = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return given, given, reference
    if prompt is None:
        text = example["text"]
        beginning = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).offsets[: samples.prompt_tokens]
        end = beginning[-1][1] if beginning else 0
        prompt, reference = text[:end], text[end:]
    return prompt, (target["template"] or PLACE).replace(PLACE, prompt), reference


def _sample(
    example: dict[str, Any], target: Target, forward: Forward, tokenizer: Any, settings: Evaluate
) -> dict[str, Any]:
    """Continue a prompt, a conversation, or the beginning of a document; the reference is cut to as many tokens."""
    backend, samples = tokenizer.backend_tokenizer, settings.samples
    prompt, given, reference = _parts(example, target, tokenizer, samples)
    ids = backend.encode(given, add_special_tokens=False).ids or [tokenizer.eos_token_id]
    ids = ids[-(target["block_size"] - samples.max_new_tokens) :]
    options = samples.model_dump(include={"max_new_tokens", "temperature", "top_p", "seed"})
    new = generation.continuation(ids, forward, tokenizer.eos_token_id, **options)
    true = backend.encode(reference or "", add_special_tokens=False).ids[: samples.max_new_tokens]
    return dict.fromkeys(("references", "predictions", "confidences", "losses"), []) | {
        "id": example["id"],
        "prompt": prompt,
        "continuation": backend.decode(new),
        "continuation_ids": new,
        "reference_continuation": None if reference is None else backend.decode(true),
        "reference_continuation_ids": None if reference is None else true,
    }


def headline(target: Target, settings: Evaluate) -> str:
    return "perplexity"


def score(predictions: pa.Table, target: Target, settings: Evaluate) -> dict[str, float]:
    """Return the scores; those of continuations only if there are some."""
    sums = _sums(units(predictions)).sum(0)
    return {name: float(value) for name, value in metrics.scores(sums).items()} | metrics.of_samples(predictions)


def units(predictions: pa.Table) -> pa.Table:
    """Return a row per block, without the continuations, which are too few for intervals of their scores."""
    return predictions.filter(pc.greater(pc.list_value_length(predictions["references"]), 0))


def statistics(units: pa.Table, target: Target, settings: Evaluate) -> Statistic:
    sums = _sums(units)
    return lambda weights: metrics.scores(weights @ sums)


def outcomes(units: pa.Table, target: Target, settings: Evaluate) -> "list[Outcome]":
    """Return the outcome of each block; its score is the negative mean loss of its tokens."""
    tokens, losses, *_ = _sums(units).T
    return [
        {
            "score": -float(loss / count),
            "input": (text := "".join(row["reference_texts"])),
            "reference": text,
            "prediction": "".join(row["predicted_texts"]),
        }
        for row, loss, count in zip(units.to_pylist(), losses, tokens, strict=True)
    ]


def slicings(units: pa.Table, train: pa.Table, target: Target) -> list[Slicing]:
    """Slice blocks by their number of tokens, by words that train lacks, and by the columns of their text.

    The first and the last word of a block are ignored, because they may be incomplete.
    """
    known = {word for text in _texts(train) for word in slicing.words(text)}
    read = [slicing.words("".join(texts))[1:-1] for texts in units["reference_texts"].to_pylist()]
    lengths = slicing.by_length("length in tokens", units["references"].to_pylist())
    return [lengths, slicing.by_unseen(read, known), *slicing.by_columns(units)]


def _texts(examples: pa.Table) -> Iterator[str]:
    """Yield all texts of examples: prompts, documents, completions, and the turns of conversations."""
    for name in ("prompt", "text"):
        if name in examples.column_names:
            yield from examples[name].drop_null().to_pylist()
    if "messages" in examples.column_names:
        yield from pc.struct_field(pc.list_flatten(examples["messages"]), "content").to_pylist()


def _sums(blocks: pa.Table) -> np.ndarray:
    """Return sums per block: tokens, losses, correct predictions and bytes, float64 [blocks, 4]."""
    sizes = pc.list_value_length(blocks["references"]).to_numpy()
    block = np.repeat(np.arange(len(blocks)), sizes)
    losses, references, found = (
        pc.list_flatten(blocks[name]).to_numpy() for name in ("losses", "references", "predictions")
    )
    columns = [sizes, *(np.bincount(block, values, len(blocks)) for values in (losses, references == found))]
    return np.stack([*columns, blocks["bytes"].to_numpy()], axis=1).astype(np.float64)


def tables(predictions: pa.Table, target: Target, settings: Evaluate) -> "dict[str, list[Row]]":
    """Return the continuations."""
    samples = predictions.filter(pc.is_valid(predictions["continuation"]))
    columns = {"id": "id", "prompt": "prompt", "continuation": "continuation", "reference_continuation": "reference"}
    return {"samples": samples.select(list(columns)).rename_columns(list(columns.values())).to_pylist()}


def worst_errors(predictions: pa.Table, most: int, target: Target, settings: Evaluate) -> "list[Row]":
    """Return, in context, the tokens for which the model was most confident of another token."""
    blocks = units(predictions)
    references, found, sure = (
        pc.list_flatten(blocks[name]).to_numpy() for name in ("references", "predictions", "confidences")
    )
    block = pc.list_parent_indices(blocks["references"]).to_numpy()
    wrong = np.flatnonzero(references != found)
    errors = wrong[np.argsort(-sure[wrong], kind="stable")][:most]
    positions = errors - np.searchsorted(block, block[errors])
    rows = blocks.take(block[errors]).to_pylist()
    return [_in_context(row, int(position)) for row, position in zip(rows, positions, strict=True)]


def _in_context(row: dict[str, Any], position: int) -> dict[str, Any]:
    texts = row["reference_texts"]
    return {
        "id": row["id"],
        "left": "".join(texts[max(0, position - CONTEXT_TOKENS) : position]),
        "token": texts[position],
        "right": "".join(texts[position + 1 : position + 1 + CONTEXT_TOKENS]),
        "prediction": row["predicted_texts"][position],
        "confidence": round(float(row["confidences"][position]), 4),
        "loss": round(float(row["losses"][position]), 4),
    }


def base_is_baseline(base_model: Path) -> bool:
    """Return True if the base model has weights: it then continues text before training, too."""
    return layout.has_weights(base_model)


def baselines(
    train: Encoded, split: Encoded, shared: dict[str, Encoded], target: Target, settings: Evaluate
) -> dict[str, pa.Table]:
    """Return a unigram and a bigram model of tokens.

    unigram: frequencies in train plus one (Laplace). bigram: interpolated with the unigrams (Witten and Bell 1991).
    The vocabulary is assumed to end with the largest id that occurs.
    """
    before, after = _pairs(train.features)
    held_before, held_after = _pairs(split.features)
    size = 1 + int(max(array.max(initial=0) for array in (before, after, held_before, held_after)))
    counts = np.bincount(after, minlength=size)
    unigram = (counts + 1) / (counts.sum() + size)
    probabilities = {
        "unigram": (unigram[held_after], np.full(len(held_after), counts.argmax())),
        "bigram": _bigram(before, after, held_before, held_after, unigram),
    }
    return {name: _as_predictions(split.features, *found) for name, found in probabilities.items()}


def _pairs(features: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return each token to predict, and the token before it: int64 [tokens]."""
    ids, labels = (pc.list_flatten(features[name]).to_numpy().astype(np.int64) for name in ("input_ids", "labels"))
    positions = np.flatnonzero(labels != IGNORE_INDEX)  # none is the first of its feature
    return ids[positions - 1], labels[positions]


def _bigram(
    before: np.ndarray, after: np.ndarray, held_before: np.ndarray, held_after: np.ndarray, unigram: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability of each held-out token after the one before, and that one's most frequent successor."""
    size = len(unigram)
    pairs, counts = np.unique(before * size + after, return_counts=True)
    context = np.bincount(before, minlength=size)
    kinds = np.bincount(pairs // size, minlength=size)
    wanted = held_before * size + held_after
    place = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    seen = np.where(pairs[place] == wanted, counts[place], 0)
    share = kinds[held_before] / np.maximum(context[held_before] + kinds[held_before], 1)
    share = np.where(context[held_before] > 0, share, 1.0)  # of the unigrams
    probability = (1 - share) * seen / np.maximum(context[held_before], 1) + share * unigram[held_after]
    best = np.full(size, unigram.argmax())
    order = np.argsort(counts, kind="stable")  # the last write wins: the most frequent follower
    best[pairs[order] // size] = pairs[order] % size
    return probability, best[held_before]


def _as_predictions(features: pa.Table, probabilities: np.ndarray, found: np.ndarray) -> pa.Table:
    """Lay out flat arrays as rows of the features."""
    flat = pc.list_flatten(features["labels"]).to_numpy()
    parents = pc.list_parent_indices(features["labels"]).to_numpy()
    sizes = np.bincount(parents[flat != IGNORE_INDEX], minlength=len(features))
    lists = {
        "references": flat[flat != IGNORE_INDEX],
        "predictions": found,
        "confidences": np.zeros(len(found)),
        "losses": -np.log(probabilities),
    }
    columns = {name: ragged.runs(sizes, pa.array(values)) for name, values in lists.items()}
    return pa.table(columns | {"bytes": features["bytes"]})
