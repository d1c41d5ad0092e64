"""The tokenize section."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from finetrail.schema.base import Settings


class Tokenize(Settings):
    """How the corpus is encoded into features. These two settings do not change the features."""

    engine: Literal["local", "ray"] = Field(description="local: this machine; ray: the Ray cluster at RAY_ADDRESS")
    num_proc: int = Field(ge=1, description="number of processes; with ray: number of concurrent tasks")

    # The settings that say how features are computed, and change no byte of them; here: by one process.
    IN_PROCESS: ClassVar[dict[str, Any]] = {"engine": "local", "num_proc": 1}

    def of_features(self) -> dict[str, Any]:
        """Return the settings that features depend on, which are all but those of IN_PROCESS.

        Records of a run (counts.json, record.json, finetrail.json) have these alone: if they named the engine, features
        from another engine would rerun every later stage.
        """
        return self.model_dump(exclude=set(self.IN_PROCESS))
