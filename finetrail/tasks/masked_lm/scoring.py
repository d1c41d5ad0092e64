"""Turns blocks and a model's outputs into predictions for the masks, and these into scores, tables and baselines."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import log_softmax

from finetrail.encoding import ragged
from finetrail.encoding.masking import FIRST, LATER, SPECIAL
from finetrail.evaluation import inference, slicing
from finetrail.evaluation.bootstrap import Statistic
from finetrail.evaluation.slicing import Slicing
from finetrail.evaluation.splits import Encoded, slice_columns
from finetrail.labels import IGNORE_INDEX
from finetrail.tasks.masked_lm import metrics
from finetrail.tasks.masked_lm.settings import Evaluate

if TYPE_CHECKING:
    from finetrail.tasks.contract import Outcome, Row

# Optional in tasks/contract.py, and not used here.
beside = candidates = settle = counted = alone = None

BEST = 5  # tokens kept for each mask
CONTEXT_TOKENS = 15  # on each side of a mask

PARTS = ["whole word", "first piece", "later piece"]
SHOWN = ["masked", "another token", "unchanged"]


def predict(
    split: Encoded,
    shared: dict[str, Encoded],
    target: None,
    forward: inference.Forward,
    tokenizer: Any,
    settings: Evaluate,
) -> pa.Table:
    """Predict the tokens that have labels: a row per block, with lists of one entry per label.

    id: of the text that the block begins in, a colon, the block's number among those that begin there.
    tokens: what the model sees, as pieces that join to text; positions: of the labels in it; filled: that text with
    the predictions. parts, shown: of PARTS and SHOWN. fills, probabilities: the BEST tokens, the prediction first.
    references and losses (natural logarithm) are null where people ask.
    """
    masks = _masks(split.features)
    losses, best, probabilities = _outputs(split.features, masks, forward, tokenizer.pad_token_id, settings)
    # Names of these ids only, because an answer to one text needs few; a model may have more outputs than tokens.
    vocabulary = np.unique(np.concatenate([masks.ids, masks.wanted, best.ravel()]))
    names = pa.array([name or "" for name in tokenizer.convert_ids_to_tokens(vocabulary.tolist())], pa.string())
    asked = pa.array(masks.wanted == tokenizer.mask_token_id)  # never a label of a text
    each = np.full(len(masks.at), BEST)
    flat = {
        "references": pc.if_else(asked, pa.scalar(None, pa.string()), _of(names, vocabulary, masks.wanted)),
        "predictions": _of(names, vocabulary, best[:, 0]),
        "confidences": pa.array(probabilities[:, 0]),
        "losses": pc.if_else(asked, pa.scalar(None, pa.float32()), pa.array(losses)),
        "positions": pa.array(masks.at - masks.starts[masks.block], pa.int32()),
        "parts": _parts(masks),
        "shown": _shown(masks, tokenizer.mask_token_id),
        "fills": ragged.runs(each, _of(names, vocabulary, best.ravel())),
        "probabilities": ragged.runs(each, pa.array(probabilities.ravel())),
    }
    counts = np.bincount(masks.block, minlength=len(split.features))
    tokens, filled = _texts(masks, best[:, 0], tokenizer, vocabulary)
    lists = {name: ragged.runs(counts, values) for name, values in flat.items()}
    text = np.unique(split.features["example"].to_numpy(), return_inverse=True)[1]
    of_texts = {name: column.take(pa.array(text)) for name, column in slice_columns(split.examples).items()}
    return pa.table({"id": _block_ids(split), **lists, "tokens": tokens, "filled": filled, **of_texts})


def headline(target: None, settings: Evaluate) -> str:
    return "perplexity"


def score(predictions: pa.Table, target: None, settings: Evaluate) -> dict[str, float]:
    """Return perplexity, mean loss and accuracy over the tokens to predict."""
    return {name: float(value) for name, value in metrics.scores(_sums(predictions).sum(0)).items()}


def units(predictions: pa.Table) -> pa.Table:
    """Return all rows: a row per block."""
    return predictions


def statistics(units: pa.Table, target: None, settings: Evaluate) -> Statistic:
    sums = _sums(units)
    return lambda weights: metrics.scores(weights @ sums)


def outcomes(units: pa.Table, target: None, settings: Evaluate) -> "list[Outcome]":
    """Return the outcome of each block; its score is the negative mean loss of its tokens."""
    losses, _, tokens = _sums(units).T
    return [
        {
            "score": -float(loss / max(count, 1)),
            "input": row["filled"],
            "reference": " ".join(row["references"]),
            "prediction": " ".join(row["predictions"]),
        }
        for row, loss, count in zip(units.to_pylist(), losses, tokens, strict=True)
    ]


def slicings(units: pa.Table, train: pa.Table, target: None) -> list[Slicing]:
    """Slice blocks by their number of tokens, and by the columns of the text that a block begins in.

    Blocks are not sliced by words that train lacks, because masked words cannot be read from a block.
    """
    return [slicing.by_length("length in tokens", units["tokens"].to_pylist()), *slicing.by_columns(units)]


def tables(predictions: pa.Table, target: None, settings: Evaluate) -> "dict[str, list[Row]]":
    """Return tables; fill_mask has the same ids and positions for every model."""
    return {
        "fill_mask": _fill_mask(predictions, settings.fill_mask_examples),
        "by_part": _by(predictions, "parts", PARTS),
        "by_shown": _by(predictions, "shown", SHOWN),
    }


def worst_errors(predictions: pa.Table, most: int, target: None, settings: Evaluate) -> "list[Row]":
    """Return the tokens with wrong predictions, the most confident first, in context."""
    flat = {name: predictions[name].combine_chunks().flatten() for name in ("references", "predictions", "confidences")}
    wrong = np.flatnonzero(pc.not_equal(flat["references"], flat["predictions"]))
    order = wrong[np.argsort(-flat["confidences"].to_numpy()[wrong], kind="stable")][:most]
    rows = pc.list_parent_indices(predictions["predictions"].combine_chunks()).to_numpy()
    firsts = predictions["predictions"].combine_chunks().offsets.to_numpy()
    return [_in_context(predictions.slice(rows[i], 1).to_pylist()[0], i - firsts[rows[i]]) for i in order]


def base_is_baseline(base_model: Path) -> bool:
    """Return True: the base model fills masks before it is adapted, and both are compared."""
    return True


def baselines(
    train: Encoded, split: Encoded, shared: dict[str, Encoded], target: None, settings: Evaluate
) -> dict[str, pa.Table]:
    """Return a unigram model: each token as frequent as in train, plus one (Laplace).

    The vocabulary is assumed to end with the largest id of the two splits. Tokens are shown as their ids.
    """
    ids, pieces = (train.features[name].combine_chunks().flatten().to_numpy() for name in ("input_ids", "pieces"))
    labels = split.features["labels"].combine_chunks()
    size = 1 + max(ids.max(), labels.flatten().to_numpy().max())
    counts = np.bincount(ids[pieces != SPECIAL], minlength=size) + 1
    losses = -np.log(counts / counts.sum())
    known = [[token for token in block if token != IGNORE_INDEX] for block in labels.to_pylist()]
    return {
        "unigram": pa.table(
            {
                "references": pa.array([[str(token) for token in block] for block in known], pa.list_(pa.string())),
                "predictions": pa.array(
                    [[str(counts.argmax())] * len(block) for block in known], pa.list_(pa.string())
                ),
                "losses": pa.array([losses[block].tolist() for block in known], pa.list_(pa.float64())),
            }
        )
    }


class Masks(NamedTuple):
    """The tokens to predict, among the concatenated tokens of all blocks."""

    ids: np.ndarray  # of all tokens
    pieces: np.ndarray
    starts: np.ndarray  # of the blocks, and the end of the last block
    at: np.ndarray  # where tokens are to be predicted,
    wanted: np.ndarray  # their ids,
    block: np.ndarray  # and the block of each


def _masks(features: pa.Table) -> Masks:
    columns = (features[name].combine_chunks() for name in ("input_ids", "pieces", "labels"))
    ids, pieces, labels = (column.flatten().to_numpy() for column in columns)
    starts = ragged.bounds(pc.list_value_length(features["input_ids"]).to_numpy())
    at = np.flatnonzero(labels != IGNORE_INDEX)
    return Masks(ids, pieces, starts, at, labels[at], np.searchsorted(starts, at, side="right") - 1)


def _outputs(
    features: pa.Table, masks: Masks, forward: inference.Forward, pad_token_id: int, settings: Evaluate
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the loss of each token to predict, [n], and ids and probabilities of its best tokens, [n, BEST]."""
    losses = np.zeros(len(masks.at), dtype=np.float32)
    best, probabilities = (np.zeros((len(masks.at), BEST), dtype=kind) for kind in (np.int64, np.float32))
    firsts = np.searchsorted(masks.at, masks.starts)
    for rows, outputs in inference.forward_batches(features, forward, pad_token_id, settings.batch_size):
        for row, logits in zip(rows, outputs["logits"], strict=True):
            mine = slice(firsts[row], firsts[row + 1])
            # Few of a batch's logits, [batch, length, vocabulary], are needed.
            kept = log_softmax(logits[masks.at[mine] - masks.starts[row]], axis=-1)
            losses[mine] = -np.take_along_axis(kept, masks.wanted[mine, None], -1)[:, 0]
            best[mine] = _best(kept)
            probabilities[mine] = np.exp(np.take_along_axis(kept, best[mine], -1))
    return losses, best, probabilities


