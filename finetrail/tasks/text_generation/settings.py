"""The recipe's schema for text generation."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypedDict

from pydantic import Field, field_validator, model_validator

from finetrail import schema
from finetrail.schema import (
    CsvReader,
    JsonLinesReader,
    JsonReader,
    ParquetReader,
    Settings,
    Sha256,
    TextReader,
)
from finetrail.schema import (
    Train as Train,
)

# Optional in tasks/contract.py, and not used here.
Mixture = TaughtTrain = lacking = misfits = None

# Of transformers: what a base model must be, or make with a new head.
AUTO_CLASS = "AutoModelForCausalLM"

DOCUMENTS = {"text"}
COMPLETIONS = {"prompt", "completion"}
CONVERSATIONS = {"messages"}
PLACE = "{prompt}"


class Target(TypedDict):
    """How a prompt is laid out for the model."""

    block_size: int
    template: str | None
    chat: bool  # by the tokenizer's chat template


class Corpus(schema.Corpus):
    """A corpus of documents, of prompts with the completions to learn, or of conversations."""

    reader: Annotated[
        CsvReader | JsonLinesReader | JsonReader | ParquetReader | TextReader, Field(discriminator="format")
    ]
    bad_conversations: Literal["refuse", "leave_out"] | None = Field(
        description="messages: one with an unknown role, a turn without text, or no turn of the assistant: refuse, or "
        "leave_out and count; null: the corpus has no messages"
    )

    @model_validator(mode="after")
    def _columns(self) -> "Corpus":
        columns, more = set(self.reader.columns), {"id"} | self.more_columns
        if not any(needed <= columns <= needed | more for needed in (DOCUMENTS, COMPLETIONS, CONVERSATIONS)):
            raise ValueError(
                f"reader.columns has {sorted(columns)}; expected text, or prompt and completion, "
                "or messages; and perhaps id, that of splits.group and those of slices"
            )
        if (self.bad_conversations is None) == ("messages" in columns):
            raise ValueError(
                "bad_conversations: expected refuse or leave_out for a corpus with messages, null for others"
            )
        return self

    def common(self) -> dict[str, Any]:
        """Return what all parts of a mixture must have in common."""
        kinds = {"prompt": "prompts", "messages": "conversations", "text": "documents"}
        return {"reader.columns": next(kind for column, kind in kinds.items() if column in self.reader.columns)}


class TemplateFile(Settings):
    """A chat template in a file."""

    path: str = Field(min_length=1, description="relative to the project's root, or absolute")
    sha256: Sha256 = Field(
        description="of the file, which DVC does not watch: by this line tokenize knows that it changed"
    )


class Chat(Settings):
    """Conversations, laid out by a chat template (Jinja, in transformers' sandbox); the assistant's turns are learned.

    Prompts with completions are conversations of two turns then.
    """

    template: str | TemplateFile | None = Field(
        description="the template itself, or a file with it; null: the one that the base model has"
    )
    bad_conversations: Literal["refuse", "leave_out"] = Field(
        description="one that the template refuses, such as for the order of its roles, or in which it hides what the "
        "assistant says: refuse, or leave_out and count"
    )

    @field_validator("template")
    @classmethod
    def _is_no_path(cls, template: str | TemplateFile | None) -> str | TemplateFile | None:
        if isinstance(template, str) and "{" not in template:
            raise ValueError(f"{template!r} is no template; expected Jinja with messages in it, or path and sha256")
        return template


class Tokenize(schema.Tokenize):
    """Documents to blocks of tokens; prompts with completions, and conversations, to one feature each."""

    block_size: int = Field(
        ge=2,
        description="tokens of a block; the most that a prompt and its completion have: a prompt loses its beginning, "
        "down to a quarter of them, then a completion its end; counted. In chats the last turn is the completion",
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
        min_length=1,
        description="token of the vocabulary that ends a text; null: the one that the tokenizer names, and in chats "
        "that which ends the assistant's turn",
    )
    chat: Chat | None = Field(description="lay out by a chat template, learn the assistant's turns; null: no chats")
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


def check(recipe: Any) -> Iterator[str]:
    """Yield what two sections of one recipe contradict each other in."""
    if recipe.train.best_metric not in METRICS:
        yield f"train.best_metric: {recipe.train.best_metric!r}; expected one of {', '.join(METRICS)}"
    tokenize, samples, columns = recipe.tokenize, recipe.evaluate.samples, recipe.corpus.reader.columns
    if "text" in columns:
        yield from _check_documents(tokenize, samples)
    else:
        kind = "messages" if "messages" in columns else "prompts"
        if tokenize.join_documents or tokenize.remainder == "drop":
            yield f"tokenize: a corpus with {kind}; expected join_documents false and remainder pad"
        if samples.prompt_tokens is not None:
            yield f"evaluate.samples.prompt_tokens: the corpus has {kind}; expected null"
        yield from _check_chat(recipe, kind)
    if (samples.prompt_tokens or 1) + samples.max_new_tokens > tokenize.block_size:
        yield (
            f"evaluate.samples: max_new_tokens {samples.max_new_tokens} leaves no room for the prompt in "
            f"tokenize.block_size {tokenize.block_size}"
        )


def _check_documents(tokenize: Tokenize, samples: Samples) -> Iterator[str]:
    for name in ("template", "chat"):
        if getattr(tokenize, name) is not None:
            yield f"tokenize.{name}: the corpus has no prompts; expected null"
    if samples.prompt_tokens is None:
        yield "evaluate.samples.prompt_tokens: the corpus has no prompts; expected a number"


def _check_chat(recipe: Any, kind: str) -> Iterator[str]:
    chat = recipe.tokenize.chat
    if chat is None:
        if kind == "messages":
            yield "tokenize.chat: the corpus has messages; expected template and bad_conversations"
        return
    if recipe.tokenize.template is not None:
        yield "tokenize.template: tokenize.chat lays out prompts; expected one of the two, the other null"
    if chat.template is None and recipe.model.source.kind == "new":
        yield "tokenize.chat.template: a new model has none of its own; expected a template"
