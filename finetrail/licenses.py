"""Describes the licence of a corpus or a model for the page and the model card."""

from collections.abc import Mapping
from typing import Any

UNKNOWN = "unknown"
# Weights that train draws need no licence; those of a mixture are listed by part if they differ.
NEED_NONE = ("new", "parts")


def shown(provenance: Mapping[str, Any]) -> str | None:
    """Return the licence, or that it is unknown; None if none is needed."""
    stated: str | None = provenance["license"]
    return stated or (None if provenance["kind"] in NEED_NONE else UNKNOWN)
