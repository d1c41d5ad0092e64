"""The recipe's schema for retrieval."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal, TypedDict

from pydantic import Field, model_validator

from finetrail import layout, schema
from finetrail.schema import BeirReader, CsvReader, JsonLinesReader, JsonReader, ParquetReader, Source, TextReader

# Optional in tasks/contract.py, and not used here.
Mixture = TaughtTrain = misfits = None

# Of transformers: what a base model must be, or make with a new head.
AUTO_CLASS = "AutoModel"

BEST_METRICS = ("loss", "mrr@10")
# The label that evaluate gives to candidates that are relevant, for a reranker to learn.
RELEVANT_LABEL = "relevant"


class Target(TypedDict):
    """How a text becomes a vector: the keys of Tokenize, as described there."""

    pooling: Literal["mean", "cls"]
    dimensions: list[int] | None
    max_length: int
    query_prefix: str
    document_prefix: str


class Splits(schema.Splits):
    """Where each split is, and the documents that all of them are searched in."""

    documents: str | None = Field(
        min_length=1, description="BEIR's documents, as reader.documents; null: those of all pairs are the collection"
    )


class Rankings(schema.Settings):
    """What another run, or another search engine, found for train's queries."""

    source: Source
    reader: Annotated[CsvReader | JsonLinesReader | ParquetReader, Field(discriminator="format")] = Field(
        description="of all files of the source; its columns are query and document, the ids, and score"
    )

    @model_validator(mode="after")
    def _columns(self) -> "Rankings":
        if set(self.reader.columns) != {"query", "document", "score"}:
            raise ValueError(f"reader.columns has {sorted(self.reader.columns)}; expected query, document and score")
        return self


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

    rankings: Rankings | None = Field(
        description="scores of documents for train's queries, such as the candidates of an earlier run, which "
        "tokenize.negatives chooses from with ranker given; null: none"
    )

    ALONE: ClassVar[str | None] = "the queries of one part would be searched in the documents of all"

    def beside(self) -> dict[str, Any]:
        """Return the table that comes from a source of its own."""
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


TERMS_HELP = "lower-cased words, or pairs of characters (Korean, Chinese, Japanese)"


class Negatives(schema.Settings):
    """Hard negatives for each pair of a query and a relevant document of train, by the scores of a ranker."""

    ranker: Literal["bm25", "given"] = Field(
        description="bm25: over all documents; given: corpus.rankings, where a document without a score above 0 is none"
    )
    terms: Literal["words", "bigrams"] | None = Field(description=f"what bm25 compares: {TERMS_HELP}; for given: null")
    per_pair: int = Field(ge=1, description="at most so many negatives of a pair, the best of those that are kept")
    depth: int = Field(ge=1, description="they are chosen among so many of the query's best documents")
    below: float = Field(
        gt=0,
        le=1,
        description="only documents that score below this share of the relevant document's score are kept; others are "
        "likely to be relevant too (NV-Retriever, Moreira et al. 2024, has 0.95)",
    )

    @model_validator(mode="after")
    def _terms(self) -> "Negatives":
        if (self.terms is None) != (self.ranker == "given"):
            expected = "words or bigrams" if self.terms is None else "null"
            raise ValueError(f"terms is {self.terms} with ranker {self.ranker}; expected {expected}")
        return self


class Tokenize(schema.Tokenize):
    """Queries and documents to tokens, and how their vectors are made of those."""

    max_query_length: int = Field(ge=3, description="tokens of a query, special tokens included; the rest is cut off")
    max_length: int = Field(ge=3, description="tokens of a document, special tokens included; the rest is cut off")
    query_prefix: str = Field(description="put before each query, such as E5's 'query: '; may be empty")
    document_prefix: str = Field(description="put before each document, such as E5's 'passage: '; may be empty")
    max_negatives: int = Field(ge=0, description="given hard negatives of a query that are kept, the first ones")
    negatives: Negatives | None = Field(description="mine more hard negatives, behind the given ones; null: do not")
    pooling: Literal["mean", "cls"] = Field(description="a text's vector: the mean of its tokens', or the first one")
    # A single number that is scaled to length 1 is only a sign.
    dimensions: list[Annotated[int, Field(ge=2)]] | None = Field(
        min_length=1,
        description="beginnings of a vector that shall do for it, such as [64, 128]: the loss is summed over the whole "
        "and over each (Matryoshka, Kusupati et al. 2022); null: the whole alone",
    )
    limit: int | None = Field(
        ge=1,
        description="at most so many queries of each split, drawn once, with their documents and so many others; null: "
        "all",
    )

    @model_validator(mode="after")
    def _dimensions_rise(self) -> "Tokenize":
        if self.dimensions is not None and self.dimensions != sorted(set(self.dimensions)):
            raise ValueError(f"dimensions is {self.dimensions}; expected each once, the smallest first")
        return self


class Train(schema.Train):
    """Optimization, with the loss over the documents of a batch."""

    micro_batch: int | None = Field(
        ge=1,
        description="so many queries with their documents are encoded at once, and anew in the backward pass: a "
        "large batch in little memory, with the same loss (GradCache, Gao et al. 2021); null: the whole batch",
    )
    scale: float = Field(gt=0, description="cosines are multiplied by it before the softmax: 1 / temperature")

    @property
    def micro_batch_size(self) -> int:
        """Features that are encoded at once."""
        return min(self.batch_size, self.micro_batch or self.batch_size)


class Evaluate(schema.Evaluate):
    """Search among all documents."""

    index: Literal["exact", "faiss"] = Field(
        description="exact: compare with every document; faiss: with those of the nearest clusters (needs faiss-cpu)"
    )
    bm25_terms: Literal["words", "bigrams"] = Field(description=f"of the BM25 baseline: {TERMS_HELP}")
    candidates: int | None = Field(
        ge=1,
        description="so many of the best documents of each query, of train too, with their texts in data/candidates: "
        "what a reranker is trained and scored on, and hard negatives are chosen from; null: none",
    )


def check(recipe: Any) -> Iterator[str]:
    """Yield what two sections of one recipe contradict each other in."""
    yield from schema.check_trained_before(recipe)
    if recipe.train.best_metric not in BEST_METRICS:
        yield (
            f"train.best_metric: {recipe.train.best_metric!r} is none of retrieval's; "
            f"expected one of {', '.join(BEST_METRICS)}"
        )
    given = recipe.tokenize.negatives is not None and recipe.tokenize.negatives.ranker == "given"
    if given != (recipe.corpus.rankings is not None):
        yield (
            "corpus.rankings and tokenize.negatives with ranker: given go together; expected "
            f"{'corpus.rankings too, or ranker bm25' if given else 'ranker: given too, or no rankings'}"
        )
    if recipe.train.batch_size < 2:
        yield "train.batch_size: 1 leaves a query without other documents to tell its own from; expected 2 or more"


def lacking(recipe: Any) -> Iterator[str]:
    """Yield what a setting needs that is not installed here."""
    if recipe.evaluate.index == "faiss" and find_spec("faiss") is None:
        yield "evaluate.index: faiss is not installed; expected `pip install faiss-cpu`, or exact"
