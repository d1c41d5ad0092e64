"""The model section: the base model, and what makes it a student."""

from typing import Annotated

from pydantic import Field, model_validator

from finetrail.schema.base import ONE_LINE, Settings
from finetrail.schema.sources import ModelSource, Source


class Model(Settings):
    """The base model."""

    name: str = Field(
        min_length=1, max_length=200, pattern=ONE_LINE, description="what people call it: the Hub id where it has one"
    )
    source: ModelSource
    license: str | None = Field(
        max_length=200, pattern=ONE_LINE, description="SPDX id or name, where known; null takes what the source states"
    )


class Teacher(Settings):
    """A finished model of the same task, with the base model's vocabulary and the corpus's labels."""

    name: str = Field(
        min_length=1, max_length=200, pattern=ONE_LINE, description="what people call it: the Hub id where it has one"
    )
    source: Source
    license: str | None = Field(
        max_length=200, pattern=ONE_LINE, description="SPDX id or name, where known; null takes what the source states"
    )
    batch_size: int = Field(ge=1, description="features a step, as its logits are computed")


class Student(Model):
    """A base model of which only some layers are kept, or that learns from a teacher, or both."""

    layers: list[Annotated[int, Field(ge=0)]] | None = Field(
        min_length=1, description="layers of the base model to keep, from 0, in rising order; null: all"
    )
    teacher: Teacher | None = Field(
        description="whose logits it learns, as train.distillation says; null: it learns from the labels alone"
    )

    @model_validator(mode="after")
    def _layers_are_there(self) -> "Student":
        if self.layers is not None and self.layers != sorted(set(self.layers)):
            raise ValueError(f"layers is {self.layers}; expected each once, in rising order")
        if self.layers is not None and self.source.kind == "new":
            raise ValueError("layers: a new model has the layers of its config; expected null")
        return self
