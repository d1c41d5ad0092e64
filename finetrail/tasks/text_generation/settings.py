"""The recipe's schema for text generation."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from finetrail import schema
from finetrail.schema import CsvReader, JsonLinesReader, JsonReader, ParquetReader, Settings, TextReader, Train

__all__ = ["Corpus", "Evaluate", "Tokenize", "Train", "check"]

DOCUMENTS = {"text"}
COMPLETIONS = {"prompt", "completion"}
PLACE = "{prompt}"


class Corpus(schema.Corpus):
    """A corpus of documents, or of prompts with the completions to learn."""

    reader: Annotated[
        CsvReader | JsonLinesReader | JsonReader | ParquetReader | TextReader, Field(discriminator="format")
    ]

    @model_validator(mode="after")
    def _columns(self) -> "Corpus":
        columns, more = set(self.reader.columns), {"id", self.splits.group}
        if not any(needed <= columns <= needed | more for needed in (DOCUMENTS, COMPLETIONS)):
            raise ValueError(
                f"reader.columns has {sorted(columns)}; expected text, or prompt and completion; "
                "and perhaps id and that of splits.group"
            )
        return self

    def common(self) -> dict[str, Any]:
        """Return what all parts of a mixture must have in common."""
        return {"reader.columns": "prompts" if "prompt" in self.reader.columns else "documents"}


class Tokenize(schema.Tokenize):
    """Documents to blocks of tokens; prompts and completions to one feature each."""

    block_size: int = Field(
        ge=2,
        description="tokens of a block; the most that a prompt and its completion have: a prompt loses its beginning, "
        "down to a quarter of them, then a completion its end; counted",
    )
    join_documents: bool = Field(
        description="documents: cut one text of all of them into blocks, or each document into its own"
    )
    remainder: Literal["drop", "pad"] = Field(
        description="documents: tokens behind the last whole block: drop (and count them), or a shorter block"
    )
    template: str | None = Field(
        description="completions: what the model reads of a prompt, with {prompt} in it; null: the prompt as it is"
    )
    eos_token: str | None = Field(
        min_length=1, description="token of the vocabulary that ends a text; null: the one that the tokenizer names"
    )
    limit: int | None = Field(ge=1, description="at most so many examples of each split, drawn once; null: all")

    @field_validator("template")
    @classmethod
    def _has_a_place(cls, template: str | None) -> str | None:
        if template is not None and template.count(PLACE) != 1:
            raise ValueError(f"{template!r} has {PLACE} {template.count(PLACE)} times; expected it once")
        return template


class Samples(Settings):
    """Continuations for people to read, drawn token by token; each depends on its prompt and these settings alone."""

    count: int = Field(ge=0, description="examples of each split, spread evenly over it, that are continued")
    prompt_tokens: int | None = Field(
        ge=1, description="documents: so many tokens of their beginning are the prompt; null for a corpus with prompts"
    )
    max_new_tokens: int = Field(ge=1, description="tokens of a continuation that does not end itself before")
    temperature: float = Field(ge=0, description="divides the logits; 0 always takes the likeliest token")
    top_p: float = Field(gt=0, le=1, description="draws among the likeliest tokens with so much probability together")
    seed: int = Field(ge=0, description="of every continuation's draws; not params.yaml's seed")


class Evaluate(schema.Evaluate):
    """Perplexity of held-out text, and continuations."""

    samples: Samples


METRICS = ("loss", "perplexity")


def check(recipe: Any) -> None:
    """Raise ValueError where two sections of one recipe contradict each other."""
    if recipe.train.best_metric not in METRICS:
        raise ValueError(f"train.best_metric: {recipe.train.best_metric!r}; expected one of {', '.join(METRICS)}")
    tokenize, samples = recipe.tokenize, recipe.evaluate.samples
    if "prompt" in recipe.corpus.reader.columns:
        if tokenize.join_documents or tokenize.remainder == "drop":
            raise ValueError("tokenize: a corpus with prompts; expected join_documents false and remainder pad")
        if samples.prompt_tokens is not None:
            raise ValueError("evaluate.samples.prompt_tokens: the corpus has prompts; expected null")
    elif tokenize.template is not None:
        raise ValueError("tokenize.template: the corpus has no prompts; expected null")
    elif samples.prompt_tokens is None:
        raise ValueError("evaluate.samples.prompt_tokens: the corpus has no prompts; expected a number")
    if (samples.prompt_tokens or 1) + samples.max_new_tokens > tokenize.block_size:
        raise ValueError(
            f"evaluate.samples: max_new_tokens {samples.max_new_tokens} leaves no room for the prompt in "
            f"tokenize.block_size {tokenize.block_size}"
        )
