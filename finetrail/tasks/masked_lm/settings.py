"""The recipe's schema for masked language modeling."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from finetrail import schema
from finetrail.schema import CsvReader, Distillation, JsonLinesReader, JsonReader, ParquetReader, TextReader

# Optional in tasks/contract.py, and not used here.
Mixture = lacking = misfits = None

# Of transformers: what a base model must be, or make with a new head.
AUTO_CLASS = "AutoModelForMaskedLM"

METRICS = ("loss", "perplexity", "accuracy")
PROBABILITY = "share of the tokens that are to be predicted; 0.15 in BERT"
WHOLE_WORD = "draw words with all their tokens, or else single tokens"


class Corpus(schema.Corpus):
    """A corpus of texts."""

    reader: Annotated[
        CsvReader | JsonLinesReader | JsonReader | ParquetReader | TextReader, Field(discriminator="format")
    ]

    @model_validator(mode="after")
    def _columns(self) -> "Corpus":
        if not {"text"} <= set(self.reader.columns) <= {"text", "id"} | self.more_columns:
            raise ValueError(
                f"reader.columns has {sorted(self.reader.columns)}; expected text and perhaps id, that of "
                "splits.group and those of slices"
            )
        if self.splits.stratify is not None:
            raise ValueError(f"splits.stratify: {self.splits.stratify!r}; expected null, for texts have no labels")
        return self


class Tokenize(schema.Tokenize):
    """Texts to blocks, and the masks that validation and test are scored on."""

    block_size: int = Field(ge=8, description="tokens of a block, special tokens included")
    join_documents: bool = Field(
        description="one stream of all texts, a separator between two; false: no block crosses the border of a text"
    )
    remainder: Literal["drop", "pad"] = Field(
        description="tokens that fill no block, at the end of the stream or of each text: drop, or a shorter block"
    )
    mask_probability: float = Field(gt=0, lt=1, description=f"validation and test: {PROBABILITY}")
    whole_word: bool = Field(description=f"validation and test: {WHOLE_WORD}")
    mask_seed: int = Field(ge=0, description="of the masks of validation and test, which are drawn once, here")
    limit: int | None = Field(ge=1, description="at most so many examples of each split, drawn once; null: all")


class Train(schema.Train):
    """Training on masks that are drawn anew in each epoch."""

    mask_probability: float = Field(gt=0, lt=1, description=PROBABILITY)
    whole_word: bool = Field(description=WHOLE_WORD)


class TaughtTrain(Train):
    """Training by the masked tokens and by a teacher's logits."""

    distillation: Distillation = Field(description="how much the teacher counts")


class Evaluate(schema.Evaluate):
    """Perplexity on the frozen masks."""

    fill_mask_examples: int = Field(ge=0, description="masks whose five best tokens the report shows, before and after")


def check(recipe: Any) -> Iterator[str]:
    """Yield what two sections of one recipe contradict each other in."""
    yield from schema.check_trained_before(recipe)
    if recipe.train.best_metric not in METRICS:
        yield f"train.best_metric: {recipe.train.best_metric!r}; expected one of {', '.join(METRICS)}"
