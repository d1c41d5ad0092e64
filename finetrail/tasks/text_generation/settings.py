"""The recipe's schema for text generation."""

from collections.abc import Iterator
from typing import Any, Literal, TypedDict

from pydantic import Field, field_validator, model_validator

from finetrail import schema
from finetrail.schema import Settings, Sha256
from finetrail.schema import Train as Train

# Optional in tasks/contract.py, and not used here.
Mixture = TaughtTrain = lacking = misfits = None

# Class of transformers with which base models are loaded.
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
    """A corpus of documents, of prompts with completions, or of conversations."""

    reader: schema.TableReader
    bad_conversations: Literal["refuse", "leave_out"] | None = Field(
        description="conversations with an unknown role, a turn without text, or no turn of the assistant. refuse: an "
        "error; leave_out: skip and count them; null: the corpus has no messages"
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
        """Return the settings that all parts of a mixture must have in common."""
        kinds = {"prompt": "prompts", "messages": "conversations", "text": "documents"}
        return {"reader.columns": next(kind for column, kind in kinds.items() if column in self.reader.columns)}


class TemplateFile(Settings):
    """A chat template in a file."""

    path: str = Field(min_length=1, description="path of the file; relative to the project's root, or absolute")
    sha256: Sha256 = Field(
        description="SHA-256 of the file. DVC does not track it: changing this value is what reruns tokenize"
    )


class Chat(Settings):
    """Conversations, formatted by a chat template (Jinja, in the sandbox of transformers). The loss is on the turns of
    the assistant. Prompts with completions are conversations of two turns.
    """

    template: str | TemplateFile | None = Field(
        description="the template, or a file with it; null: the template of the base model"
    )
    bad_conversations: Literal["refuse", "leave_out"] = Field(
        description="conversations that the template rejects, for example for the order of roles, or of which it omits "
        "a turn of the assistant. refuse: an error; leave_out: skip and count them"
    )

    @field_validator("template")
    @classmethod
    def _is_no_path(cls, template: str | TemplateFile | None) -> str | TemplateFile | None:
        if isinstance(template, str) and "{" not in template:
            raise ValueError(f"{template!r} is no template; expected Jinja with messages in it, or path and sha256")
        return template


class Tokenize(schema.Tokenize):
    """Encoding of documents into blocks, and of prompts with completions, or conversations, into one feature each."""

    block_size: int = Field(
        ge=2,
        description="tokens per block, and maximum of a prompt with its completion. If these are longer, first the "
        "beginning of the prompt is truncated, down to a quarter of block_size, then the end of the completion; both "
        "are counted. In a conversation, the last turn is the completion",
    )
    join_documents: bool = Field(
        description="for documents. true: join all documents and cut the stream into blocks; false: cut each document "
        "on its own"
    )
    remainder: Literal["drop", "pad"] = Field(
        description="for documents: tokens after the last whole block. drop: leave them out and count them; pad: a "
        "shorter block"
    )
    template: str | None = Field(
        description="for completions: text around the prompt, with {prompt} in it; null: the prompt as it is"
    )
    eos_token: str | None = Field(
        min_length=1,
        description="token of the vocabulary that ends a text; null: the tokenizer's eos_token or, with chat, the "
        "token that ends the assistant's turn",
    )
    chat: Chat | None = Field(
        description="format conversations, or prompts with completions, by a chat template; null: no chat template"
    )
    limit: schema.Limit

    @field_validator("template")
    @classmethod
    def _has_a_place(cls, template: str | None) -> str | None:
        if template is not None and template.count(PLACE) != 1:
            raise ValueError(f"{template!r} has {PLACE} {template.count(PLACE)} times; expected it once")
        return template


class Samples(Settings):
    """Continuations for the report, sampled token by token. Each depends on its prompt and these settings alone."""

    count: int = Field(ge=0, description="number of examples per split that are continued, taken at equal distances")
    prompt_tokens: int | None = Field(
        ge=1,
        description="for documents: number of their first tokens that are the prompt; null: the corpus has prompts",
    )
    max_new_tokens: int = Field(ge=1, description="maximum number of tokens of a continuation")
    temperature: float = Field(ge=0, description="divisor of the logits; 0: always the most probable token")
    top_p: float = Field(
        gt=0,
        le=1,
        description="nucleus sampling: total probability of the most probable tokens among which one is drawn",
    )
    seed: int = Field(ge=0, description="random seed of the sampling; separate from seed in params.yaml")


class Evaluate(schema.Evaluate):
    """Evaluation by the perplexity of held-out text, and continuations."""

    samples: Samples


METRICS = ("loss", "perplexity")


def check(recipe: Any) -> Iterator[str]:
    """Yield the contradictions between sections of one recipe."""
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
        yield "tokenize.template: tokenize.chat lays out prompts; expected null for one of them"
    if chat.template is None and recipe.model.source.kind == "new":
        yield "tokenize.chat.template: a new model has none of its own; expected a template"
