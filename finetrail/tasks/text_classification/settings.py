"""The recipe's schema for text classification."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from pydantic import Field, PrivateAttr, model_validator

from finetrail import schema
from finetrail.schema import ClassifierTrain as Train
from finetrail.schema import Distillation, Fraction, Name

# Optional in tasks/contract.py, and not used here.
lacking = None

# Class of transformers with which base models are loaded.
AUTO_CLASS = "AutoModelForSequenceClassification"

Problem = Literal["single_label", "multi_label", "regression"]

# Problem -> column of the corpus with the values to predict.
TARGETS: dict[Problem, str] = {"single_label": "label", "multi_label": "labels", "regression": "score"}


LabelMap = Annotated[
    Literal["strip"] | Annotated[dict[str, str], Field(min_length=1)] | None,
    schema.one_message(
        "expected strip, null, or for each value in the files the name of its label; quote values that YAML reads as a "
        "number or a boolean, such as '0': negative"
    ),
]

# Metadata of the tables of a mixture with separate heads, and part of the target.
SEPARATE_HEADS = {"heads": "separate"}


class Target(TypedDict):
    """What the model predicts, and of what; see encoding.target()."""

    problem: Problem
    label_names: list[str]  # in the order of the model's outputs
    texts: NotRequired[list[str]]  # columns; early versions lack it
    normalize: NotRequired[str]
    heads: NotRequired[str]
    candidates: NotRequired[bool]
    mean: NotRequired[float]
    std: NotRequired[float]


def label_of(head: str, label: str) -> str:
    """Return the name of a label of one part, if parts have separate heads."""
    return f"{head}/{label}"


def heads_of(target: Target) -> dict[str, list[int]]:
    """Return the indices of the outputs of each head; empty if one head is shared by all parts."""
    found: dict[str, list[int]] = {}
    if target.get("heads") == SEPARATE_HEADS["heads"]:
        for index, label in enumerate(target["label_names"]):
            found.setdefault(label.partition("/")[0], []).append(index)
    return found


class Corpus(schema.Corpus):
    """A corpus of texts, or pairs of texts, with labels or scores."""

    reader: schema.TableReader
    problem: Problem = Field(
        description="single_label: one label per text (column label); multi_label: any number of labels (column "
        "labels); regression: a number (column score), which is standardized over train for the loss and predicted in "
        "its own unit"
    )
    label_separator: str | None = Field(
        min_length=1, description="for multi_label: separator of the labels in a string; null: labels are lists"
    )
    label_map: LabelMap = Field(
        description="value in the files -> name of the label, for all values; strip: names are the values without "
        "surrounding white space; null: names are the values"
    )
    normalize: Literal["nfc", "none"] = Field(
        description="Unicode form of the texts; nfc composes characters that some systems decompose, such as Korean "
        "syllables"
    )
    unseen_labels: Literal["keep", "refuse"] = Field(
        description="labels of validation or test that train lacks. keep: count them; they are always predicted wrong; "
        "refuse: an error"
    )

    @model_validator(mode="after")
    def _columns(self) -> "Corpus":
        columns, needed = set(self.reader.columns), {"text", TARGETS[self.problem]}
        if not needed <= columns <= needed | {"text_pair", "id", "candidate"} | self.more_columns:
            raise ValueError(
                f"reader.columns has {', '.join(sorted(columns))}; a {self.problem} corpus needs "
                f"{' and '.join(sorted(needed))}, and may have text_pair, id, candidate, that of splits.group and "
                "those of slices"
            )
        if "candidate" in columns and ("text_pair" not in columns or self.problem == "single_label"):
            raise ValueError(
                "reader.columns has candidate: a query and a document, which one number ranks; expected text_pair too, "
                "and problem regression, or multi_label with one label"
            )
        if self.splits.stratify not in (None, *columns):
            raise ValueError(f"splits.stratify: {self.splits.stratify!r} is not one of reader.columns")
        return self

    @model_validator(mode="after")
    def _labels(self) -> "Corpus":
        if self.label_separator is not None and self.problem != "multi_label":
            raise ValueError(f"label_separator goes with problem multi_label, not {self.problem}; expected null")
        if self.label_separator is None and self.problem == "multi_label" and self.reader.format in ("csv", "text"):
            raise ValueError(
                f"label_separator is null, and {self.reader.format} has no lists; expected the separator of the labels"
            )
        if self.label_map is not None and self.problem == "regression":
            raise ValueError("label_map: a regression corpus has scores and no labels; expected null")
        self._mapped_labels = sorted(set(self.label_map.values())) if isinstance(self.label_map, dict) else None
        return self

    # Labels that label_map gives, in a mixture those of all parts; None if it does not give all.
    _mapped_labels: list[str] | None = PrivateAttr(None)

    @property
    def mapped_labels(self) -> list[str] | None:
        """Return the labels of the model, sorted, if label_map gives all; for a part, those of its mixture."""
        return self._mapped_labels

    # In a mixture with separate heads, the name of the part, which is the prefix of its labels.
    _head: str | None = PrivateAttr(None)

    @property
    def head(self) -> str | None:
        """Return the name of the head of this corpus; None if there is one head."""
        return self._head

    def common(self) -> dict[str, Any]:
        """Return the settings that all parts of a mixture must have in common."""
        names = {"candidate": "candidates", "text_pair": "pairs"}
        kind = next((words for column, words in names.items() if column in self.reader.columns), "texts")
        return {
            "problem": self.problem,
            "reader.columns": kind,
            "normalize": self.normalize,
            "unseen_labels": self.unseen_labels,
        }


class Mixture(schema.Mixture):
    """Several corpora of texts, with shared or separate labels."""

    heads: Literal["shared", "separate"] = Field(
        description="shared: all parts have one set of labels and one head; separate: each part has its own labels and "
        "head on a shared encoder (MT-DNN, Liu et al. 2019), and is also exported on its own, in parts/NAME"
    )
    parts: dict[Name, schema.sliced(Corpus)] = schema.Mixture.model_fields["parts"]  # type: ignore[valid-type, assignment]

    @model_validator(mode="after")
    def _heads(self) -> "Mixture":
        if self.heads == "separate":
            for name, corpus in self.parts.items():
                if corpus.problem != "single_label":
                    raise ValueError(f"heads: separate goes with single_label, not {corpus.problem}; expected shared")
                corpus._head = name
        return self

    @model_validator(mode="after")
    def _labels_of_all(self) -> "Mixture":
        known: set[str] | None = set()
        for corpus in self.parts.values():
            own = corpus.mapped_labels
            named = [label if corpus.head is None else label_of(corpus.head, label) for label in own or []]
            known = None if known is None or own is None else known | set(named)
        for corpus in self.parts.values():
            corpus._mapped_labels = None if known is None else sorted(known)
        return self


class Tokenize(schema.Tokenize):
    """Encoding of texts into features."""

    max_length: int = Field(ge=3, description="maximum number of tokens per feature, including special tokens")
    overflow: Literal["head", "tail", "head_tail", "windows"] = Field(
        description="what is kept of longer texts (Sun et al. 2019). head: the first tokens; tail: the last tokens; "
        "head_tail: some of both; windows: all tokens, in overlapping windows that are trained on the text's label"
    )
    head_tokens: int | None = Field(
        ge=1, description="for head_tail: number of first tokens; the last tokens fill the rest. Sun et al.: 128 of 510"
    )
    stride: int | None = Field(ge=0, description="for windows: number of tokens that two consecutive windows share")
    limit: int | None = Field(
        ge=1,
        description="maximum number of examples per split, taken at equal distances; candidates are taken by whole "
        "queries, so that their number is approximate; null: all",
    )

    @model_validator(mode="after")
    def _overflow(self) -> "Tokenize":
        for key, overflow in (("head_tokens", "head_tail"), ("stride", "windows")):
            value = getattr(self, key)
            if (value is None) == (self.overflow == overflow):
                expected = "a number" if value is None else f"null: it is for {overflow}"
                raise ValueError(f"{key} is {value} with overflow {self.overflow}; expected {expected}")
            if value is not None and value >= self.max_length - 2:
                raise ValueError(f"{key} {value} leaves no room in max_length {self.max_length}; expected less")
        return self


class TaughtTrain(Train):
    """Training on the labels and on a teacher's logits."""

    distillation: Distillation = Field(description="loss of a student")


