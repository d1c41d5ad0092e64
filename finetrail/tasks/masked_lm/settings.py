"""The recipe's schema for masked language modeling."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, model_validator

from finetrail import schema
from finetrail.schema import Distillation

# Optional in tasks/contract.py, and not used here.
Mixture = lacking = misfits = None

# Class of transformers with which base models are loaded.
AUTO_CLASS = "AutoModelForMaskedLM"

METRICS = ("loss", "perplexity", "accuracy")
PROBABILITY = "probability with which a token is to be predicted; BERT: 0.15"
WHOLE_WORD = "true: mask whole words; false: mask single tokens"


class Corpus(schema.Corpus):
    """A corpus of texts."""

    reader: schema.TableReader

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
    """Encoding of texts into blocks, and the masks on which validation and test are scored."""

    block_size: int = Field(ge=8, description="tokens per block, including special tokens")
    join_documents: bool = Field(
        description="true: join all texts, with separators, and cut the stream into blocks; false: cut each text on "
        "its own"
    )
    remainder: Literal["drop", "pad"] = Field(
        description="what happens to the last tokens of the stream, or of each text, that fill no block. drop: they "
        "are left out; pad: they are a shorter block"
    )
    mask_probability: float = Field(gt=0, lt=1, description=f"in validation and test: {PROBABILITY}")
    whole_word: bool = Field(description=f"in validation and test: {WHOLE_WORD}")
    mask_seed: int = Field(ge=0, description="random seed of the masks of validation and test, which are drawn once")
    limit: schema.Limit


class Train(schema.Train):
    """Training on masks that are drawn anew in each epoch."""

    mask_probability: float = Field(gt=0, lt=1, description=f"in training: {PROBABILITY}")
    whole_word: bool = Field(description=f"in training: {WHOLE_WORD}")


class TaughtTrain(Train):
    """Training on the masked tokens and on a teacher's logits."""

    distillation: Distillation = Field(description="loss of a student")


class Evaluate(schema.Evaluate):
    """Evaluation on the masks that tokenize has drawn."""

    fill_mask_examples: int = Field(
        ge=0, description="number of masks for which the report shows the five best tokens, before and after training"
    )


def check(recipe: Any) -> Iterator[str]:
    """Yield the contradictions between sections of one recipe."""
    yield from schema.check_trained_before(recipe)
    if recipe.train.best_metric not in METRICS:
        yield f"train.best_metric: {recipe.train.best_metric!r}; expected one of {', '.join(METRICS)}"
