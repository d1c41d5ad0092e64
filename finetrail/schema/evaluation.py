"""The evaluate section."""

from pydantic import Field

from finetrail.schema.base import Fraction, Settings


class Bootstrap(Settings):
    """Percentile intervals over resampled examples (Efron 1979; Koehn 2004 for NLP)."""

    samples: int = Field(ge=100, description="resamplings with replacement")
    confidence: Fraction = Field(description="0.95 gives the 2.5th and the 97.5th percentile")
    seed: int = Field(ge=0, description="of the resampling; not params.yaml's seed, so that seeds share it")


class Evaluate(Settings):
    """Prediction on validation and test; a task adds how it scores."""

    batch_size: int = Field(ge=1, description="features a step")
    bootstrap: Bootstrap
    worst_errors: int = Field(ge=0, description="errors kept for the report, the most confident first")
