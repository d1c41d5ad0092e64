"""Where a corpus or a base model comes from."""

from pathlib import PurePosixPath
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from finetrail.schema.base import HUB_ID, Settings, Sha256

MOST_MIB = 1 << 43  # whose bytes are 2**63, which no file has
MAX_MIB_HELP = (
    "maximum size of the download in MiB, and of each file in it or converted from a dataset of the Hub; larger ones "
    "are an error; null: no limit"
)
SHA256_HELP = (
    "expected SHA-256 of the file; for a folder or glob, of the sorted lines 'SHA256  PATH' of its files; null: not "
    "verified"
)


class PackageSource(Settings):
    """Files of an installed Python package, read without importing it."""

    kind: Literal["package"]
    package: str = Field(min_length=1, description="distribution name, as in pip install")
    version: str = Field(min_length=1, description="required version; another installed version is an error")
    path: str = Field(min_length=1, description="file or folder, relative to site-packages")
    sha256: Sha256 | None = Field(description=SHA256_HELP)


class FileSource(Settings):
    """Local files: a file, a folder, or a glob. DVC does not track them: set sha256 to detect changes."""

    kind: Literal["file"]
    path: str = Field(min_length=1, description="file, folder or glob; relative to the project's root, or absolute")
    sha256: Sha256 | None = Field(description=SHA256_HELP)


class ArchiveSource(Settings):
    """A local archive, which is unpacked. Paths in corpus.splits are relative to its content."""

    kind: Literal["archive"]
    path: str = Field(
        min_length=1,
        description="a .gz, .zip, .tar or .tar.gz file, or a glob; relative to the project's root, or absolute",
    )
    sha256: Sha256 | None = Field(description=SHA256_HELP)
    max_unpacked_mib: int = Field(ge=1, description="maximum unpacked size in MiB; larger archives are an error")


def refuse_credentials(url: str) -> None:
    """Raise ValueError for a URL with a password, or with a user name over HTTP: Git would keep it."""
    parts = urlsplit(url)
    if "@" in parts.netloc and (parts.password is not None or parts.scheme in ("http", "https")):
        # The message leaves the credentials out, because it may end up in a log.
        raise ValueError(f"a URL to {parts.hostname} has a user name in it; expected it in ~/.netrc")


class UrlSource(Settings):
    """Files fetched by URL: http(s), or any protocol that fsspec opens; archives are unpacked."""

    kind: Literal["url"]
    urls: list[str] = Field(
        min_length=1, description="one URL per file; .gz, .zip, .tar and .tar.gz files are unpacked"
    )
    sha256: list[Sha256] | None = Field(
        description="expected SHA-256 of each downloaded file, in the order of urls; null: not verified"
    )
    max_unpacked_mib: int = Field(
        ge=1, description="maximum size in MiB of a file, or of the content of an archive; larger ones are an error"
    )

    @model_validator(mode="after")
    def _no_credentials(self) -> "UrlSource":
        for url in self.urls:
            refuse_credentials(url)
        return self

    @model_validator(mode="after")
    def _one_hash_each(self) -> "UrlSource":
        if self.sha256 is not None and len(self.sha256) != len(self.urls):
            raise ValueError(f"sha256 has {len(self.sha256)} entries for {len(self.urls)} urls; expected one each")
        return self


class HubSource(Settings):
    """A dataset or a model of the Hugging Face Hub (or of the server in HF_ENDPOINT), at a revision."""

    kind: Literal["hub"]
    repo: str = Field(pattern=HUB_ID, description="OWNER/NAME")
    config: str | None = Field(description="configuration of a dataset; null: its only configuration, or a model")
    revision: str = Field(
        min_length=1, description="commit, tag, branch or ref; the commit that it resolves to is recorded"
    )
    max_mib: int | None = Field(ge=1, lt=MOST_MIB, description=MAX_MIB_HELP)


class DvcSource(Settings):
    """An output of this or another DVC repository, at a Git revision or experiment."""

    kind: Literal["dvc"]
    repo: str | None = Field(description="URL or path of the DVC repository; null: this repository")
    rev: str | None = Field(description="Git revision or experiment name; null: the workspace")
    path: str = Field(min_length=1, description="an output, or a file in one, relative to the repository's root")
    sha256: Sha256 | None = Field(description=SHA256_HELP)
    max_mib: int | None = Field(ge=1, lt=MOST_MIB, description=MAX_MIB_HELP)

    @model_validator(mode="after")
    def _stays_in_the_repository(self) -> "DvcSource":
        if PurePosixPath(self.path).is_absolute() or ".." in PurePosixPath(self.path).parts:
            raise ValueError(f"path {self.path!r} leads out of the repository; expected a path in it, or kind: file")
        return self

    @model_validator(mode="after")
    def _no_credentials(self) -> "DvcSource":
        refuse_credentials(self.repo or "")
        return self


# File in data/model/tokenizer of a new model: the settings with which tokenize trains its tokenizer.
TOKENIZER_TO_TRAIN = "tokenizer_to_train.json"


class TokenizerToTrain(Settings):
    """Byte-level BPE, trained on the train split (Radford et al. 2019). It has no unknown characters."""

    kind: Literal["byte_level_bpe"]
    vocab_size: int = Field(
        ge=257, description="size of the vocabulary: 256 bytes, the token that ends a text, and the merges"
    )
    min_frequency: int = Field(ge=1, description="minimum number of occurrences in train of a pair that is merged")


class NewSource(Settings):
    """A new model with random weights, built from a configuration, and a tokenizer trained on the train split."""

    kind: Literal["new"]
    config: dict[str, str | int | float | bool | None] = Field(
        description="configuration of transformers with model_type, but without vocab_size and ids of special tokens, "
        "which follow from the tokenizer"
    )
    tokenizer: TokenizerToTrain

    @model_validator(mode="after")
    def _only_what_does_not_follow(self) -> "NewSource":
        if not isinstance(self.config.get("model_type"), str):
            raise ValueError("config has no model_type; expected one that transformers knows, such as gpt2")
        given = [key for key in self.config if key == "vocab_size" or key.endswith("_token_id")]
        if given:
            raise ValueError(f"config has {given[0]}, which follows from the tokenizer; expected a config without it")
        return self


Source = Annotated[
    PackageSource | FileSource | ArchiveSource | UrlSource | HubSource | DvcSource, Field(discriminator="kind")
]
ModelSource = Annotated[
    PackageSource | FileSource | ArchiveSource | UrlSource | HubSource | DvcSource | NewSource,
    Field(discriminator="kind"),
]