def _best(values: np.ndarray) -> np.ndarray:
    """Return the columns of the BEST largest values of each row, the largest first; ties by the lower column."""
    found = np.sort(np.argpartition(-values, BEST - 1)[:, :BEST])
    order = np.argsort(-np.take_along_axis(values, found, -1), kind="stable")
    return np.take_along_axis(found, order, -1)


def _block_ids(split: Encoded) -> list[str]:
    rows, example = np.unique(split.features["example"].to_numpy(), return_inverse=True)
    number = np.arange(len(example)) - np.searchsorted(example, np.arange(len(rows)))[example]
    ids = split.examples["id"].to_pylist()
    return [f"{ids[row]}:{count}" for row, count in zip(example, number, strict=True)]


def _of(texts: pa.Array, vocabulary: np.ndarray, ids: np.ndarray) -> pa.Array:
    """Return the text of each id; texts are those of the vocabulary, which is sorted."""
    return texts.take(pa.array(np.searchsorted(vocabulary, ids)))


def _texts(masks: Masks, predicted: np.ndarray, tokenizer: Any, vocabulary: np.ndarray) -> tuple[pa.Array, pa.Array]:
    """Return each block as pieces of text, and as a text with the predictions and without special tokens."""
    pieces, sizes = pieces_of_text(tokenizer, vocabulary.tolist()), np.diff(masks.starts)
    filled = masks.ids.copy()
    filled[masks.at] = predicted
    is_text = np.isin(filled, [*set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}], invert=True)
    filled_pieces = pc.if_else(is_text, _of(pieces, vocabulary, filled), "")
    return ragged.runs(sizes, _of(pieces, vocabulary, masks.ids)), pc.binary_join(ragged.runs(sizes, filled_pieces), "")