class Evaluate(schema.Evaluate):
    """Evaluation of the predictions, and how labels are chosen."""

    pool: Literal["mean", "max"] = Field(description="how the logits of the windows of one text are combined")
    positive_label: str | None = Field(
        description="for single_label: label whose F1 is also reported, as for MRPC; null: none"
    )
    threshold: Fraction | None = Field(
        description="for multi_label: minimum probability of predicted labels; null: for other problems"
    )


METRICS = {
    "single_label": ("accuracy", "macro_f1", "mcc"),
    "multi_label": ("micro_f1", "macro_f1", "exact_match"),
    "regression": ("pearson", "spearman", "mae", "rmse"),
}


def check(recipe: Any) -> Iterator[str]:
    """Yield the contradictions between sections of one recipe."""
    yield from schema.check_trained_before(recipe)
    problem = recipe.corpus.problem
    known = ("loss", *METRICS[problem])
    if recipe.train.best_metric not in known:
        yield (
            f"train.best_metric: {recipe.train.best_metric!r} does not go with corpus.problem {problem}; "
            f"expected one of {', '.join(known)}"
        )
    if recipe.corpus.head is not None:
        yield from _one_head_for_all(recipe)
    if "text_pair" in recipe.corpus.reader.columns and recipe.tokenize.overflow in ("head_tail", "windows"):
        yield f"tokenize.overflow: {recipe.tokenize.overflow} does not support pairs; expected head or tail"
    if problem == "regression" and hasattr(recipe.train, "distillation"):
        yield (
            "train.distillation compares probabilities, and corpus.problem regression has none; expected single_label "
            "or multi_label"
        )
    if recipe.evaluate.positive_label is not None and problem != "single_label":
        yield f"evaluate.positive_label goes with corpus.problem single_label, not {problem}; expected null"
    yield from _unknown_labels(recipe)
    if problem != "single_label" and (recipe.train.label_smoothing or recipe.train.class_weights):
        yield (
            f"train.label_smoothing and train.class_weights go with corpus.problem single_label, not {problem}; "
            "expected 0.0 and null"
        )
    if (recipe.evaluate.threshold is None) == (problem == "multi_label"):
        expected = "a number for" if problem == "multi_label" else "null, as it is for"
        yield f"evaluate.threshold: expected {expected} multi_label; corpus.problem is {problem}"


