"""The recipe's schema for retrieval."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from finetrail import schema
from finetrail.schema import BeirReader, CsvReader, JsonLinesReader, JsonReader, ParquetReader, TextReader

__all__ = ["Corpus", "Evaluate", "Tokenize", "Train", "check"]

BEST_METRICS = ("loss", "mrr@10")


class Splits(schema.Splits):
    """Where each split is, and the documents that all of them are searched in."""

    documents: str | None = Field(
        min_length=1, description="BEIR's documents, as reader.documents; null: those of all pairs are the collection"
    )


class Corpus(schema.Corpus):
    """Queries with their relevant documents: pairs, or BEIR's queries, documents and judgements."""

    reader: Annotated[
        BeirReader | CsvReader | JsonLinesReader | JsonReader | ParquetReader | TextReader,
        Field(discriminator="format"),
    ]
    splits: Splits
    positive_label: str | None = Field(
        min_length=1,
        description="value of the column label that makes a row a pair; of other rows only the document is taken, to "
        "be searched too; null: every row is a pair",
    )

    ALONE: ClassVar[str | None] = "the queries of one part would be searched in the documents of all"

    @model_validator(mode="after")
    def _documents(self) -> "Corpus":
        expected = self.reader.documents if isinstance(self.reader, BeirReader) else None
        if self.splits.documents != expected:
            raise ValueError(
                f"splits.documents is {self.splits.documents!r}; expected {expected!r}: reader.documents for the "
                "format beir, null for others"
            )
        return self

    @model_validator(mode="after")
    def _columns(self) -> "Corpus":
        needed = {"query", "document"} | ({"label"} if self.positive_label is not None else set())
        if isinstance(self.reader, BeirReader):
            if self.positive_label is not None:
                raise ValueError("positive_label: BEIR's judgements have grades, not labels; expected null")
        elif not needed <= set(self.reader.columns) <= needed | {"id", "negatives", self.splits.group}:
            raise ValueError(
                f"reader.columns has {sorted(self.reader.columns)}; expected {', '.join(sorted(needed))} "
                "and perhaps id, negatives and that of splits.group; label goes with positive_label"
            )
        return self


class Tokenize(schema.Tokenize):
    """Queries and documents to tokens, and how their vectors are made of those."""

    max_query_length: int = Field(ge=3, description="tokens of a query, special tokens included; the rest is cut off")
    max_length: int = Field(ge=3, description="tokens of a document, special tokens included; the rest is cut off")
    query_prefix: str = Field(description="put before each query, such as E5's 'query: '; may be empty")
    document_prefix: str = Field(description="put before each document, such as E5's 'passage: '; may be empty")
    max_negatives: int = Field(ge=0, description="given hard negatives of a query that are kept, the first ones")
    pooling: Literal["mean", "cls"] = Field(description="a text's vector: the mean of its tokens', or the first one")
    limit: int | None = Field(ge=1, description="at most so many queries of each split, drawn once; null: all")


class Train(schema.Train):
    """Optimization, with the loss over the documents of a batch."""

    scale: float = Field(gt=0, description="cosines are multiplied by it before the softmax: 1 / temperature")


class Evaluate(schema.Evaluate):
    """Search among all documents."""

    index: Literal["exact", "faiss"] = Field(
        description="exact: compare with every document; faiss: with those of the nearest clusters (needs faiss-cpu)"
    )
    bm25_terms: Literal["words", "bigrams"] = Field(
        description="of the BM25 baseline: lower-cased words, or pairs of characters (Korean, Chinese, Japanese)"
    )


def check(recipe: Any) -> None:
    """Raise ValueError where two sections of one recipe contradict each other."""
    if recipe.train.best_metric not in BEST_METRICS:
        raise ValueError(
            f"train.best_metric: {recipe.train.best_metric!r} is none of retrieval's; "
            f"expected one of {', '.join(BEST_METRICS)}"
        )
    if recipe.train.batch_size < 2:
        raise ValueError(
            "train.batch_size: 1 leaves a query without other documents to tell its own from; expected 2 or more"
        )
