"""A dataset or a model of the Hugging Face Hub -> a Parquet file per split, or the files that a model needs."""

import hashlib
import sys
from pathlib import Path
from typing import Any, Literal

import huggingface_hub

from finetrail import hub_errors, schema
from finetrail.errors import UserError
from finetrail.hub_errors import told
from finetrail.progress import working
from finetrail.sources.local import below
from finetrail.sources.model_files import choose
from finetrail.sources.provenance import Fetched, record
from finetrail.stage import remove


def fetch(source: schema.HubSource, repo_type: Literal["dataset", "model"], scratch: Path) -> Fetched:
    """Resolve the revision to its commit and fetch that; UserError where the Hub refuses or cannot be reached.

    The libraries take the Hub's address from HF_ENDPOINT when they are imported, and a token from `hf auth login`.
    """
    if repo_type == "dataset" and Path(source.repo).exists():  # datasets (5.2) would read that, whatever the revision
        raise UserError(
            f"corpus.source.repo: {source.repo} is a folder here too, and would be read instead of the Hub's; "
            "expected no such folder, or a source of kind file"
        )
    huggingface_hub.logging.set_verbosity_error()
    if not sys.stderr.isatty():  # the libraries draw their bars into logs too
        huggingface_hub.utils.disable_progress_bars()
    with told(f"{repo_type} {source.repo} at {source.revision}"), working(source.repo, has_bar=True):
        api = huggingface_hub.HfApi()
        ask = api.model_info if repo_type == "model" else api.dataset_info
        info = ask(source.repo, revision=source.revision, timeout=hub_errors.TIMEOUT)
        if repo_type == "model":
            wanted = choose([file.rfilename for file in info.siblings or []], f"model {source.repo}")
            root = Path(huggingface_hub.snapshot_download(source.repo, revision=info.sha, allow_patterns=wanted))
            files = wanted
        else:
            key = hashlib.sha256(f"{source.repo} {source.config}".encode()).hexdigest()
            root = _write_splits(source, str(info.sha), scratch / "hub" / key)
            files = below(root)
    return record(source, root, files, resolved={"commit": info.sha}, license=_license(info.card_data))


def _write_splits(source: schema.HubSource, commit: str, folder: Path) -> Path:
    """Write each split as a Parquet file that is named as the split; label names stand in its schema's metadata."""
    import datasets

    datasets.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    remove(folder)
    # Where the Hub fails midway, datasets (5.2) takes what it cached last, of any commit: this cache starts empty.
    cache = folder / "cache"
    try:
        splits = datasets.load_dataset(source.repo, source.config, revision=commit, cache_dir=str(cache))
    except datasets.exceptions.DatasetsError as error:  # of a damaged file, a full disk
        raise RuntimeError(f"the dataset cannot be read: {error}") from error
    root = folder / "splits"
    root.mkdir()
    for name, split in splits.items():
        split.to_parquet(root / name)
    remove(cache)
    return root


def _license(card: Any) -> str | None:
    """Return the card's licence; the Hub allows a list of them."""
    value = card.get("license") if card else None
    return ", ".join(value) if isinstance(value, list) else value
