"""The tokenize section."""

from typing import Literal

from pydantic import Field

from finetrail.schema.base import Settings


class Tokenize(Settings):
    """How the corpus is encoded into features. These two settings do not change the features."""

    engine: Literal["local", "ray"] = Field(description="local: this machine; ray: the Ray cluster at RAY_ADDRESS")
    num_proc: int = Field(ge=1, description="number of processes; with ray: number of concurrent tasks")