def pieces_of_text(tokenizer: Any, vocabulary: Iterable[int]) -> pa.Array:
    """Return each token as text with its leading space, as it would follow a word."""
    backend = tokenizer.backend_tokenizer
    word = backend.encode("a", add_special_tokens=False).ids
    alone = len(backend.decode(word, skip_special_tokens=False))
    pairs = backend.decode_batch([[*word, index] for index in vocabulary], skip_special_tokens=False)
    return pa.array([pair[alone:] for pair in pairs], pa.string())


def _parts(masks: Masks) -> pa.Array:
    """Return which of PARTS each token is; null where people gave the ids."""
    kinds = np.append(masks.pieces, SPECIAL)
    inside = masks.at + 1 < masks.starts[masks.block + 1]
    goes_on = inside & (kinds[masks.at + 1] == LATER)
    part = np.where(kinds[masks.at] == FIRST, goes_on.astype(int), PARTS.index("later piece"))
    return pa.array(np.array(PARTS)[part], pa.string(), mask=kinds[masks.at] == SPECIAL)


def _shown(masks: Masks, mask_token_id: int) -> pa.Array:
    shown = masks.ids[masks.at]
    return pa.array(np.array(SHOWN)[np.select([shown == mask_token_id, shown == masks.wanted], [0, 2], 1)])


