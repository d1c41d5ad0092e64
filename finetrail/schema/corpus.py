"""The corpus section: source, splits, slices, and mixtures of several corpora."""

from typing import Any, ClassVar

from pydantic import Field, create_model, model_validator

from finetrail.schema.base import ONE_LINE, Fraction, Name, Settings, either
from finetrail.schema.sources import Source


class Splits(Settings):
    """Where each split is: a path or glob in the source, a Hub split, or a fraction carved out of train."""

    train: str = Field(min_length=1, description="path or glob inside the source; a Hub dataset's split")
    validation: str | Fraction = Field(description="the same, or the fraction of train's file to carve out")
    test: str | Fraction = Field(description="the same, or the fraction of train's file to carve out")
    seed: int = Field(ge=0, description="of the carving; not params.yaml's seed, so that seeds share their splits")
    stratify: str | None = Field(
        min_length=1,
        description="column of the task whose values each carved split has in proportion; of "
        "lists, neither order nor repetitions count; null: by chance",
    )
    group: str | None = Field(
        min_length=1,
        description="column, the task's or one more: examples that share its value go into one carved split, which "
        "then has at most its fraction; null: each alone",
    )

    @model_validator(mode="after")
    def _something_left(self) -> "Splits":
        if sum(split for split in (self.validation, self.test) if isinstance(split, float)) >= 1:
            raise ValueError("validation and test leave nothing for train; expected fractions that sum to below 1")
        return self

    @model_validator(mode="after")
    def _one_rule(self) -> "Splits":
        if self.stratify is not None and self.group is not None:
            raise ValueError(
                f"stratify {self.stratify!r} and group {self.group!r}: whole groups are in no proportion; "
                "expected one of the two, the other null"
            )
        return self


class Corpus(Settings):
    """What every corpus section has; a task adds its reader and its checks."""

    name: str = Field(
        min_length=1, max_length=200, pattern=ONE_LINE, description="what people call it: report and model card"
    )
    source: Source
    splits: Splits
    license: str | None = Field(
        max_length=200, pattern=ONE_LINE, description="SPDX id or name, where known; null takes what the source states"
    )
    language: str | None = Field(description="BCP 47 code for the model card; null where unknown or mixed")

    # Why such a corpus can be no part of a mixture.
    ALONE: ClassVar[str | None] = None

    def common(self) -> dict[str, Any]:
        """Return what all parts of a mixture must have in common, so that one model learns them: key -> value."""
        return {}

    @property
    def sliced_by(self) -> list[str]:
        """The columns whose values are slices; none where the section has no slices."""
        return list(getattr(self, "slices", []))

    @property
    def more_columns(self) -> set[str | None]:
        """The columns that reader.columns may have besides the task's own."""
        return {self.splits.group, *self.sliced_by}

    def beside(self) -> dict[str, Any]:
        """Return the tables that come from sources of their own: name -> a section with source and reader."""
        return {}


class Slices(Settings):
    """More columns of a corpus: each value is a slice, which is scored by itself too."""

    slices: list[Name] = Field(
        min_length=1,
        description="columns of reader.columns, such as source, or of the format, such as SQuAD's title or a comment "
        "`# genre = news` of CoNLL-U, that are kept with each example: the test split is scored by their values",
    )


class Mixture(Settings):
    """In place of a corpus: several of one task, mixed in training, and each scored by itself too."""

    name: str = Field(
        min_length=1, max_length=200, pattern=ONE_LINE, description="what people call all of it: report and model card"
    )
    license: str | None = Field(
        max_length=200,
        pattern=ONE_LINE,
        description="SPDX id or name, where known; null takes that of the parts, if it is one",
    )
    language: str | None = Field(description="BCP 47 code for the model card; null where unknown or mixed")
    parts: dict[Name, Corpus] = Field(
        min_length=2,
        description="name -> a whole corpus section, as the part has in a recipe of its own. Ids become NAME/ID; "
        "train.batching says how the parts are mixed",
    )

    @model_validator(mode="after")
    def _fit_together(self) -> "Mixture":
        (first, one), *others = self.parts.items()
        if one.ALONE is not None:
            raise ValueError(f"parts: {one.ALONE}; expected one corpus")
        for name, other in others:
            for key, value in one.common().items():
                if (found := other.common()[key]) != value:
                    raise ValueError(
                        f"parts: {key} is {value!r} in {first} and {found!r} in {name}; expected the same in all parts"
                    )
        return self


def parts_of(corpus: "Corpus | Mixture") -> dict[str | None, Corpus]:
    """Return the parts of a corpus section by name; a corpus that is no mixture is its only part, without a name."""
    named: dict[str | None, Corpus] = {}
    if isinstance(corpus, Mixture):
        return named | corpus.parts
    return {None: corpus}


def sliced(corpus: Any) -> Any:
    """Return the type of a task's corpus section that may have slices."""
    return either(corpus, create_model("SlicedCorpus", __base__=(corpus, Slices)))
