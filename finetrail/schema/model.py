"""The model section: the base model, its layers to keep, and its teacher."""

from typing import Annotated

from pydantic import Field, model_validator

from finetrail.schema.base import License, ModelTitle, Settings
from finetrail.schema.sources import ModelSource, Source


class Model(Settings):
    """Base model: the one to fine-tune."""

    name: ModelTitle
    source: ModelSource
    license: License


class Teacher(Settings):
    """A fine-tuned model of the same task, with the vocabulary of the base model and the labels of the corpus."""

    name: ModelTitle
    source: Source
    license: License
    batch_size: int = Field(ge=1, description="features per step when its logits are computed")


class Student(Model):
    """A base model that keeps only some of its layers, or learns from a teacher, or both."""

    layers: list[Annotated[int, Field(ge=0)]] | None = Field(
        min_length=1,
        description="indices from 0 of the layers of the base model to keep, in ascending order; null: all layers",
    )
    teacher: Teacher | None = Field(
        description="model whose logits it learns, weighted by train.distillation; null: it learns from the labels "
        "alone"
    )

    @model_validator(mode="after")
    def _layers_are_there(self) -> "Student":
        if self.layers is not None and self.layers != sorted(set(self.layers)):
            raise ValueError(f"layers is {self.layers}; expected each once, in rising order")
        if self.layers is not None and self.source.kind == "new":
            raise ValueError("layers: a new model has the layers of its config; expected null")
        return self
