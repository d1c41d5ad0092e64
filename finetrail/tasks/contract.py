"""The functions of a task that the pipeline calls: a Protocol for each module. Imported for typing only.

`tasks.module(task, "scoring")` has the type Scoring. conformance.py holds the modules of every task to these protocols,
so mypy reports a member that a task lacks, or that has other parameters. A member that may be None is optional, and a
task that does without it says so. Docstrings here hold for all tasks; a task's own docstring adds its particulars.

The type variables differ between tasks, and the modules of one task agree on them. Sections are the task's classes in
settings.py. Target is what data/tokenized/target.json holds: what training and prediction have to know of train, such
as its labels.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypedDict, TypeVar

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetrail import schema
from finetrail.corpus.concerns import Concern
from finetrail.corpus.readers import Record
from finetrail.encoding.engines import Batch, Features, OrderedMap
from finetrail.evaluation.bootstrap import Statistic
from finetrail.evaluation.inference import Forward
from finetrail.evaluation.slicing import Slicing
from finetrail.evaluation.splits import Encoded
from finetrail.model.distillation import Teaching
from finetrail.tasks.views import View

# Sections of the recipe.
Corpus_co = TypeVar("Corpus_co", bound=schema.Corpus, covariant=True)
Corpus_contra = TypeVar("Corpus_contra", bound=schema.Corpus, contravariant=True)
Tokenize_co = TypeVar("Tokenize_co", bound=schema.Tokenize, covariant=True)
Tokenize_contra = TypeVar("Tokenize_contra", bound=schema.Tokenize, contravariant=True)
Train_co = TypeVar("Train_co", bound=schema.Train, covariant=True)
Train_contra = TypeVar("Train_contra", bound=schema.Train, contravariant=True)
Evaluate_co = TypeVar("Evaluate_co", bound=schema.Evaluate, covariant=True)
Evaluate_contra = TypeVar("Evaluate_contra", bound=schema.Evaluate, contravariant=True)

Target = TypeVar("Target")
Target_contra = TypeVar("Target_contra", contravariant=True)
Counted = TypeVar("Counted")  # a task's corpus.Counts

# A row of a table for people: a line of a CSV file.
Row = dict[str, str | int | float | None]


class Settings(Protocol[Corpus_co, Tokenize_co, Train_co, Evaluate_co]):
    """settings.py: the task's sections of a recipe. It imports pydantic only."""

    @property
    def AUTO_CLASS(self) -> str:
        """The class of transformers that loads a base model of the task."""

    @property
    def Corpus(self) -> type[Corpus_co]:
        """The section corpus, or a part of a mixture."""

    @property
    def Mixture(self) -> type[schema.Mixture] | None:
        """The section corpus of a mixture. None: params.mixture() derives it from Corpus."""

    @property
    def Tokenize(self) -> type[Tokenize_co]:
        """The section tokenize."""

    @property
    def Train(self) -> type[Train_co]:
        """The section train."""

    @property
    def TaughtTrain(self) -> type[Train_co] | None:
        """The section train of a student, with `distillation`. None: no model of the task learns from a teacher."""

    @property
    def Evaluate(self) -> type[Evaluate_co]:
        """The section evaluate."""

    def check(self, recipe: Any) -> Iterator[str]:
        """Yield what contradicts itself across sections of a recipe, as lines that begin with a key.

        recipe: a Recipe of the task, or its valid sections only: reading another one ends the check.
        """

    @property
    def lacking(self) -> Callable[[Any], Iterator[str]] | None:
        """The function that yields requirements of a recipe that this machine lacks, such as an optional package."""

    @property
    def misfits(self) -> Callable[[Any, Any], Iterator[str]] | None:
        """The function that yields which settings of a recipe do not fit a target: recipe, target -> lines."""


