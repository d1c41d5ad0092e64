"""Turns people's prompts, messages and texts into examples, and predictions into answers."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from finetrail.corpus.conversations import BadConversation, conversation
from finetrail.errors import UserError
from finetrail.tasks.inputs import identified
from finetrail.tasks.text_generation.corpus import MESSAGES, SCHEMA
from finetrail.tasks.text_generation.settings import Target

# Optional in tasks/contract.py, and not used here.
examples_for = documents = FORMATS = None

KEYS = ("prompt", "text", "messages")
INPUTS = SCHEMA.append(MESSAGES)


def probe(target: Target) -> dict[str, Any]:
    return {"text": "A probe."}


def examples(inputs: list[dict[str, Any]]) -> pa.Table:
    """Return inputs as rows of the corpus.

    {"prompt"} is to be continued, of {"text"} the perplexity is asked, and {"messages"} are to be answered.
    """
    rows = []
    for number, given in enumerate(inputs):
        name, where = identified(given, number, KEYS)
        keys = [key for key in KEYS if key in given]
        if keys == ["messages"]:
            rows.append({"id": name, "prompt": None, "text": None, "messages": _asked(given["messages"], where)})
            continue
        if len(keys) != 1 or not isinstance(given[keys[0]], str) or not given[keys[0]].strip():
            raise UserError(
                f"{where}: expected one key of {', '.join(KEYS)}, with text in it, or of messages a list; "
                f"got {given!r:.80}"
            )
        text = given.get("text")
        # A prompt that is "" and not null: a document on its own, not to be joined with the others.
        rows.append({"id": name, "prompt": given.get("prompt", ""), "text": text, "messages": None})
    return pa.Table.from_pylist(rows, INPUTS)


def _asked(value: Any, where: str) -> list[dict[str, str]]:
    """Return the messages that the assistant is to answer."""
    unread: Counter[str] = Counter()
    try:
        messages = conversation(value, unread)
    except BadConversation as error:
        raise UserError(f"{where}: {error}") from None
    if unread:
        raise UserError(f"{where}: a message has {next(iter(unread))!r}, which is not read; expected role and content")
    if messages[-1]["role"] == "assistant":
        raise UserError(f"{where}: the last message is the assistant's; expected one that it answers")
    return messages


def answers(predictions: pa.Table) -> list[dict[str, Any]]:
    """Return answers: the generated text for a prompt or messages; losses for a text.

    Of a text its loss per token, perplexity, and the tokens they are of.
    """
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
    return {"prompt": text}
