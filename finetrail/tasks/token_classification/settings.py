"""The recipe's schema for token classification."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from finetrail import schema
from finetrail.schema import ClassifierTrain as Train
from finetrail.schema import (
    ConllReader,
    ConlluReader,
    Distillation,
    JsonLinesReader,
    JsonReader,
    ParquetReader,
    Settings,
    SpanReader,
)
from finetrail.schema import (
    Evaluate as Evaluate,
)

# Optional in tasks/contract.py, and not used here.
Mixture = lacking = misfits = None

# Class of transformers with which base models are loaded.
AUTO_CLASS = "AutoModelForTokenClassification"

COLUMNS = {"tokens", "labels"}

# The target: the names of the labels in the order of the model's outputs. If they look like IOB2 although the recipe's
# scheme is "none", {"label_names": [...], "scheme": "none"}. If texts were split into words, also the rule:
# {"label_names": [...], "words": "unicode"}.
Target = Sequence[str] | Mapping[str, Any]
# Metadata of tables of the corpus and of predictions whose labels are no entities.
NO_SCHEME = {"scheme": "none"}
# Columns of texts that were split into words: the text, and start and end of each word in characters.
OFFSETS = ("text", "starts", "ends")


def label_names(target: Target) -> list[str]:
    """Return the names of the labels, in the order of the model's outputs."""
    return list(target["label_names"] if isinstance(target, Mapping) else target)


def has_entities(target: Target) -> bool:
    """Return True if labels are IOB2 tags, so that entities are scored instead of single labels."""
    if isinstance(target, Mapping) and target.get("scheme") == NO_SCHEME["scheme"]:
        return False
    return all(label == "O" or label.startswith(("B-", "I-")) for label in label_names(target))


def is_without_scheme(metadata: Mapping[bytes, bytes] | None) -> bool:
    """Return True if a table of the corpus, or of predictions, has NO_SCHEME as metadata."""
    return (metadata or {}).get(b"scheme") == b"none"


def rule_of_words(metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
    """Return the rule by which the texts of a table were split into words, as a part of the target."""
    rule = (metadata or {}).get(b"words")
    return {} if rule is None else {"words": rule.decode()}


SchemeName = Literal["iob1", "iob2", "iobes", "bilou", "io", "none"]


class Scheme(Settings):
    """A tagging scheme whose labels are not written as B-TYPE, or have surrounding white space."""

    name: SchemeName = Field(description="name of the scheme, as without a section")
    shape: str | None = Field(
        pattern=schema.TAG_SHAPE,
        description="format of a label in the files, such as B-TYPE, TYPE-B or B_TYPE; null: for scheme none",
    )
    strip: bool = Field(description="strip white space from labels, including no-break spaces")

    @model_validator(mode="after")
    def _shape(self) -> "Scheme":
        if (self.shape is None) != (self.name == "none"):
            expected = "null" if self.name == "none" else "such as B-TYPE or TYPE-B"
            raise ValueError(f"shape is {self.shape!r} with the name {self.name}; expected {expected}")
        return self


def _form(value: Any) -> str:
    return "section" if isinstance(value, dict | Scheme) else "name"


AnyScheme = Annotated[Annotated[SchemeName, Tag("name")] | Annotated[Scheme, Tag("section")], Discriminator(_form)]


class Tags(Settings):
    """How labels are read. They are stored as IOB2, or unchanged if the scheme is none."""

    scheme: AnyScheme = Field(
        description="tagging scheme of the files. none: labels of single tokens, such as parts of speech; io: TYPE or "
        "I-TYPE, where adjacent tokens of one type are one chunk; a section if labels are not written as B-TYPE"
    )
    impossible_transitions: Literal["repair", "refuse"] = Field(
        description="transitions such as I-PER after O. repair: begin a chunk, as conlleval does, and count them; "
        "refuse: an error"
    )
    unseen_labels: Literal["keep", "refuse"] = Field(
        description="labels of validation or test that train lacks. keep: count them; they are always predicted wrong; "
        "refuse: an error"
    )

    @property
    def scheme_name(self) -> str:
        """The name of the scheme, whether it is declared by a name or a section."""
        return self.scheme.name if isinstance(self.scheme, Scheme) else self.scheme


class Corpus(schema.Corpus):
    """A corpus of sentences with a label for each token."""

    reader: Annotated[
        ConllReader | ConlluReader | JsonLinesReader | JsonReader | ParquetReader | SpanReader,
        Field(discriminator="format"),
    ]
    tags: Tags

    @model_validator(mode="after")
    def _columns(self) -> "Corpus":
        columns = getattr(self.reader, "columns", None)
        if columns is not None and not COLUMNS <= set(columns) <= COLUMNS | {"id"} | self.more_columns:
            raise ValueError(
                f"reader.columns has {sorted(columns)}; expected tokens, labels and perhaps id, that of splits.group "
                "and those of slices"
            )
        return self

    @model_validator(mode="after")
    def _spans_make_iob2(self) -> "Corpus":
        if isinstance(self.reader, SpanReader):
            if self.tags.scheme != "iob2":
                raise ValueError(f"tags.scheme: {self.tags.scheme_name}; expected iob2, which is what spans become")
            if self.splits.stratify is not None or self.splits.group not in (None, "text"):
                raise ValueError(
                    f"reader.format: {self.reader.format} has no columns; expected splits.stratify null, and "
                    "splits.group null or text (alike texts stay together)"
                )
        return self

    def common(self) -> dict[str, Any]:
        """Return the settings that must be the same in all parts; schemes of entities are all stored as IOB2."""
        kind = "none" if self.tags.scheme_name == "none" else "one of entities"
        words = self.reader.spans.words if isinstance(self.reader, SpanReader) else None
        return {
            "tags.scheme": kind,
            "tags.unseen_labels": self.tags.unseen_labels,
            "reader.spans.words": words,  # the model cuts texts by one rule
        }


class Tokenize(schema.Tokenize):
    """Encoding of sentences of words into features."""

    max_length: int = Field(ge=3, description="maximum number of tokens per feature, including special tokens")
    stride: int = Field(ge=0, description="number of tokens that two consecutive windows of a long sentence share")
    label_subwords: Literal["first", "all"] = Field(
        description="subwords of a word that are trained: the first, or all (after B-, the others get I-)"
    )
    limit: schema.Limit

    @model_validator(mode="after")
    def _windows_advance(self) -> "Tokenize":
        if self.stride >= self.max_length - 2:
            raise ValueError(
                f"stride {self.stride} leaves windows of max_length {self.max_length} no room to advance; "
                "expected stride < max_length - 2"
            )
        return self


class TaughtTrain(Train):
    """Training on the labels and on a teacher's logits."""

    distillation: Distillation = Field(description="loss of a student")


ENTITY_METRICS = ("f1", "precision", "recall", "accuracy", "macro_f1")
TOKEN_METRICS = ("accuracy", "macro_f1")


def check(recipe: Any) -> Iterator[str]:
    """Yield the contradictions between sections of one recipe."""
    yield from schema.check_trained_before(recipe)
    known = ("loss", *(TOKEN_METRICS if recipe.corpus.tags.scheme_name == "none" else ENTITY_METRICS))
    if recipe.train.best_metric not in known:
        yield (
            f"train.best_metric: {recipe.train.best_metric!r} does not go with corpus.tags.scheme "
            f"{recipe.corpus.tags.scheme_name!r}; expected one of {', '.join(known)}"
        )
