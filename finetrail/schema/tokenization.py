"""The tokenize section."""

from typing import Literal

from pydantic import Field

from finetrail.schema.base import Settings


class Tokenize(Settings):
    """How a corpus becomes features; a task adds what its features are. These two never change a byte of them."""

    engine: Literal["local", "ray"] = Field(description="local: this machine; ray: the Ray cluster at RAY_ADDRESS")
    num_proc: int = Field(ge=1, description="processes that encode; with ray: tasks at a time")
