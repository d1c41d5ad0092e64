"""The corpus section: source, splits, slices, and mixtures of several corpora."""

from typing import Any, ClassVar

from pydantic import Field, create_model, model_validator

from finetrail.schema.base import ONE_LINE, Fraction, Language, License, Name, Settings, Title, either
from finetrail.schema.sources import Source


class Splits(Settings):
    """Where each split comes from: a path or glob in the source, a split of a Hub dataset, or a fraction of train."""

    train: str = Field(min_length=1, description="path or glob inside the source; for the Hub, the name of a split")
    validation: str | Fraction = Field(
        description="path, glob or name as in train; or the fraction of the examples of train that is held out"
    )
    test: str | Fraction = Field(
        description="path, glob or name as in train; or the fraction of the examples of train that is held out"
    )
    seed: int = Field(
        ge=0,
        description="random seed of the fractions; separate from seed in params.yaml, so that all seeds share the "
        "splits",
    )
    stratify: str | None = Field(
        min_length=1,
        description="column of the task whose values have the same proportions in each fraction (in lists, order and "
        "repetition do not count); null: fractions are random",
    )
    group: str | None = Field(
        min_length=1,
        description="column, of the task or an additional one, whose groups of equal values are not split: a fraction "
        "then has at most its share of the examples; null: no groups",
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
                f"stratify {self.stratify!r} and group {self.group!r}: groups are not split, so that their proportions "
                "vary; expected null for one of them"
            )
        return self


class Corpus(Settings):
    """Settings that the corpus sections of all tasks have."""

    name: Title
    source: Source
    splits: Splits
    license: License
    language: Language

    # The reason why such a corpus cannot be part of a mixture.
    ALONE: ClassVar[str | None] = None

    def common(self) -> dict[str, Any]:
        """Return the settings in which all parts of a mixture must agree, because one model learns them: key -> "
        "value."""
        return {}

    @property
    def sliced_by(self) -> list[str]:
        """Columns whose values are slices; empty if the section has no slices."""
        return list(getattr(self, "slices", []))

    @property
    def more_columns(self) -> set[str | None]:
        """Columns that reader.columns may have in addition to the task's own."""
        return {self.splits.group, *self.sliced_by}

    def beside(self) -> dict[str, Any]:
        """Return the tables that have a source of their own: name -> section with source and reader."""
        return {}


class Slices(Settings):
    """Additional columns of a corpus, each value of which is a slice that is also scored on its own."""

    slices: list[Name] = Field(
        min_length=1,
        description="columns of reader.columns, such as source, or of the format, such as SQuAD's title or genre of a "
        "comment `# genre = news` in CoNLL-U, by whose values the test split is also scored",
    )


class Mixture(Settings):
    """Several corpora of one task instead of one. They are mixed in training, and each is also scored on its own."""

    name: Title
    license: str | None = Field(
        max_length=200,
        pattern=ONE_LINE,
        description="SPDX id or name of the license; null: the license of the parts, if they share one",
    )
    language: Language
    parts: dict[Name, Corpus] = Field(
        min_length=2,
        description="name -> complete corpus section, as in a recipe of that part alone. Ids become NAME/ID. "
        "train.batching sets how the parts are mixed",
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
    """Return the parts of a corpus section by name; a single corpus is its own only part, named None."""
    named: dict[str | None, Corpus] = {}
    if isinstance(corpus, Mixture):
        return named | corpus.parts
    return {None: corpus}


def sliced(corpus: Any) -> Any:
    """Return the type of a task's corpus section, with or without slices."""
    return either(corpus, create_model("SlicedCorpus", __base__=(corpus, Slices)))
