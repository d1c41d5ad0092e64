"""Holds the modules of every task to contract.py. mypy reads this file, and nothing imports it.

A new task needs a function here; tests/test_graph.py compares them with the folders.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

from finetrail import schema
from finetrail.tasks import contract

Corpus = TypeVar("Corpus", bound=schema.Corpus)
Counts = TypeVar("Counts")
Tokenize = TypeVar("Tokenize", bound=schema.Tokenize)
Train = TypeVar("Train", bound=schema.Train)
Evaluate = TypeVar("Evaluate", bound=schema.Evaluate)
Target = TypeVar("Target")


@dataclass
class Task(Generic[Corpus, Counts, Tokenize, Train, Evaluate, Target]):
    """The modules of one task, which agree on its settings and its target."""

    settings: contract.Settings[Corpus, Tokenize, Train, Evaluate]
    corpus: contract.Corpus[Corpus, Counts]
    concerns: contract.Concerns
    encoding: contract.Encoding[Tokenize, Target]
    modeling: contract.Modeling[Target, Train]
    validation: contract.Validation[Target]
    loading: contract.Loading[Target]
    metrics: contract.Metrics
    scoring: contract.Scoring[Target, Evaluate]
    serving: contract.Serving[Target]
    card: contract.Card[Target]
    demo: contract.Demo[Target]


def masked_lm() -> None:
    from .masked_lm import (
        card,
        concerns,
        corpus,
        demo,
        encoding,
        loading,
        metrics,
        modeling,
        scoring,
        serving,
        settings,
        validation,
    )

    Task[settings.Corpus, corpus.Counts, settings.Tokenize, settings.Train, settings.Evaluate, None](
        settings, corpus, concerns, encoding, modeling, validation, loading, metrics, scoring, serving, card, demo
    )


def question_answering() -> None:
    from .question_answering import (
        card,
        concerns,
        corpus,
        demo,
        encoding,
        loading,
        metrics,
        modeling,
        scoring,
        serving,
        settings,
        validation,
    )

    Task[settings.Corpus, corpus.Counts, settings.Tokenize, settings.Train, settings.Evaluate, settings.Target](
        settings, corpus, concerns, encoding, modeling, validation, loading, metrics, scoring, serving, card, demo
    )


def retrieval() -> None:
    from .retrieval import (
        card,
        concerns,
        corpus,
        demo,
        encoding,
        loading,
        metrics,
        modeling,
        scoring,
        serving,
        settings,
        validation,
    )

    Task[settings.Corpus, corpus.Counts, settings.Tokenize, settings.Train, settings.Evaluate, settings.Target](
        settings, corpus, concerns, encoding, modeling, validation, loading, metrics, scoring, serving, card, demo
    )


def text_classification() -> None:
    from .text_classification import (
        card,
        concerns,
        corpus,
        demo,
        encoding,
        loading,
        metrics,
        modeling,
        scoring,
        serving,
        settings,
        validation,
    )

    Task[settings.Corpus, corpus.Counts, settings.Tokenize, settings.Train, settings.Evaluate, settings.Target](
        settings, corpus, concerns, encoding, modeling, validation, loading, metrics, scoring, serving, card, demo
    )


def text_generation() -> None:
    from .text_generation import (
        card,
        concerns,
        corpus,
        demo,
        encoding,
        loading,
        metrics,
        modeling,
        scoring,
        serving,
        settings,
        validation,
    )

    Task[settings.Corpus, corpus.Counts, settings.Tokenize, settings.Train, settings.Evaluate, settings.Target](
        settings, corpus, concerns, encoding, modeling, validation, loading, metrics, scoring, serving, card, demo
    )


def token_classification() -> None:
    from .token_classification import (
        card,
        concerns,
        corpus,
        demo,
        encoding,
        loading,
        metrics,
        modeling,
        scoring,
        serving,
        settings,
        validation,
    )

    Task[settings.Corpus, corpus.Counts, settings.Tokenize, settings.Train, settings.Evaluate, settings.Target](
        settings, corpus, concerns, encoding, modeling, validation, loading, metrics, scoring, serving, card, demo
    )
