"""The recipe's schema for question answering."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypedDict

from pydantic import Field, model_validator

from finetrail import schema
from finetrail.schema import Distillation, JsonLinesReader, JsonReader, ParquetReader, SquadReader, Train

# Optional in tasks/contract.py, and not used here.
Mixture = lacking = misfits = None

# Class of transformers with which base models are loaded.
AUTO_CLASS = "AutoModelForQuestionAnswering"

# A span at the first token of a feature, such as [CLS], means "no answer here" (Devlin et al. 2019).
NULL_POSITION = 0
MOST_SPECIAL_TOKENS = 4  # of a pair: RoBERTa's <s> </s></s> </s>

COLUMNS = {"question", "context", "answers"}
METRICS = ("loss", "span_accuracy")


class Target(TypedDict):
    """What the model needs to know about the corpus."""

    unanswerable: bool  # train has questions without an answer


class Corpus(schema.Corpus):
    """A corpus of questions about contexts. Answers are spans of the context; a question may have none."""

    reader: Annotated[SquadReader | JsonLinesReader | JsonReader | ParquetReader, Field(discriminator="format")]
    answer_mismatch: Literal["repair", "refuse", "drop"] = Field(
        description="answers that are not in their context at their start. repair: convert starts in UTF-16 units, "
        "ignore differences in surrounding white space and Unicode form, or move the answer to its nearest occurrence; "
        "drop it if there is none. drop: drop the answer. refuse: an error. All are counted by kind"
    )

    @model_validator(mode="after")
    def _columns(self) -> "Corpus":
        columns = getattr(self.reader, "columns", None)
        if columns is not None and not COLUMNS <= set(columns) <= COLUMNS | {"id", "title"} | self.more_columns:
            raise ValueError(
                f"reader.columns has {sorted(columns)}; expected question, context, answers and perhaps id, title, "
                "that of splits.group and those of slices"
            )
        return self


class Tokenize(schema.Tokenize):
    """Encoding of questions with contexts. A context that is too long is split into overlapping windows."""

    max_length: int = Field(
        ge=8, description="maximum number of tokens per feature: question, window and special tokens"
    )
    stride: int = Field(ge=0, description="number of tokens that two consecutive windows of a context share")
    max_question_length: int = Field(
        ge=1, description="maximum number of tokens of a question; longer ones are truncated and counted"
    )
    limit: schema.Limit

    @model_validator(mode="after")
    def _windows_advance(self) -> "Tokenize":
        if self.max_question_length + self.stride + MOST_SPECIAL_TOKENS >= self.max_length:
            raise ValueError(
                f"max_question_length {self.max_question_length} and stride {self.stride} leave windows of max_length "
                f"{self.max_length} no room to advance; expected their sum below max_length - {MOST_SPECIAL_TOKENS}"
            )
        return self


class TaughtTrain(Train):
    """Training on the labels and on a teacher's logits."""

    distillation: Distillation = Field(description="loss of a student")


class Evaluate(schema.Evaluate):
    """Decoding of answers, and the official script that the scores reproduce."""

    n_best: int = Field(ge=1, description="number of best spans kept per question")
    max_answer_length: int = Field(ge=1, description="maximum number of tokens of an answer")
    null_threshold: float | Literal["auto"] | None = Field(
        description="a question has no answer if the score of no answer minus that of the best span is above this "
        "threshold; null: every question has an answer; auto: null if every question of train has one, else the "
        "threshold with the best F1 on validation"
    )
    script: Literal["squad", "squad2", "korquad"] = Field(
        description="official script that exact_match and f1 reproduce: that of SQuAD 1.1, SQuAD 2.0, or KorQuAD 1.0 "
        "(no removal of articles, F1 over characters)"
    )


def check(recipe: Any) -> Iterator[str]:
    """Yield the contradictions between sections of one recipe."""
    yield from schema.check_trained_before(recipe)
    if recipe.train.best_metric not in METRICS:
        yield (
            f"train.best_metric: there is no {recipe.train.best_metric!r} here; expected one of {', '.join(METRICS)}"
        )
