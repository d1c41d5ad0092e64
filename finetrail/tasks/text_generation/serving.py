"""Turns people's prompts and texts into examples, and predictions into answers."""

from typing import Any

import numpy as np
import pyarrow as pa

from finetrail.errors import UserError
from finetrail.tasks.inputs import identified
from finetrail.tasks.text_generation.corpus import SCHEMA

KEYS = ("prompt", "text")


def examples(inputs: list[dict[str, Any]]) -> pa.Table:
    """Return {"prompt"}, to be continued, and {"text"}, whose perplexity is asked, as rows of the corpus."""
    rows = []
    for number, given in enumerate(inputs):
        name, where = identified(given, number, KEYS)
        keys = [key for key in KEYS if key in given]
        if len(keys) != 1 or not isinstance(given[keys[0]], str) or not given[keys[0]].strip():
            raise UserError(f"{where}: expected one key of {', '.join(KEYS)}, with text in it; got {given!r:.80}")
        text = given.get("text")
        # A prompt that is "" and not null: a document on its own, not to be joined with the others.
        rows.append({"id": name, "prompt": given.get("prompt", ""), "text": text})
    return pa.Table.from_pylist(rows, SCHEMA)


def answers(predictions: pa.Table) -> list[dict[str, Any]]:
    """Return a prompt's continuation as text; of a text its loss per token, perplexity, and the tokens they are of."""
    found: dict[str, dict[str, Any]] = {}
    losses: dict[str, list[float]] = {}
    for row in predictions.to_pylist():
        answer = found.setdefault(row["id"], {"id": row["id"]})
        losses.setdefault(row["id"], []).extend(row["losses"])
        if row["continuation"] is not None:
            answer["text"] = row["continuation"]
    for number, of_text in losses.items():
        if "text" not in found[number]:
            loss = float(np.mean(of_text)) if of_text else None
            perplexity = None if loss is None else float(np.exp(loss))
            found[number] |= {"loss": loss, "perplexity": perplexity, "tokens": len(of_text)}
    return list(found.values())


def text_input(text: str) -> dict[str, Any]:
    """Return what a text given for itself is: a prompt."""
    return {"prompt": text}
