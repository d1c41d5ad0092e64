"""Changes files where a changed byte would be refused at once: a value of JSON, or what gzip holds."""

import gzip
import json
import random
import zlib
from collections.abc import Callable
from typing import Any

# What a place of JSON may hold and should not.
STRANGE: list[Any] = [
    None, True, 0, -1, 1.5, 2**31, 2**63, 10**400, float("nan"), "", " ", "\u2028", "\x1b[2J", "\u202e", [], [[]], {},
    {"a": 1}, [None], "a" * 5000,
]  # fmt: skip
Mutate = Callable[[bytes, int], bytes]


def in_json(data: bytes, most: int, seed: int, mutate: Mutate) -> bytes:
    """Put something strange in a place of one line, or of the whole file, that is JSON; half the time only bytes."""
    draw = random.Random(seed)
    lines = [data[1:]] if draw.random() < 0.5 else data[1:].split(b"\n")
    number = draw.randrange(len(lines))
    try:
        value = json.loads(lines[number])
    except (ValueError, RecursionError):
        return mutate(data, most)
    lines[number] = json.dumps(changed(value, draw), ensure_ascii=draw.random() < 0.5).encode(errors="replace")
    return (data[:1] + b"\n".join(lines))[:most]


def changed(value: Any, draw: random.Random) -> Any:
    """Return JSON with something strange in one place, a key gone, or an item twice."""
    if not isinstance(value, dict | list) or not value or draw.random() < 0.2:
        return draw.choice(STRANGE)
    inner = dict(value) if isinstance(value, dict) else dict(enumerate(value))
    key = draw.choice(list(inner))
    if draw.random() < 0.2:
        del inner[key]
    else:
        inner[key] = changed(inner[key], draw)
    if isinstance(value, dict):
        return inner
    return [*inner.values(), *([draw.choice(list(inner.values()))] if inner and draw.random() < 0.2 else [])]


def in_gzip(data: bytes, most: int, seed: int, mutate: Mutate) -> bytes:
    """Change what gzip holds; half the time, and where that is damaged, the bytes themselves."""
    try:
        held = gzip.decompress(data) if seed % 2 else None
    except (OSError, EOFError, zlib.error):
        held = None
    return mutate(data, most) if held is None else gzip.compress(mutate(held, 20 * most), 1, mtime=0)[:most]


JSON = ("jsonl", "json", "squad", "beir", "doccano", "label_studio", "prodigy", "spans", "inputs")
MUTATORS = dict.fromkeys(JSON, in_json) | dict.fromkeys(("archive.tar.gz", "archive.gz"), in_gzip)