def misfits(recipe: Any, target: Target) -> Iterator[str]:
    """Yield the settings of evaluation that name a label which train lacks."""
    positive = recipe.evaluate.positive_label
    if positive is not None and positive not in target["label_names"]:
        yield (
            f"evaluate.positive_label: no text of train has the label {positive!r}; expected one of "
            f"{', '.join(target['label_names'])}"
        )


def _one_head_for_all(recipe: Any) -> Iterator[str]:
    """Yield the settings that cannot be combined with separate heads."""
    if recipe.train.label_smoothing:
        yield "train.label_smoothing: it is not supported with separate heads; expected 0.0"
    if recipe.evaluate.positive_label is not None:
        yield "evaluate.positive_label: the heads have labels of their own; expected null"
    if hasattr(recipe.train, "distillation"):
        yield "train.distillation compares all labels, and each head chooses among its own; expected heads shared"


def _unknown_labels(recipe: Any) -> Iterator[str]:
    """Yield the settings that name a label which corpus.label_map does not give."""
    if (known := recipe.corpus.mapped_labels) is not None:
        weights, positive = recipe.train.class_weights, recipe.evaluate.positive_label
        for key, labels in {
            "evaluate.positive_label": [] if positive is None else [positive],
            "train.class_weights": weights if isinstance(weights, dict) else [],
        }.items():
            if unknown := sorted(set(labels) - set(known)):
                yield f"{key}: {unknown[0]!r} is no label of corpus.label_map; expected one of {', '.join(known)}"
