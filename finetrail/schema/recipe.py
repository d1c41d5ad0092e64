"""A whole recipe, and the checks across its sections."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from finetrail.schema.base import Settings
from finetrail.schema.corpus import Mixture, parts_of
from finetrail.schema.readers import BratReader, ConllReader, SpacyReader
from finetrail.schema.training import MixedBatching, WeightMix


class Recipe(Settings):
    """A whole recipe; params.py adds the sections, which depend on the task."""

    numerics: Literal["fast", "portable"] = Field(
        description="fast: the fastest kernels of this machine; portable: fp32 with the same results, byte for byte, "
        "on every x86-64 CPU with AVX2 and any number of cores"
    )


def check(recipe: Any) -> Iterator[str]:
    """Yield the contradictions between settings of a recipe, of any task."""
    if recipe.numerics == "portable":
        if recipe.train.precision not in ("auto", "fp32"):
            yield (
                f"numerics is portable, which computes in fp32, and train.precision is {recipe.train.precision}; "
                "expected precision auto or fp32, or numerics fast"
            )
        if recipe.train.execution == "compile":
            yield (
                "numerics is portable, and train.execution: compile compiles for this CPU; "
                "expected execution auto or eager, or numerics fast"
            )
    yield from _distillation(recipe)
    yield from _students(recipe)
    for part, corpus in parts_of(recipe.corpus).items():
        yield from _corpus("corpus" if part is None else f"corpus.parts.{part}", corpus)
    yield from _mix(recipe)
    yield from _push(recipe)


def _push(recipe: Any) -> Iterator[str]:
    if recipe.export.hub_repo is not None and recipe.tokenize.limit is not None:
        yield (
            "export.hub_repo pushes the model, and tokenize.limit trains it on a part of its corpus; expected null "
            "for one of them"
        )


def _corpus(key: str, corpus: Any) -> Iterator[str]:
    source, splits, reader = corpus.source, corpus.splits, corpus.reader
    if source.kind == "hub" and reader.format != "parquet":
        yield f"{key}.reader.format: {reader.format}, and datasets of the Hub come as Parquet; expected parquet"
    if isinstance(splits.validation, str) and isinstance(splits.test, str):
        for setting in ("stratify", "group"):
            if (column := getattr(splits, setting)) is not None:
                yield (
                    f"{key}.splits.{setting}: {column!r}, but no split is drawn from train's file, so this has no "
                    "effect; expected null"
                )
    if corpus.sliced_by and (instead := _without_columns(reader)):
        yield f"{key}.slices: {instead}"
    columns = getattr(reader, "columns", corpus.sliced_by)  # where a format has its own, download tells
    if missing := [name for name in corpus.sliced_by if name not in columns]:
        yield f"{key}.slices: {missing[0]!r} is not in reader.columns; expected one of {', '.join(columns)}"


def _without_columns(reader: Any) -> str | None:
    """Return why a reader has no columns but the task's own; None if it may have others."""
    if isinstance(reader, BratReader | SpacyReader):
        return f"files of {reader.format} have no columns beside text and spans; expected no slices"
    if isinstance(reader, ConllReader) and reader.comment is None:
        return "in conll, slices are in comments, such as # domain=news; expected reader.comment: '#', or no slices"
    return None


def _mix(recipe: Any) -> Iterator[str]:
    corpus, batching = recipe.corpus, recipe.train.batching
    if not isinstance(batching, MixedBatching):
        return
    if not isinstance(corpus, Mixture):
        yield "train.batching mixes parts, and corpus has no parts; expected length or random"
    elif isinstance(batching.mix, WeightMix) and set(batching.mix.weights) != set(corpus.parts):
        yield (
            f"train.batching.mix.weights has {', '.join(batching.mix.weights)}; expected the parts of corpus, "
            f"{', '.join(corpus.parts)}"
        )


def check_trained_before(recipe: Any) -> Iterator[str]:
    """Yield a problem if the base model is new, for tasks that need a pretrained one."""
    if recipe.model.source.kind == "new":
        yield "model.source: kind new is for text_generation; expected a pretrained model"


def _students(recipe: Any) -> Iterator[str]:
    layers, lora = getattr(recipe.model, "layers", None), recipe.train.lora
    if layers is not None and lora is not None and lora.keep:
        yield (
            "train.lora.keep: adapters of a model with fewer layers do not fit the original base model; "
            "expected false, or model.layers null"
        )


def _distillation(recipe: Any) -> Iterator[str]:
    has_teacher = getattr(recipe.model, "teacher", None) is not None
    if has_teacher != hasattr(recipe.train, "distillation"):
        yield (
            "model.teacher and train.distillation go together, in tasks whose train has that section; expected "
            f"{'train.distillation too, or no teacher' if has_teacher else 'model.teacher too, or neither'}"
        )
    if has_teacher and recipe.train.execution not in ("auto", "eager"):
        yield (
            f"train.execution: {recipe.train.execution} does not support a loss with a teacher, which selects the "
            "tokens with labels in each pass; expected auto or eager"
        )