def _sums(predictions: pa.Table) -> np.ndarray:
    """Return sums per block: losses, correct tokens and tokens, [blocks, 3]."""
    references, predicted = (predictions[name].combine_chunks() for name in ("references", "predictions"))
    rows = pc.list_parent_indices(references).to_numpy()
    right = pc.equal(references.flatten(), predicted.flatten()).to_numpy(zero_copy_only=False)
    losses = predictions["losses"].combine_chunks().flatten().to_numpy()
    columns = [np.bincount(rows, weights, minlength=len(predictions)) for weights in (losses, right, None)]
    return np.stack(columns, axis=-1)


def _by(predictions: pa.Table, column: str, names: list[str]) -> list[dict[str, Any]]:
    """Return the scores of each kind of token that occurs."""
    flat = {
        name: predictions[name].combine_chunks().flatten() for name in (column, "references", "predictions", "losses")
    }
    right = pc.equal(flat["references"], flat["predictions"]).to_numpy(zero_copy_only=False)
    rows = []
    for name in names:
        of_kind = pc.equal(flat[column], name).to_numpy(zero_copy_only=False)
        if support := int(of_kind.sum()):
            sums = np.array([flat["losses"].to_numpy()[of_kind].sum(dtype=np.float64), right[of_kind].sum(), support])
            found = metrics.scores(sums)
            rows.append({"label": name, "support": support} | {key: float(value) for key, value in found.items()})
    return rows


def _fill_mask(predictions: pa.Table, most: int) -> list[dict[str, Any]]:
    """Return one mask of each of `most` blocks, spread evenly over the split: the first that hides a whole word."""
    number = min(most, len(predictions))
    rows = []
    for block in predictions.take(np.arange(number) * len(predictions) // max(number, 1)).to_pylist():
        kinds = list(zip(block["parts"], block["shown"], strict=True))
        if (PARTS[0], SHOWN[0]) not in kinds:
            continue
        index = kinds.index((PARTS[0], SHOWN[0]))
        found = zip(block["fills"][index], block["probabilities"][index], strict=True)
        context = _context(block, index)
        rows.append(
            {
                "id": block["id"],
                "position": block["positions"][index],
                "text": "".join(context).strip(),
                "reference": block["references"][index],
                "reference_probability": round(float(np.exp(-block["losses"][index])), 4),
                "fills": " | ".join(f"{token} {probability:.3f}" for token, probability in found),
            }
        )
    return rows


def _context(block: dict[str, Any], index: int) -> tuple[str, str, str]:
    at, tokens = block["positions"][index], block["tokens"]
    return (
        "".join(tokens[max(0, at - CONTEXT_TOKENS) : at]),
        tokens[at],
        "".join(tokens[at + 1 : at + 1 + CONTEXT_TOKENS]),
    )


def _in_context(block: dict[str, Any], index: int) -> dict[str, Any]:
    left, token, right = (text.strip() for text in _context(block, index))
    return {
        "id": block["id"],
        "position": block["positions"][index],
        "left": left,
        "token": token,
        "right": right,
        "reference": block["references"][index],
        "prediction": block["predictions"][index],
        "confidence": round(block["confidences"][index], 4),
    }
