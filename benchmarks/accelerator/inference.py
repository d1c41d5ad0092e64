"""Evaluation's texts a second beside a plain loop, and a collection's beside sentence-transformers.

All sides compute in fp32, and then, where evaluation does, all in TF32.
The plain loop takes a classifier's features in the order of the file, pads them in batches of 32, and waits for each
batch's logits. A collection goes from texts to vectors, tokenization included; its vectors are compared.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, logging

from benchmarks.accelerator import features, models, ours
from benchmarks.accelerator.part import Part
from finetrail import tasks
from finetrail.evaluation import inference
from finetrail.evaluation.splits import Encoded

TEXTS, TEXTS_TINY = 4096, 64
LONGEST, LONGEST_TINY = 128, 32
PLAIN_BATCH = 32
OUR_BATCHES = (64, 256)  # the recipes' size, and more
PEER_BATCHES = (32, 128, 512)
ROUNDS = 3
WORDS = 5000
MOST_DIFFERENCE = 1e-3
TARGET = {"pooling": "mean", "dimensions": None, "max_length": LONGEST, "query_prefix": "", "document_prefix": ""}


def run(part: Part) -> None:
    logging.set_verbosity_error()
    measure("fp32", part)
    if ours.evaluates_in_tf32(part.device):
        measure("tf32", part)


def measure(precision: str, part: Part) -> None:
    """Measure in the precision that this process has now."""
    with part.scratch() as work:
        found = {"classifier": classifier(part), "collection": collection(part, work / "encoder")}
    part.keep(precisions=part.result.get("precisions", {}) | {precision: found})
    apart = found["collection"]["worst_difference_of_vectors"]
    if apart > MOST_DIFFERENCE:
        part.fail(f"vectors in {precision} differ by {apart:.1e}")


def settings(task: str, batch_size: int, **own: Any) -> Any:
    """Return the section evaluate of a recipe."""
    bootstrap = {"samples": 100, "confidence": 0.95, "seed": 0}
    common = {"batch_size": batch_size, "bootstrap": bootstrap, "worst_errors": 0}
    return tasks.module(task, "settings").Evaluate(**common, **own)


def rate(work: Callable[[], Any], texts: int) -> int:
    """Return the texts per second of the fastest of several rounds, after one to warm up."""
    work()
    fastest = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        fastest = min(fastest, time.perf_counter() - started)
    return round(texts / fastest)


def classifier(part: Part) -> dict[str, Any]:
    """Measure the evaluation of a classifier."""
    texts, longest = (TEXTS_TINY, LONGEST_TINY) if part.tiny else (TEXTS, LONGEST)
    config = models.shape("bert-base", part.tiny)
    config.num_labels = len(features.LABELS)
    with torch.device(part.device):
        model = AutoModelForSequenceClassification.from_config(config).eval()
    table = features.table("text_classification", texts, longest, config.vocab_size)
    encoded = Encoded(pa.table({"id": list(map(str, range(texts)))}), table)
    forward, target = inference.torch_forward(model), features.TARGETS["text_classification"]
    scoring = tasks.module("text_classification", "scoring")

    def evaluated(batch_size: int) -> Any:
        own = settings("text_classification", batch_size, pool="mean", positive_label=None, threshold=None)
        return scoring.predict(encoded, {}, target, forward, Padding, own)

    rows = table["input_ids"].to_pylist()
    return {
        "texts": texts,
        "plain": rate(lambda: plain_loop(model, rows), texts),
        "ours": {size: rate(lambda size=size: evaluated(size), texts) for size in OUR_BATCHES},
    }


class Padding:
    """What evaluation takes of a tokenizer."""

    pad_token_id = 0


def plain_loop(model: Any, rows: list[list[int]]) -> list[int]:
    """Predict as a loop over a DataLoader does."""
    found = []
    for start in range(0, len(rows), PLAIN_BATCH):
        batch = [torch.tensor(row) for row in rows[start : start + PLAIN_BATCH]]
        ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in batch], batch_first=True)
        with torch.no_grad():
            logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits
        found += logits.argmax(-1).cpu().tolist()
    return found


def collection(part: Part, folder: Path) -> dict[str, Any]:
    """Measure the encoding of a collection of documents."""
    from sentence_transformers import SentenceTransformer

    texts = documents(TEXTS_TINY if part.tiny else TEXTS, LONGEST_TINY if part.tiny else LONGEST)
    save_encoder(folder, part.tiny)
    encode = our_encoder(folder, texts, part.device)
    peer = SentenceTransformer(str(folder), device=part.device)

    def peers(batch_size: int) -> Any:
        return peer.encode(texts, batch_size=batch_size, show_progress_bar=False)

    return {
        "texts": len(texts),
        "worst_difference_of_vectors": float(np.abs(encode(OUR_BATCHES[0]) - peers(PLAIN_BATCH)).max()),
        "sentence_transformers": {size: rate(lambda size=size: peers(size), len(texts)) for size in PEER_BATCHES},
        "ours": {size: rate(lambda size=size: encode(size), len(texts)) for size in OUR_BATCHES},
    }


def documents(count: int, longest: int) -> list[str]:
    """Return texts of made-up words; none is longer than the model takes."""
    generator = np.random.default_rng(0)
    lengths = features.lengths(count, longest) - 2
    return [" ".join(f"word{word}" for word in generator.integers(WORDS, size=length)) for length in lengths]


def save_encoder(folder: Path, tiny: bool) -> None:
    """Save an encoder that both sides load."""
    from finetrail.tasks.retrieval.modeling import BiEncoder

    config: Any = models.shape("minilm-l6", tiny)
    size = models.tokenizer_of_words([f"word{word}" for word in range(WORDS)], folder, LONGEST)
    config.vocab_size = max(config.vocab_size, size)
    torch.manual_seed(0)
    BiEncoder(AutoModel.from_config(config), TARGET, scale=1.0).save_pretrained(folder)


def our_encoder(folder: Path, texts: list[str], device: str) -> Callable[[int], np.ndarray]:
    """Return what turns the texts into vectors, from a batch size on."""
    loading, encoding, scoring = (tasks.module("retrieval", name) for name in ("loading", "encoding", "scoring"))
    declared = tasks.module("retrieval", "settings").Tokenize(
        engine="local", num_proc=1, max_query_length=32, max_negatives=0, negatives=None, limit=None, **TARGET
    )
    encoder = encoding.Encoder(AutoTokenizer.from_pretrained(folder), TARGET, declared)
    forward = inference.torch_forward(loading.load_model(folder).to(device))
    ids = [str(number) for number in range(len(texts))]
    examples = pa.table({"id": ids, "title": [""] * len(texts), "text": texts})

    def encode(batch_size: int) -> np.ndarray:
        own = settings("retrieval", batch_size, index="exact", bm25_terms="words", candidates=None)
        encoded = Encoded(examples, encoder.encode(examples, np.arange(len(texts))))
        predicted = scoring.predict(encoded, {}, TARGET, forward, Padding, own)
        return np.stack(predicted["predictions"].to_numpy())

    return encode


def rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    found = []
    for precision, parts in result["precisions"].items():
        one, other = parts["classifier"], parts["collection"]
        peers = shown(other["sentence_transformers"])
        found += [
            (f"classifier in {precision}, texts/s", f"plain loop {one['plain']:,}, ours {shown(one['ours'])}"),
            (f"collection in {precision}, texts/s", f"sentence-transformers {peers}, ours {shown(other['ours'])}"),
        ]
    return found


def shown(rates: dict[Any, int]) -> str:
    return ", ".join(f"{value:,} in batches of {size}" for size, value in rates.items())
