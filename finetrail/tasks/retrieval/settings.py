"""The recipe's schema for retrieval."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal, TypedDict

from pydantic import Field, model_validator

from finetrail import layout, schema
from finetrail.schema import BeirReader, CsvReader, JsonLinesReader, JsonReader, ParquetReader, Source, TextReader

# Optional in tasks/contract.py, and not used here.
Mixture = TaughtTrain = misfits = None

# Class of transformers with which base models are loaded.
AUTO_CLASS = "AutoModel"

BEST_METRICS = ("loss", "mrr@10")
# Label of relevant candidates, for the training of a reranker.
RELEVANT_LABEL = "relevant"


class Target(TypedDict):
    """How a text becomes a vector: the keys of Tokenize, as described there."""

    pooling: Literal["mean", "cls"]
    dimensions: list[int] | None
    max_length: int
    query_prefix: str
    document_prefix: str


class Splits(schema.Splits):
    """Where each split comes from, and the documents that all splits search."""

    documents: str | None = Field(
        min_length=1,
        description="for BEIR: the same path as reader.documents; null: the collection consists of the documents of "
        "all pairs",
    )


class Rankings(schema.Settings):
    """Scores that another run, or another search engine, gave to documents for the queries of train."""

    source: Source
    reader: Annotated[CsvReader | JsonLinesReader | ParquetReader, Field(discriminator="format")] = Field(
        description="reader of all files of the source; its columns are query and document, which are ids, and score"
    )

    @model_validator(mode="after")
    def _columns(self) -> "Rankings":
        if set(self.reader.columns) != {"query", "document", "score"}:
            raise ValueError(f"reader.columns has {sorted(self.reader.columns)}; expected query, document and score")
        return self


class Corpus(schema.Corpus):
    """Queries with their relevant documents: pairs, or queries, documents and judgements of BEIR."""

    reader: Annotated[
        BeirReader | CsvReader | JsonLinesReader | JsonReader | ParquetReader | TextReader,
        Field(discriminator="format"),
    ]
    splits: Splits
    positive_label: str | None = Field(
        min_length=1,
        description="value of the column label in rows that are pairs; other rows only add their document to the "
        "collection; null: every row is a pair",
    )

    rankings: Rankings | None = Field(
        description="scores of documents for the queries of train, such as the candidates of an earlier run, for "
        "tokenize.negatives with ranker: given; null: none"
    )

    ALONE: ClassVar[str | None] = "the queries of one part would be searched in the documents of all"

    def beside(self) -> dict[str, Any]:
        """Return the table that has a source of its own."""
        return {} if self.rankings is None else {layout.RANKINGS: self.rankings}

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
        elif not needed <= set(self.reader.columns) <= needed | {"id", "negatives"} | self.more_columns:
            raise ValueError(
                f"reader.columns has {sorted(self.reader.columns)}; expected {', '.join(sorted(needed))} "
                "and perhaps id, negatives, that of splits.group and those of slices; label goes with positive_label"
            )
        return self


TERMS_HELP = "words: lower-cased words; bigrams: pairs of characters, for Korean, Chinese and Japanese"


class Negatives(schema.Settings):
    """Hard negatives of each pair of a query and a relevant document in train, chosen by the scores of a ranker."""

    ranker: Literal["bm25", "given"] = Field(
        description="bm25: BM25 over all documents; given: the scores of corpus.rankings, if above 0"
    )
    terms: Literal["words", "bigrams"] | None = Field(
        description=f"terms of BM25. {TERMS_HELP}; null: for ranker given"
    )
    per_pair: int = Field(ge=1, description="maximum number of negatives per pair, the ones with the highest scores")
    depth: int = Field(ge=1, description="number of the best documents of a query from which negatives are chosen")
    below: float = Field(
        gt=0,
        le=1,
        description="maximum score of a negative, as a share of the score of the relevant document; documents above it "
        "are likely to be relevant too (NV-Retriever, Moreira et al. 2024: 0.95)",
    )

    @model_validator(mode="after")
    def _terms(self) -> "Negatives":
        if (self.terms is None) != (self.ranker == "given"):
            expected = "words or bigrams" if self.terms is None else "null"
            raise ValueError(f"terms is {self.terms} with ranker {self.ranker}; expected {expected}")
        return self


class Tokenize(schema.Tokenize):
    """Encoding of queries and documents, and how a text becomes a vector."""

    max_query_length: int = Field(
        ge=3, description="maximum number of tokens of a query, including special tokens; longer ones are truncated"
    )
    max_length: int = Field(
        ge=3, description="maximum number of tokens of a document, including special tokens; longer ones are truncated"
    )
    query_prefix: str = Field(description="prefix of each query, such as 'query: ' of E5; may be empty")
    document_prefix: str = Field(description="prefix of each document, such as 'passage: ' of E5; may be empty")
    max_negatives: int = Field(
        ge=0, description="maximum number of the hard negatives in the corpus that are used per query, the first ones"
    )
    negatives: Negatives | None = Field(
        description="mine hard negatives in addition to those in the corpus; null: do not"
    )
    pooling: Literal["mean", "cls"] = Field(
        description="vector of a text. mean: mean over its tokens; cls: vector of its first token"
    )
    # A single number that is scaled to length 1 is only a sign.
    dimensions: list[Annotated[int, Field(ge=2)]] | None = Field(
        min_length=1,
        description="shorter dimensions to train, such as [64, 128]: the loss is summed over the whole vector and over "
        "its first 64 and 128 numbers (Matryoshka, Kusupati et al. 2022); null: the whole vector alone",
    )
    limit: int | None = Field(
        ge=1,
        description="maximum number of queries per split, taken at equal distances, with their documents and as many "
        "other documents; null: all",
    )

    @model_validator(mode="after")
    def _dimensions_rise(self) -> "Tokenize":
        if self.dimensions is not None and self.dimensions != sorted(set(self.dimensions)):
            raise ValueError(f"dimensions is {self.dimensions}; expected each once, the smallest first")
        return self


class Train(schema.Train):
    """Training with a loss over the documents of a batch."""

    micro_batch: int | None = Field(
        ge=1,
        description="number of queries that are encoded at once with their documents, and again in the backward pass: "
        "large batches in little memory, with the same loss (GradCache, Gao et al. 2021); null: the whole batch",
    )
    scale: float = Field(gt=0, description="factor of the cosines before the softmax: 1 / temperature")

    @property
    def micro_batch_size(self) -> int:
        """Features that are encoded at once."""
        return min(self.batch_size, self.micro_batch or self.batch_size)


class Evaluate(schema.Evaluate):
    """Evaluation by a search among all documents."""

    index: Literal["exact", "faiss"] = Field(
        description="exact: compare with every document; faiss: compare with the documents of the nearest clusters "
        "(needs faiss-cpu)"
    )
    bm25_terms: Literal["words", "bigrams"] = Field(description=f"terms of the BM25 baseline. {TERMS_HELP}")
    candidates: int | None = Field(
        ge=1,
        description="number of the best documents of each query, in all splits, to write with their texts to "
        "data/candidates, for training and scoring a reranker and for mining hard negatives; null: none",
    )


def check(recipe: Any) -> Iterator[str]:
    """Yield the contradictions between sections of one recipe."""
    yield from schema.check_trained_before(recipe)
    if recipe.train.best_metric not in BEST_METRICS:
        yield (
            f"train.best_metric: {recipe.train.best_metric!r} is not a metric of retrieval; "
            f"expected one of {', '.join(BEST_METRICS)}"
        )
    given = recipe.tokenize.negatives is not None and recipe.tokenize.negatives.ranker == "given"
    if given != (recipe.corpus.rankings is not None):
        yield (
            "corpus.rankings and tokenize.negatives with ranker: given go together; expected "
            f"{'corpus.rankings too, or ranker bm25' if given else 'ranker: given too, or no rankings'}"
        )
    if recipe.train.batch_size < 2:
        yield "train.batch_size: 1 leaves a query without other documents as negatives; expected 2 or more"


def lacking(recipe: Any) -> Iterator[str]:
    """Yield the packages that a setting needs and that are not installed."""
    if recipe.evaluate.index == "faiss" and find_spec("faiss") is None:
        yield "evaluate.index: faiss is not installed; expected `pip install faiss-cpu`, or exact"
