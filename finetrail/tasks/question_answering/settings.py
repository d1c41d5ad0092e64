"""The recipe's schema for question answering."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypedDict

from pydantic import Field, model_validator

from finetrail import schema
from finetrail.schema import Distillation, JsonLinesReader, JsonReader, ParquetReader, SquadReader, Train

# Optional in tasks/contract.py, and not used here.
Mixture = lacking = misfits = None

# Of transformers: what a base model must be, or make with a new head.
AUTO_CLASS = "AutoModelForQuestionAnswering"

# The first token of a feature stands for "no answer here": [CLS] where the tokenizer has one (Devlin et al. 2019).
NULL_POSITION = 0
MOST_SPECIAL_TOKENS = 4  # of a pair: RoBERTa's <s> </s></s> </s>

COLUMNS = {"question", "context", "answers"}
METRICS = ("loss", "span_accuracy")


class Target(TypedDict):
    """What the model has to know of the corpus."""

    unanswerable: bool  # train has questions without an answer


class Corpus(schema.Corpus):
    """A corpus of questions about contexts, with answers that are spans of them, or with none."""

    reader: Annotated[SquadReader | JsonLinesReader | JsonReader | ParquetReader, Field(discriminator="format")]
    answer_mismatch: Literal["repair", "refuse", "drop"] = Field(
        description="an answer that does not stand in its context where its start says: repair (convert a start in "
        "UTF-16 units, take white space around it and its Unicode form as the context has them, or move it to the "
        "nearest place where it stands; else leave it out), refuse, or drop (leave it out); counted by kind"
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
    """Questions and contexts to pairs; a context that is too long becomes overlapping windows."""

    max_length: int = Field(ge=8, description="tokens of a feature: question, window and special tokens")
    stride: int = Field(ge=0, description="tokens of the context that two of its windows share")
    max_question_length: int = Field(ge=1, description="tokens of a question; what is longer is cut off and counted")
    limit: int | None = Field(ge=1, description="at most so many examples of each split, drawn once; null: all")

    @model_validator(mode="after")
    def _windows_advance(self) -> "Tokenize":
        if self.max_question_length + self.stride + MOST_SPECIAL_TOKENS >= self.max_length:
            raise ValueError(
                f"max_question_length {self.max_question_length} and stride {self.stride} leave windows of max_length "
                f"{self.max_length} no room to advance; expected their sum below max_length - {MOST_SPECIAL_TOKENS}"
            )
        return self


class TaughtTrain(Train):
    """Training by the labels and by a teacher's logits."""

    distillation: Distillation = Field(description="how much the teacher counts")


class Evaluate(schema.Evaluate):
    """Decoding of spans, and the official script that the scores equal."""

    n_best: int = Field(ge=1, description="spans kept of each question")
    max_answer_length: int = Field(ge=1, description="tokens of an answer")
    null_threshold: float | Literal["auto"] | None = Field(
        description="no answer where the score of none, less that of the best span, is above it; null: always answer; "
        "auto: null where each question of train has an answer, else what gives the best F1 on validation"
    )
    script: Literal["squad", "squad2", "korquad"] = Field(
        description="whose official script exact_match and f1 equal: SQuAD 1.1's, SQuAD 2.0's, KorQuAD 1.0's "
        "(no articles, F1 over characters)"
    )


def check(recipe: Any) -> Iterator[str]:
    """Yield what two sections of one recipe contradict each other in."""
    yield from schema.check_trained_before(recipe)
    if recipe.train.best_metric not in METRICS:
        yield (
            f"train.best_metric: there is no {recipe.train.best_metric!r} here; expected one of {', '.join(METRICS)}"
        )