class Corpus(Protocol[Corpus_contra, Counted]):
    """corpus.py: records of a source to rows of the canonical corpus, data/corpus."""

    @property
    def Counts(self) -> Callable[[], Counted]:
        """The class that counts one table while its rows pass, with at most a few numbers per row in memory."""

    @property
    def records(self) -> Callable[[Callable[[], Iterator[Record]], Corpus_contra], Iterator[Record]] | None:
        """The function that a source's records pass through before they are split.

        (read, settings) -> records. Each call of read() starts again, because some functions need a whole
        file first. UserError names the record that is wrong.
        """

    def tables(self, settings: Corpus_contra) -> dict[str, pa.Schema]:
        """Return the columns of each table: the splits, and tables that they share, such as documents."""

    def rows(
        self, table: str, record: Record, settings: Corpus_contra, counts: dict[str, Counted]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the rows that a record becomes, each with the name of its table, and count them by table.

        Empty examples yield none, and are counted too. UserError, with record.where, for a record of the wrong form or
        one that the recipe refuses.
        """

    def checks(self, counts: dict[str, Counted], settings: Corpus_contra) -> dict[str, Any]:
        """Return checks.json: the counts of each table under "splits", and comparisons of tables, such as leakage.

        UserError for records that the recipe refuses.
        """

    def summary(self, counts: Counted, settings: Corpus_contra) -> str:
        """Return one table in words, for the log."""


class Concerns(Protocol):
    """concerns.py: what a reader should know about the data, for the log, the report and the card."""

    def of_corpus(self, checks: dict[str, Any]) -> list[Concern]:
        """Return the concerns of checks.json, as corpus.checks() gives it."""

    def of_features(self, tables: dict[str, Any]) -> list[Concern]:
        """Return the concerns of the counts of encoding: table -> count -> number."""


class TableEncoder(Protocol):
    """Examples to features; it pickles, because other processes may run parts of it."""

    @property
    def tables(self) -> dict[str, pa.Schema]:
        """The columns of the features of each table. One is `example`, the row of the example in its table."""

    @property
    def survey(self) -> Callable[[Callable[[str], pa.Table]], None] | None:
        """The function to call before encode_table(), with a reader of tables, if features depend on other tables."""

    @property
    def nothing(self) -> Callable[[dict[str, int]], str] | None:
        """The function that says why a table got no feature, from its counts. None: each example gives one or more."""

    def encode_table(self, name: str, batches: Iterable[Batch], ordered_map: OrderedMap = ...) -> Iterator[Features]:
        """Yield the features of a table in the order of its examples, with counts that add up.

        batches: row numbers int [n], which become the column `example`, and n examples. What is computed per batch goes
        through ordered_map. Features do not depend on how the examples are batched. The counts have "examples", and
        count whatever is cut off.
        """


class Encoding(Protocol[Tokenize_contra, Target]):
    """encoding.py: examples to features. It imports no torch."""

    @property
    def TOGETHER(self) -> tuple[str, str] | None:
        """A struct column and its field: neighbouring rows that agree in it are kept or left out together by limit."""

    @property
    def needed(self) -> Callable[[pa.Table], Iterable[str]] | None:
        """The function from examples to the ids that they name in a table that all splits share."""

    def load_tokenizer(self, folder: Path, settings: Tokenize_contra, train: Callable[[], Iterator[pa.Table]]) -> Any:
        """Load the base model's fast tokenizer, or train a new one, and adapt it to the settings.

        train() reads the train split in batches. UserError if tokenizer and settings do not fit together.
        """

    def target(self, train: Iterator[pa.Table], settings: Tokenize_contra) -> Target:
        """Return the target of the train split, given in batches: a JSON value that is the same for the same corpus.

        UserError if there is nothing to learn, such as a single label.
        """

    def Encoder(self, tokenizer: Any, target: Target, settings: Tokenize_contra) -> TableEncoder:
        """Return what encodes tables. UserError if the settings leave no room for a text."""


class Modeling(Protocol[Target_contra, Train_contra]):
    """modeling.py: a base model to a model to train, and features to batches. Both engines use it unchanged."""

    @property
    def COLUMNS(self) -> tuple[str, ...]:
        """The columns of the features that the collator uses, if they are there."""

    @property
    def SEPARABLE(self) -> bool:
        """Whether a batch's loss is a mean over its items, so that it may be computed in parts."""

    @property
    def TEACHING(self) -> Teaching | None:
        """How a model learns from a teacher; None if settings have no TaughtTrain."""

    def notes(self, base_model: Path) -> list[str]:
        """Return what users should know about the base model, one sentence each."""

    def build_model(
        self, base_model: Path, target: Target_contra, settings: Train_contra, train: Dataset
    ) -> PreTrainedModel:
        """Load the base model to be trained, in fp32. New weights come from torch's generator, which has been seeded.

        train: the features of the train split. UserError if the checkpoint lacks weights that are not new, or does not
        fit the task.
        """

    def build_collator(
        self, tokenizer: PreTrainedTokenizerBase, settings: Train_contra
    ) -> Callable[[pa.Table], dict[str, torch.Tensor]]:
        """Return the function from features (COLUMNS) to inputs of the model, padded to the longest, and labels."""

    def num_items(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the number of items that a batch's loss is a mean over, such as tokens with labels: int64 []."""

    def reduce(self, logits: Any, labels: Any) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Return what validation needs of a batch's logits, small enough to keep for the whole split: [batch, ...].

        logits: the model's outputs without its loss, a tuple if there are several.
        """

    @property
    def finish(self) -> Callable[[PreTrainedModel], None] | None:
        """The function that makes a model after training one that needs no code of this project."""


class Validation(Protocol[Target_contra]):
    """validation.py: reduced outputs to the scores by which training chooses its checkpoint. Only train imports it."""

    @property
    def LOWER_IS_BETTER(self) -> tuple[str, ...]:
        """Those of validate()'s scores, and of the loss, that are better when they are lower."""

    def validate(self, reduced: Any, features: pa.Table, target: Target_contra) -> dict[str, float]:
        """Return scores of the validation split, for choosing a checkpoint: names of settings.METRICS but loss.

        reduced: the arrays of reduce(), one or a tuple, for all rows of features in order; padded with IGNORE_INDEX.
        """


class Loading(Protocol[Target_contra]):
    """loading.py: the folder of a trained or a base model to a model that predicts. Training never imports it."""

    def load_model(self, folder: Path) -> PreTrainedModel:
        """Load a trained or a base model to predict with, in fp32, from safetensors only."""

    @property
    def models(
        self,
    ) -> Callable[[PreTrainedModel, Target_contra], dict[str, tuple[PreTrainedModel, Any]]] | None:
        """The function from a model with several heads to a model and a target per head; Scoring.alone goes with it."""


class Metrics(Protocol):
    """metrics.py: predictions and references to scores; only the task's own modules call its functions."""

    @property
    def LOWER_IS_BETTER(self) -> tuple[str, ...]:
        """Those of the scores that are better when they are lower."""


class Outcome(TypedDict):
    """The result for one unit: a score, the higher the better, and input, reference and prediction as text."""

    score: float
    input: str
    reference: str
    prediction: str


# Predictions of each split -> settings that were chosen, the predictions with them, notes for people.
Settle = Callable[
    [dict[str, pa.Table], Target_contra, Evaluate_contra], tuple[dict[str, Any], dict[str, pa.Table], list[str]]
]


class Candidates(Protocol[Target_contra, Evaluate_contra]):
    """Results of a model that later runs use."""

    def __call__(
        self,
        split: Encoded,
        shared: dict[str, Encoded],
        target: Target_contra,
        forward: Forward,
        tokenizer: Any,
        settings: Evaluate_contra,
        to_learn: bool,
    ) -> pa.Table | None:
        """Return a split's candidates; None if the settings ask for none. to_learn: of train, for a later train."""


class Scoring(Protocol[Target_contra, Evaluate_contra]):
    """scoring.py: features and a model's outputs to predictions, and these to scores. No torch at import.

    Predictions are a table with the columns id, references, predictions and confidences or scores, and with those of
    corpus.slices. Scores depend on predictions alone, so that other metrics never need the model again.
    """

    def predict(
        self,
        split: Encoded,
        shared: dict[str, Encoded],
        target: Target_contra,
        forward: Forward,
        tokenizer: Any,
        settings: Evaluate_contra,
    ) -> pa.Table:
        """Return the predictions of a split, one row per example, or per block of a text.

        shared: the tables that all splits share. forward: runs the model, by torch or ONNX. References are null where
        examples have none, as in inference.
        """

    def base_is_baseline(self, base_model: Path) -> bool:
        """Return True if the base model does the task before training, so that evaluation compares with it."""

    def headline(self, target: Target_contra, settings: Evaluate_contra) -> str:
        """Return the name of the metric that the report shows first."""

    @property
    def beside(self) -> Callable[[Target_contra, Evaluate_contra], list[str]] | None:
        """The function that names metrics to log beside the headline."""

    def score(self, predictions: pa.Table, target: Target_contra, settings: Evaluate_contra) -> dict[str, float]:
        """Return the scores of predictions; shares are in [0, 1]."""

    def units(self, predictions: pa.Table) -> pa.Table:
        """Return the rows that resampling draws: independent of each other, with an id each."""

    def statistics(self, units: pa.Table, target: Target_contra, settings: Evaluate_contra) -> Statistic:
        """Return the function from weights of units, float [samples, units], to scores by name, float [samples].

        With weights of one it gives what score() gives; it may leave out scores that have no interval.
        """

    def outcomes(self, units: pa.Table, target: Target_contra, settings: Evaluate_contra) -> list[Outcome]:
        """Return the outcome of each unit, for comparing two runs."""

    def slicings(self, units: pa.Table, train: pa.Table, target: Target_contra) -> list[Slicing]:
        """Return the ways to split units into slices. train: the examples of the train split."""

    @property
    def counted(self) -> Callable[[pa.Table, Target_contra], np.ndarray] | None:
        """The function from units to whether each changes the headline at all: bool [units]. None: all do."""

    def tables(self, predictions: pa.Table, target: Target_contra, settings: Evaluate_contra) -> dict[str, list[Row]]:
        """Return tables for the report and its plots, by name."""

    def worst_errors(
        self, predictions: pa.Table, most: int, target: Target_contra, settings: Evaluate_contra
    ) -> list[Row]:
        """Return at most `most` errors, those of the greatest confidence first, each with its id and context."""

    def baselines(
        self,
        train: Encoded,
        split: Encoded,
        shared: dict[str, Encoded],
        target: Target_contra,
        settings: Evaluate_contra,
    ) -> dict[str, pa.Table]:
        """Return predictions of a split that need no trained model, by name, for score()."""

    @property
    def settle(self) -> Settle[Target_contra, Evaluate_contra] | None:
        """The function that chooses the settings that the recipe leaves to validation, from each split's predictions.

        (predictions by split, target, settings) -> values of settings, predictions with these, and notes for people.
        """

    @property
    def candidates(self) -> Candidates[Target_contra, Evaluate_contra] | None:
        """The function that returns a model's results for later runs, such as those of a reranker."""

    @property
    def alone(self) -> Callable[[pa.Table, str, Target_contra], pa.Table] | None:
        """The function from examples or predictions of one part, as its own model has them; with Loading.models."""


class Serving(Protocol[Target_contra]):
    """serving.py: people's inputs and answers. Inputs and answers are JSON objects."""

    def probe(self, target: Target_contra) -> dict[str, Any]:
        """Return an input that every model of this target answers."""

    def text_input(self, text: str) -> dict[str, Any]:
        """Return the input that corresponds to a bare text."""

    def examples(self, inputs: list[dict[str, Any]]) -> pa.Table:
        """Return inputs as rows of the corpus, without the values to predict.

        An input without an id gets its number. UserError names the input and the key that is wrong.
        """

    @property
    def examples_for(self) -> Callable[[Target_contra], Callable[[list[dict[str, Any]]], pa.Table]] | None:
        """The function from a target to a replacement of examples(), if examples depend on the target."""

    @property
    def documents(self) -> Callable[[list[dict[str, Any]]], pa.Table] | None:
        """The function from a collection to rows of the table documents; None if the task searches none."""

    def answers(self, predictions: pa.Table) -> list[dict[str, Any]]:
        """Return the answer of each input, in order, with its id."""

    @property
    def FORMATS(self) -> Mapping[str, Callable[[Iterable[dict[str, Any]]], Iterator[str]]] | None:
        """Further values of predict's --format: answers -> lines of a file."""


class Card(Protocol[Target_contra]):
    """card.py: the parts of the model card that depend on the task."""

    @property
    def PIPELINE_TAG(self) -> str:
        """The task as the Hugging Face Hub names it."""

    @property
    def LIBRARY(self) -> str:
        """The library that loads the exported folder, as the Hub names it."""

    def labels(self, target: Target_contra) -> list[str]:
        """Return the labels that the model predicts; [] if it predicts none."""

    def usage(self, model: str, target: Target_contra) -> str:
        """Return Python code that runs the exported model; model: a Hub id or a folder."""

    def onnx_usage(self, target: Target_contra) -> str:
        """Return Python code that runs the ONNX file; `session`, `tokenizer`, `config` and `np` are there."""

    @property
    def folders(self) -> Callable[[Target_contra], list[str]] | None:
        """The function that names the folders of further models inside the exported one."""


class Demo(Protocol[Target_contra]):
    """demo.py: inputs and outputs of the demo page."""

    def fields(self, target: Target_contra) -> dict[str, str]:
        """Return the keys of an input with their titles."""

    def asked(self, row: dict[str, Any], folder: Path) -> dict[str, str]:
        """Return the input that a row of the test split is; folder: of the exported model."""

    def views(self, target: Target_contra) -> list[View]:
        """Return the parts of an answer to show."""

    def shown(self, given: dict[str, str], answer: dict[str, Any], target: Target_contra) -> list[Any]:
        """Return a value per view, as views.Kind describes it. UserError if the folder is too old to tell."""
