"""Pushes an exported folder to a model repository of the Hugging Face Hub."""

from pathlib import Path

import huggingface_hub

from finetrail.hub_errors import reported_as
from finetrail.progress import working


def push(folder: Path, repo: str, private: bool) -> str:
    """Upload a folder, creating the repository (private or not) if it is missing; return the commit's URL.

    A push of unchanged files makes no new commit. UserError if the Hub refuses or cannot be reached.
    """
    huggingface_hub.logging.set_verbosity_error()
    with reported_as(f"push to {repo}"), working(f"push to {repo}", has_bar=True):
        api = huggingface_hub.HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        return api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Export from finetrail").commit_url
