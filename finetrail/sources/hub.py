"""A dataset or a model of the Hugging Face Hub -> a Parquet file per split, or the files that a model needs."""

import hashlib
import sys
from pathlib import Path
from typing import Any, Literal

import huggingface_hub

from finetrail import hub_errors, schema
from finetrail.errors import UserError
from finetrail.hub_errors import reported_as
from finetrail.progress import working
from finetrail.sources import limits
from finetrail.sources.local import below
from finetrail.sources.model_files import choose
from finetrail.sources.provenance import Fetched, record
from finetrail.stage import remove


def fetch(source: schema.HubSource, repo_type: Literal["dataset", "model"], scratch: Path) -> Fetched:
    """Resolve the revision to its commit and fetch that; UserError if the Hub refuses or cannot be reached.

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
    what = f"{repo_type} {source.repo} at {source.revision}"
    with reported_as(what), limits.within(what, source.max_mib), working(source.repo, has_bar=True):
        api = huggingface_hub.HfApi()
        ask = api.model_info if repo_type == "model" else api.dataset_info
        info = ask(source.repo, revision=source.revision, files_metadata=True, timeout=hub_errors.TIMEOUT)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        if repo_type == "model":
            wanted = choose(list(sizes), f"model {source.repo}")
            limits.check(what, sum(sizes[name] for name in wanted), source.max_mib)
            root = Path(huggingface_hub.snapshot_download(source.repo, revision=info.sha, allow_patterns=wanted))
            files = wanted
        else:
            key = hashlib.sha256(f"{source.repo} {source.config}".encode()).hexdigest()
            root = _write_splits(source, str(info.sha), sizes, scratch / "hub" / key)
            files = below(root)
    fetched = record(source, root, files, resolved={"commit": info.sha}, license=_license(info.card_data))
    limits.check(what, fetched.provenance["bytes"], source.max_mib)
    return fetched


def _write_splits(source: schema.HubSource, commit: str, sizes: dict[str, int], folder: Path) -> Path:
    """Write each split as a Parquet file with the name of the split; label names are in the metadata of its schema.

    UserError if the files of the configuration have more bytes (`sizes`, by their names) than the recipe allows.
    """
    import datasets

    datasets.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    remove(folder)
    # If the Hub fails midway, datasets (5.2) uses its newest cache of any commit; therefore this cache starts empty.
    cache = folder / "cache"
    try:
        builder = datasets.load_dataset_builder(source.repo, source.config, revision=commit, cache_dir=str(cache))
        chosen = {str(file) for files in (builder.config.data_files or {}).values() for file in files}
        names = {file.partition(f"@{commit}/")[2] for file in chosen}
        limits.check(f"dataset {source.repo}", sum(sizes.get(name, 0) for name in names), source.max_mib)
        builder.download_and_prepare()
        splits = builder.as_dataset()
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
